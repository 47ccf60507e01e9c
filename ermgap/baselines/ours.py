"""Our backbones as systems of the benchmark: without an adapter, or with one that was saved.

A prediction is the label with the largest probability at the answer position, as in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

from ermgap.adapters import load_adapter, load_line
from ermgap.baselines import Context, System, silent
from ermgap.baselines.arguments import adapter_config, dial_line
from ermgap.config import MODALITIES, Backbone
from ermgap.distributed import World
from ermgap.model import prompts, qwen2_audio
from ermgap.model.batches import IndexedUtterances, cells_of
from ermgap.model.features.store import FeatureStore
from ermgap.records import dial_id
from ermgap.training.context import features_of
from ermgap.training.evaluation import label_log_probabilities, predictions

BATCH = 64


def make_zero_shot(argument: str | None, context: Context) -> System:
    """The configuration's backbone, or the one named by `argument`, without an adapter."""
    settings = context.config.backbone
    if argument:
        settings = context.config.replace({"backbone.name": argument}).backbone
    cache = context.backbone_cache or BackboneCache()
    speech = cache.speech(settings, labels=context.labels, device=torch.device(context.device))
    return BackboneSystem(f"{settings.name}, zero-shot", speech, context.labels, cache=cache)


def make_adapter(argument: str | None, context: Context) -> System:
    """An adapter of ours, with the backbone and the prompt that it was trained with."""
    config, folder = adapter_config(argument, context), Path(str(argument)).expanduser()
    cache = context.backbone_cache or BackboneCache()
    labels, device = config.data.labels, torch.device(context.device)
    speech = cache.speech(config.backbone, labels=labels, device=device)
    load_adapter(speech, folder)
    modalities = config.data.modalities
    return BackboneSystem(folder.name, speech, labels, modalities=modalities, cache=cache)


def make_dial(argument: str | None, context: Context) -> System:
    """A position on the line between two adapters of ours (ermgap.adapters.dial).

    The argument is `POSITION:LOWER_FOLDER:UPPER_FOLDER`, with folders as `adapter=` takes them:
    `dial=0.7:DIR/adapters/t0000:DIR/adapters/t0007`. Several positions, separated by commas, are
    answered in one pass; a column `position` of the predictions tells them apart.
    """
    positions, (lower, upper) = dial_line(argument)
    config = adapter_config(str(upper), context)
    cache = context.backbone_cache or BackboneCache()
    labels, device = config.data.labels, torch.device(context.device)
    speech = cache.speech(config.backbone, labels=labels, device=device)
    load_line(speech, lower, upper, positions)
    return BackboneSystem(
        dial_id(lower.name, upper.name, positions[0]),
        speech,
        labels,
        modalities=config.data.modalities,
        cache=cache,
        positions=positions,
    )


class BackboneCache:
    """The backbone that was loaded last and its features, reused by one system after another.

    Systems with one `BackboneCache` share the frozen weights; each has its own adapter and prompt.

    Args:
        feature_folder: of the feature store, instead of the user's cache.
    """

    def __init__(self, feature_folder: Path | None = None) -> None:
        self.feature_folder = feature_folder
        self.clear()

    def clear(self) -> None:
        """Release model and features: the next system may need the memory."""
        self.base: qwen2_audio.SpeechLLM | None = None
        self.key: tuple | None = None
        self.store: FeatureStore | None = None

    def speech(
        self, settings: Backbone, *, labels: Sequence[str], device: torch.device
    ) -> qwen2_audio.SpeechLLM:
        """The configured backbone without an adapter; raises as `qwen2_audio.load`."""
        key = (dataclasses.replace(settings, prompt=""), device)
        if key != self.key:
            self.clear()
            self.base = qwen2_audio.load(settings, labels=labels, device=device)
            self.key = key
        base = self.base
        prompt = prompts.build(base.tokenizer, prompts.find(settings.prompt), labels)
        settings = dataclasses.replace(base.settings, prompt=settings.prompt)
        return qwen2_audio.SpeechLLM(base.model, base.tokenizer, base.extractor, prompt, settings)

    def features(
        self, speech: qwen2_audio.SpeechLLM, utterances: pd.DataFrame, note: Callable[[str], None]
    ) -> FeatureStore:
        """The features of utterances, by the backbone that `speech` returned last."""
        if self.store is None or not set(utterances["utterance_id"]) <= set(self.store):
            self.store = features_of(speech, utterances, cache=self.feature_folder, note=note)
        return self.store


class BackboneSystem(System):
    """A backbone whose answer is the most probable label.

    Args:
        name: of its row.
        speech: with its adapter, if any.
        labels: in the order of the prompt's answers.
        modalities: those that it was trained on.
        cache: of the backbone in `speech`; keeps the features.
        positions: of the adapters in `speech` on a line, one a value of the predictions' column
            `position`; empty for a system without a line.
    """

    def __init__(
        self,
        name: str,
        speech: qwen2_audio.SpeechLLM,
        labels: Sequence[str],
        *,
        modalities: Sequence[str] = MODALITIES,
        cache: BackboneCache,
        positions: Sequence[float] = (),
    ) -> None:
        self.name, self.speech, self.cache = name, speech, cache
        self.labels, self.modalities = tuple(labels), tuple(modalities)
        self.positions = positions

    def predict(self, utterances: pd.DataFrame, *, modality: str, note=silent) -> pd.DataFrame:
        """See `System.predict`."""
        speech, labels = self.speech, self.labels
        note(f"{self.name}: {len(utterances)} utterances, {modality}")
        indexed = IndexedUtterances(
            utterances,
            store=self.cache.features(speech, utterances, note),
            prompt=speech.prompt,
            labels=labels,
            cells=cells_of(utterances, [modality]),
        )
        batch = max(1, BATCH // max(1, len(speech.adapters)))  # K adapters take no more memory
        scores = label_log_probabilities(
            speech, indexed, world=World(device=speech.device), batch=batch
        )
        tables = [predictions(indexed, answers, labels=labels) for answers in scores]
        if not self.positions:
            return tables[0]
        placed = zip(tables, self.positions, strict=True)
        return pd.concat(
            [table.assign(position=position) for table, position in placed], ignore_index=True
        )
