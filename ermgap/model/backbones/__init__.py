"""Speech language models a run can start from: one line each.

`BACKBONES.find(cfg.name)(cfg)` gives what `from_pretrained` of transformers takes for the model,
the tokenizer and the feature extractor: a folder, or a hub id to be read at `cfg.revision`. All are
the same class with the same module names, so one code path loads, adapts and runs every one.
"""

from __future__ import annotations

from pathlib import Path

from ermgap.model.backbones import random_tiny, small
from ermgap.registry import Registry

QWEN2_AUDIO = "Qwen/Qwen2-Audio-7B-Instruct"


def qwen2_audio_7b(cfg) -> Path | str:
    """A local copy (`cfg.path`) or the hub's id of the paper's model."""
    return random_tiny.local(cfg) or QWEN2_AUDIO


BACKBONES = Registry("backbone")
BACKBONES["small"] = small.folder
BACKBONES["small-hub"] = small.folder_from_hub
BACKBONES["random-tiny"] = random_tiny.folder
BACKBONES["qwen2-audio-7b"] = qwen2_audio_7b
