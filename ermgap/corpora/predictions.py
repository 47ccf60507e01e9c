"""The table of predictions: one row an utterance in a modality, as `ermgap.metrics` reads it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ermgap import attributes
from ermgap.config import MODALITIES
from ermgap.errors import UserError

COPIED = ["utterance_id", "language", "gender", "speaker", "group", "split"]


def predictions_table(
    utterances: pd.DataFrame,
    *,
    modality: str | pd.Series,
    prediction: Sequence[str],
    labels: Sequence[str],
    answers: Sequence[str] | None = None,
    log_probabilities: np.ndarray | None = None,
) -> pd.DataFrame:
    """The predictions, a row for each utterance in the order given, as `ermgap.metrics` reads them.

    Args:
        utterances: n rows of `ermgap.corpora.table`.
        modality: one of MODALITIES, for all rows or [n].
        prediction: [n] labels, or a constant of `ermgap.baselines.answers` where there is none.
        labels: the K class names.
        answers: [n] raw texts of a system that generates, kept as column `answer`.
        log_probabilities: [n, K] nats, kept as columns `logp_<label>` (float32).

    Returns columns utterance_id, language, modality, gender, speaker, group, split, any further
    attributes, label (the true emotion), prediction, `logp_*`, `answer`. Raises UserError for
    another modality and ValueError for arrays of another shape.
    """
    for name in {modality} if isinstance(modality, str) else modality.unique():
        check_modality(name)
    further = [name for name in attributes.columns(utterances) if name not in COPIED]
    table = utterances[[*COPIED, *further]].reset_index(drop=True)
    table.insert(2, "modality", modality if isinstance(modality, str) else list(modality))
    table["label"] = list(utterances["emotion"])
    table["prediction"] = list(prediction)
    if log_probabilities is not None:
        if np.shape(log_probabilities) != (len(table), len(labels)):
            raise ValueError(
                f"log probabilities of {len(table)} utterances and {len(labels)} labels have the "
                f"shape {np.shape(log_probabilities)}"
            )
        scores = np.asarray(log_probabilities, dtype=np.float32)
        table[[f"logp_{label}" for label in labels]] = scores
    if answers is not None:
        table["answer"] = list(answers)
    return table


def check_modality(modality: str) -> None:
    """Raise UserError unless `modality` is one of MODALITIES."""
    if modality not in MODALITIES:
        raise UserError(
            f"there is no modality {modality!r}; choose one of {', '.join(MODALITIES)}."
        )
