"""Utterances made ready for the model: index arrays over a split, and packed batches of them.

An example is an utterance in a modality. Sequences are laid end to end (ermgap.backbone.packing);
audio comes unpadded from the feature store and is concatenated over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ermgap.backbone.packing import BLOCK, Packing, blocks, moved
from ermgap.objective.groups import GENDERS


@dataclass(frozen=True)
class Batch:
    """B utterances, N tokens in all, packed end to end, with A answer positions each.

    Attributes:
        ids: [N] int64.
        packing: where each utterance's tokens are.
        audio: features, [sum of audio lengths, d] and zeros up to a whole block of rows.
        audio_places: [sum of audio lengths] int64, the tokens that they take the place of.
        positions: [B, A] int64, own tokens (those after a shared prefix) whose next token is (part
            of) the answer; past the end of a short answer, its last one again.
        targets: [B, A] int64, that next token, or -100.
        label, cell, gender: [B] int64.
        index: [B] int64, row in the `Examples` it was made from.
    """

    ids: Tensor
    packing: Packing
    audio: Tensor
    audio_places: Tensor
    positions: Tensor
    targets: Tensor
    label: Tensor
    cell: Tensor
    gender: Tensor
    index: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device, copied without waiting."""
        return moved(self, device)


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

    def batch(
        self,
        rows: Sequence[int] | np.ndarray,
        *,
        answers: bool,
        device,
        dtype,
        shared: bool = False,
    ) -> Batch:
        """Collate these rows.

        Args:
            rows: rows of this split.
            answers: whether the sequences hold all answer tokens but the last.
            device, dtype: where to, and the features' dtype.
            shared: pack the tokens before the audio once for all, not once an utterance.
        """
        rows = np.asarray(rows, dtype=np.int64)
        prompt, audio = self.prompt, self.audio_length[rows]
        given = [prompt.answers[label] for label in self.label[rows]]
        size = np.array([len(answer) if answers else 1 for answer in given])
        shown = int(size.max())
        prefix = np.array(prompt.prefix, dtype=np.int64)
        before, after = (0 if shared else len(prefix)), len(prompt.suffix)
        asked = before + audio + after  # own tokens up to the answer position
        packing = Packing.of(asked + size - 1, prefix=len(prefix) if shared else 0)
        starts = packing.starts.numpy()[:, None]
        ids = np.full(len(packing.places), prompt.audio, dtype=np.int64)
        heard = np.arange(len(ids)) < starts[-1, 0] + asked[-1] + size[-1] - 1  # the rest is spare
        targets = np.full((len(rows), shown), -100, dtype=np.int64)
        for tokens, first in (
            (prefix[:before], starts),
            (np.array(prompt.suffix, dtype=np.int64), starts + (before + audio)[:, None]),
        ):
            places = first + np.arange(len(tokens))
            ids[places], heard[places] = tokens, False
        for i, answer in enumerate(given):
            targets[i, : size[i]] = answer[: size[i]]
            end = starts[i, 0] + asked[i]
            ids[end : end + size[i] - 1] = answer[: size[i] - 1]
            heard[end : end + size[i] - 1] = False
        positions = starts + asked[:, None] - 1 + np.minimum(np.arange(shown), size[:, None] - 1)
        places = np.flatnonzero(heard)
        if shared:
            ids, places = np.concatenate([prefix, ids]), places + len(prefix)
        features = [self.store.tensor(self.ids[row]) for row in rows]
        spare = blocks(len(places), BLOCK) - len(places)
        features = torch.cat([*features, features[0].new_zeros(spare, features[0].shape[1])])
        return Batch(
            ids=torch.from_numpy(ids),
            packing=packing,
            audio=features.to(dtype),
            audio_places=torch.from_numpy(places),
            positions=torch.from_numpy(positions),
            targets=torch.from_numpy(targets),
            label=torch.from_numpy(self.label[rows]),
            cell=torch.from_numpy(self.cell[rows]),
            gender=torch.from_numpy(self.gender[rows]),
            index=torch.from_numpy(rows),
        ).to(device)


def cells_of(table: pd.DataFrame, modalities: Sequence[str]) -> list[tuple[str, str]]:
    """Every (language, modality) of a table, sorted: the order of cell indices."""
    return [(language, m) for m in modalities for language in sorted(table["language"].unique())]


def _index(values: pd.Series, names: Sequence[str]) -> np.ndarray:
    return values.map({name: i for i, name in enumerate(names)}).to_numpy(dtype=np.int64)
