"""Adapters with random values, saved with their cards as a run saves its own."""

from __future__ import annotations

from pathlib import Path

import tiny_run
import torch
from fake_sweep import LABELS, predictions, utterances

from ermgap import metrics
from ermgap.config import Config
from ermgap.model import prompts
from ermgap.training import model_card


def saved(folder: Path, config: Config, *, seed: int) -> Path:
    """An adapter for the base of `config`, with random values and its card."""
    backbone = config.backbone
    speech = tiny_run.speech("float32", labels=config.data.labels, layers=backbone.layers)
    speech.reset_adapter(config.adapter, seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, value in speech.trainable():
            value += 0.3 * torch.randn_like(value)
    speech.adapters[0].save(folder, base="random-tiny")
    table = utterances().assign(synthetic=True, path="clip.wav")
    heard = predictions(table, right=0.5, handicap=0.1, seed=0)
    model_card.write(folder, facts=model_card.CardFacts(
        trial_id=folder.name, config=config, utterances=table, epoch=1, base="",
        dev=metrics.evaluate(heard, labels=LABELS, min_support=1),
        prompt=prompts.find(backbone.prompt),
    ))  # fmt: skip
    return folder
