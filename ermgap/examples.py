"""Utterances made ready for the model: index arrays over a split, and padded batches of them.

An example is an utterance in a modality. Sequences are padded on the right; audio comes unpadded
from the feature store and is concatenated over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ermgap.objective.groups import GENDERS


@dataclass(frozen=True)
class Batch:
    """B utterances of at most T tokens with A answer positions each.

    Attributes:
        ids: [B, T] int64, padded on the right.
        audio_mask: [B, T] bool, where the projected audio goes.
        audio: [sum of audio lengths, d] features, in the order of `audio_mask`'s true places.
        positions: [B, A] int64, positions whose next token is (part of) the answer.
        targets: [B, A] int64, that next token, or -100.
        label, cell, gender: [B] int64.
        index: [B] int64, row in the `Examples` it was made from.
    """

    ids: Tensor
    audio_mask: Tensor
    audio: Tensor
    positions: Tensor
    targets: Tensor
    label: Tensor
    cell: Tensor
    gender: Tensor
    index: Tensor


class Examples:
    """One split, ready to be batched.

    Args:
        table: rows of one split (ermgap.corpora.table).
        store: feature store; `store.tensor(utterance_id)` is [T, d].
        prompt: see ermgap.backbone.prompts.
        labels: the emotions, in the order of label indices.
        cells: (language, modality) in the order of cell indices.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        store,
        prompt,
        labels: Sequence[str],
        cells: Sequence[tuple[str, str]],
    ) -> None:
        self.table = table.reset_index(drop=True)
        self.store = store
        self.prompt = prompt
        self.ids = self.table["utterance_id"].tolist()
        self.label = _index(self.table["emotion"], labels)
        self.gender = _index(self.table["gender"], GENDERS)
        # Speech alone, so far: a modality more would repeat the rows with its own cells and prompt.
        self.cell = _index(self.table["language"], [language for language, _ in cells])
        self.audio_length = np.array([len(store[name]) for name in self.ids], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int] | np.ndarray, *, answers: bool, device, dtype) -> Batch:
        """Collate these rows; with `answers`, the sequences hold all answer tokens but the last."""
        rows = np.asarray(rows, dtype=np.int64)
        prompt = self.prompt
        given = [prompt.answers[label] for label in self.label[rows]]
        shown = max(len(answer) for answer in given) if answers else 1
        lengths = len(prompt.prefix) + len(prompt.suffix) + self.audio_length[rows]
        ids = np.zeros((len(rows), int(lengths.max()) + shown - 1), dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        targets = np.full((len(rows), shown), -100, dtype=np.int64)
        for i, (audio, answer) in enumerate(zip(self.audio_length[rows], given, strict=True)):
            start, end = len(prompt.prefix), len(prompt.prefix) + audio
            ids[i, :start], ids[i, start:end] = prompt.prefix, prompt.audio
            ids[i, end : lengths[i]] = prompt.suffix
            mask[i, start:end] = True
            if answers:
                ids[i, lengths[i] : lengths[i] + len(answer) - 1] = answer[:-1]
                targets[i, : len(answer)] = answer
            else:
                targets[i, 0] = answer[0]
        # Past a short answer's end the position stays inside the sequence; its target is ignored.
        positions = np.minimum(lengths[:, None] - 1 + np.arange(shown), ids.shape[1] - 1)
        audio = torch.cat([self.store.tensor(self.ids[row]) for row in rows])

        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

        return Batch(
            ids=put(ids),
            audio_mask=put(mask),
            audio=audio.to(device, dtype, non_blocking=True),
            positions=put(positions),
            targets=put(targets),
            label=put(self.label[rows]),
            cell=put(self.cell[rows]),
            gender=put(self.gender[rows]),
            index=put(rows),
        )


def cells_of(table: pd.DataFrame, modalities: Sequence[str]) -> list[tuple[str, str]]:
    """Every (language, modality) of a table, sorted: the order of cell indices."""
    return [(language, m) for m in modalities for language in sorted(table["language"].unique())]


def _index(values: pd.Series, names: Sequence[str]) -> np.ndarray:
    return values.map({name: i for i, name in enumerate(names)}).to_numpy(dtype=np.int64)
