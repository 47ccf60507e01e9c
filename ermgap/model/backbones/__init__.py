"""The speech language models that a run can start from: a registry line each.

`BACKBONES.find(settings.name)(settings)` returns what `from_pretrained` of transformers takes for
the model, the tokenizer and the feature extractor: a folder, or a hub id to be read at
`settings.revision`. All are the same class with the same module names, so one code path loads,
adapts and runs them.
"""

from __future__ import annotations

from pathlib import Path

from ermgap.errors import UserError
from ermgap.model.backbones import random_tiny, small
from ermgap.registry import Registry

QWEN2_AUDIO = "Qwen/Qwen2-Audio-7B-Instruct"


def qwen2_audio_7b(settings) -> Path | str:
    """A local copy (`settings.path`) or the hub id; UserError for a folder without a model."""
    if settings.path is None:
        return QWEN2_AUDIO
    path = Path(settings.path).expanduser().absolute()
    if not (path / "config.json").is_file():
        raise UserError(
            f"backbone.path is {str(path)!r}, which holds no config.json; name a model's folder."
        )
    return path


BACKBONES = Registry("backbone")
BACKBONES["small"] = small.folder
BACKBONES["small-hub"] = small.folder_from_hub
BACKBONES["random-tiny"] = random_tiny.folder
BACKBONES["qwen2-audio-7b"] = qwen2_audio_7b
