"""Our backbones as systems of the benchmark: pretrained alone, or with an adapter that was saved.

A prediction is the label with the largest probability at the answer position, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

from ermgap.backbone import qwen2_audio
from ermgap.config import Config
from ermgap.distributed import World
from ermgap.errors import UserError
from ermgap.evaluation import label_log_probabilities, predictions
from ermgap.examples import Examples, cells_of
from ermgap.material import features_of
from ermgap.saved_adapter import load_adapter, settings_of
from ermgap.systems import MODALITIES, Context, System

BATCH = 64


def make_zero_shot(argument: str | None, context: Context) -> System:
    """The configuration's backbone, or the one named by `argument`, without an adapter."""
    settings = context.config.backbone
    if argument:
        settings = context.config.replace({"backbone.name": argument}).backbone
    device = torch.device(context.device)
    speech = qwen2_audio.load(settings, labels=context.labels, device=device)
    return Scored(f"{settings.name}, zero-shot", speech, context.labels)


def make_adapter(argument: str | None, context: Context) -> System:
    """An adapter of ours, with the backbone and the prompt that it was trained with."""
    settings, folder = adapter_settings(argument, context), Path(str(argument)).expanduser()
    device = torch.device(context.device)
    speech = qwen2_audio.load(settings.backbone, labels=settings.data.labels, device=device)
    load_adapter(speech, folder)
    return Scored(folder.name, speech, settings.data.labels, modalities=settings.data.modalities)


def adapter_settings(argument: str | None, context: Context) -> Config:
    """What the adapter was trained with; UserError for none, or one of other labels or modalities.

    No model is loaded.
    """
    if not argument:
        raise UserError("the system 'adapter' needs a folder; write adapter=DIR/adapters/t0000.")
    folder = Path(argument).expanduser()
    settings = settings_of(folder)
    ours = context.config.backbone if context.config else settings.backbone
    if ours.path and ours.name == settings.backbone.name:  # a copy on this disk, not the hub's
        settings = settings_of(folder, backbone=ours.path)
    known = settings.data
    wanted = context.config.data.modalities if context.config else known.modalities
    if set(known.labels) != set(context.labels):
        raise UserError(
            f"the adapter {folder} was trained for {', '.join(known.labels)} and the benchmark is "
            f"over {', '.join(context.labels)}; set data.labels to the adapter's."
        )
    if not set(known.modalities) & set(wanted):
        raise UserError(
            f"the adapter {folder} was trained on {' and '.join(known.modalities)} and the "
            f"benchmark is over {' and '.join(wanted)}; set data.modalities to one that "
            "it knows."
        )
    return settings


class Scored(System):
    """A backbone whose answer is the most probable label.

    Args:
        name: of its row.
        speech: with its adapter, if any.
        labels: in the order of the prompt's answers.
        modalities: those that it was trained on; it is asked in no other.
    """

    def __init__(
        self,
        name: str,
        speech: qwen2_audio.SpeechLLM,
        labels: Sequence[str],
        *,
        modalities: Sequence[str] = MODALITIES,
    ) -> None:
        self.name, self.speech = name, speech
        self.labels, self.modalities = tuple(labels), tuple(modalities)

    def predict(
        self,
        utterances: pd.DataFrame,
        *,
        modality: str,
        note: Callable[[str], None] = lambda text: None,
    ) -> pd.DataFrame:
        """See `System.predict`."""
        speech, labels = self.speech, self.labels
        note(f"{self.name}: {len(utterances)} utterances, {modality}")
        examples = Examples(
            utterances,
            store=features_of(speech, utterances, note=note),
            prompt=speech.prompt,
            labels=labels,
            cells=cells_of(utterances, [modality]),
        )
        scores = label_log_probabilities(
            speech, examples, world=World(device=speech.device), batch=BATCH
        )
        return predictions(examples, scores[0], labels=labels)
