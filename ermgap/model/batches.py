"""Utterances as the model takes them: index arrays over a split, and packed batches.

A row is an utterance in a modality. Sequences are packed end to end (ermgap.model.packing); audio
comes unpadded from the feature store and is concatenated over the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ermgap import attributes
from ermgap.config import GENDER, GENDERS, SPEECH
from ermgap.model.packing import BLOCK, Packing, blocks, moved

AUDIO = -1  # stands for the placeholder until it is known where these are


@dataclass(frozen=True)
class Batch:
    """B utterances, N tokens in all, packed end to end, with A answer positions each.

    Attributes:
        ids: [N] int64.
        packing: where each utterance's tokens are.
        audio: features, [sum of audio lengths, d], and rows of zeros that fill the last block.
        audio_places: [sum of audio lengths] int64, the placeholder tokens that they replace.
        positions: [B, A] int64, own tokens (those after a shared prefix) whose next token is (part
            of) the answer; beyond the end of a short answer, its last one repeated.
        targets: [B, A] int64, that next token, or -100.
        label, cell, side: [B] int64.
        index: [B] int64, row in the `IndexedUtterances` it was made from.
    """

    ids: Tensor
    packing: Packing
    audio: Tensor
    audio_places: Tensor
    positions: Tensor
    targets: Tensor
    label: Tensor
    cell: Tensor
    side: Tensor
    index: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device, copied asynchronously."""
        return moved(self, device)


class IndexedUtterances:
    """One split, from which batches are made: a row for each utterance in each modality.

    Args:
        table: rows of one split (ermgap.corpora.table).
        store: feature store; `store.tensor(utterance_id)` is [T, d].
        prompt: see ermgap.model.prompts.
        labels: the emotions, in the order of label indices.
        cells: (language, modality) in the order of cell indices (`cells_of`).
        attribute: columns whose values are the sides of a cell.
        sides: the S known values, in the order of side indices (ermgap.attributes).

    Attributes:
        table: the utterances in the order of rows, with a column `modality`; an utterance without a
            transcript has no row in speech+text.
        label, cell: [N] int64. side: [N] int64, S where it is unknown.
        audio_length: [N] int64, placeholders of the clip. length: tokens up to the answer.
        prefix: [N] int64, number of the row's text before the audio; rows of equal number share it.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        store,
        prompt,
        labels: Sequence[str],
        cells: Sequence[tuple[str, str]],
        attribute: Sequence[str] = (GENDER,),
        sides: Sequence[str] = GENDERS,
    ) -> None:
        self.table = in_modalities(table, list(dict.fromkeys(modality for _, modality in cells)))
        self.store = store
        self.prompt = prompt
        self.ids = self.table["utterance_id"].tolist()
        self.label = _index(self.table["emotion"], labels)
        self.sides = tuple(sides)
        self.side = attributes.codes(self.table, attribute, self.sides)
        place = {cell: i for i, cell in enumerate(cells)}
        languages = attributes.cell_languages(self.table, attribute)
        pairs = zip(languages, self.table["modality"], strict=True)
        self.cell = np.array([place[pair] for pair in pairs], dtype=np.int64)
        self.cells = len(cells)
        self.audio_length = np.array([len(store[name]) for name in self.ids], dtype=np.int64)
        self._tokenise()

    def _tokenise(self) -> None:
        """Set the token ids around each row's audio; equal texts share one array."""

        @functools.cache
        def around(language: str, modality: str, transcript: str) -> tuple[np.ndarray, ...]:
            ids = self.prompt.around(language=language, modality=modality, transcript=transcript)
            return tuple(np.array(part, dtype=np.int64) for part in ids)

        texts = self.table["transcript"].where(self.table["modality"] != SPEECH, "")
        rows = zip(self.table["language"], self.table["modality"], texts, strict=True)
        parts = [around(*row) for row in rows]
        self.before, self.after = [before for before, _ in parts], [after for _, after in parts]
        self.prefix = pd.factorize(pd.Series([before.tobytes() for before in self.before]))[0]
        text_length = [len(before) + len(after) for before, after in parts]
        self.length = self.audio_length + np.array(text_length, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def group_counts(self) -> np.ndarray:
        """Rows of each cell and known side, [C, S] int64."""
        counts = np.zeros((self.cells, len(self.sides) + 1), dtype=np.int64)
        np.add.at(counts, (self.cell, self.side), 1)
        return counts[:, :-1]

    def forget_rare_sides(self, *, utterances: float, speakers: int) -> None:
        """Make the side of rows unknown where it is not estimable: it would be the worst by chance.

        That is a side of fewer rows or speakers than these in a cell that has two others with
        enough, the rule of `ermgap.metrics.Compared`. With two sides nothing changes.
        """
        rows = np.stack([self.cell, self.side, pd.factorize(self.table["speaker"])[0]], 1)
        heard = np.zeros((self.cells, len(self.sides) + 1), dtype=np.int64)
        np.add.at(heard, tuple(np.unique(rows, axis=0)[:, :2].T), 1)
        enough = (self.group_counts() >= utterances) & (heard[:, :-1] >= speakers)
        rare = ~enough & (enough.sum(1, keepdims=True) >= 2)
        rare = np.column_stack([rare, np.zeros(self.cells, bool)])
        self.side = np.where(rare[self.cell, self.side], len(self.sides), self.side)

    @property
    def any_unknown(self) -> bool:
        """Whether the side of some row is unknown."""
        return bool((self.side == len(self.sides)).any())

    def batch(
        self,
        rows: Sequence[int] | np.ndarray,
        *,
        answers: bool,
        device,
        dtype,
        shared: bool = False,
    ) -> Batch:
        """The batch of these rows.

        Args:
            rows: rows of this split.
            answers: whether the sequences hold all answer tokens but the last.
            device: of the batch.
            dtype: of the features.
            shared: pack the tokens before the audio, which must be equal in all rows, only once.
        """
        rows = np.asarray(rows, dtype=np.int64)
        empty = np.zeros(0, dtype=np.int64)
        prefix = self.before[rows[0]] if shared else empty
        wanted = [self.prompt.answers[i][: None if answers else 1] for i in self.label[rows]]
        parts = [
            (
                empty if shared else self.before[row],
                np.full(self.audio_length[row], AUDIO),
                self.after[row],
                np.array(answer[:-1], dtype=np.int64),
            )
            for row, answer in zip(rows, wanted, strict=True)
        ]
        sizes = np.array([[len(part) for part in each] for each in parts])
        packing = Packing.of(sizes.sum(1), prefix=len(prefix))
        own = np.concatenate([part for each in parts for part in each])
        places = np.flatnonzero(own == AUDIO)
        own = np.pad(own, (0, len(packing.places) - len(own)), constant_values=AUDIO)
        own[own == AUDIO] = self.prompt.audio
        # the token whose next one is the answer
        last = packing.starts.numpy() + sizes[:, :3].sum(1) - 1
        count = np.array([len(answer) for answer in wanted])
        step = np.arange(count.max())
        targets = np.array([[*a, *[-100] * (len(step) - len(a))] for a in wanted], dtype=np.int64)
        return Batch(
            ids=torch.from_numpy(np.concatenate([prefix, own])),
            packing=packing,
            audio=self._features(rows, len(places)).to(dtype),
            audio_places=torch.from_numpy(places + len(prefix)),
            positions=torch.from_numpy(last[:, None] + np.minimum(step, count[:, None] - 1)),
            targets=torch.from_numpy(targets),
            label=torch.from_numpy(self.label[rows]),
            cell=torch.from_numpy(self.cell[rows]),
            side=torch.from_numpy(self.side[rows]),
            index=torch.from_numpy(rows),
        ).to(device)

    def _features(self, rows: np.ndarray, count: int) -> Tensor:
        """The clips' features end to end, and rows of zeros that fill the last block."""
        features = [self.store.tensor(self.ids[row]) for row in rows]
        spare = blocks(count, BLOCK) - count
        return torch.cat([*features, features[0].new_zeros(spare, features[0].shape[1])])


def in_modalities(table: pd.DataFrame, modalities: Sequence[str]) -> pd.DataFrame:
    """The utterances once for each modality, with a column `modality`.

    Utterances without a transcript are not in speech+text.
    """
    spoken = table["transcript"].fillna("").str.strip() != ""
    parts = [(table if m == SPEECH else table[spoken]).assign(modality=m) for m in modalities]
    return pd.concat(parts, ignore_index=True)


def cells_of(
    table: pd.DataFrame, modalities: Sequence[str], attribute: Sequence[str] = (GENDER,)
) -> list[tuple[str, str]]:
    """Every (language, modality) that has utterances: the order of cell indices.

    Where `language` is part of the attribute all languages share a cell.
    """
    table = table.assign(language=attributes.cell_languages(table, attribute))
    by_modality = in_modalities(table, modalities).groupby("modality", sort=False)["language"]
    return [(name, modality) for modality, names in by_modality for name in sorted(set(names))]


def _index(values: pd.Series, names: Sequence[str]) -> np.ndarray:
    return values.map({name: i for i, name in enumerate(names)}).to_numpy(dtype=np.int64)
