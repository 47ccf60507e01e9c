"""The emotions a model answers with, and the other words that corpora use for them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ermgap.corpora.table import excluded_frame

MELD_LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
ALIASES = {
    "angry": "anger", "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "happiness": "joy", "happy": "joy", "joyful": "joy", "sad": "sadness", "surprised": "surprise",
}  # fmt: skip


def keep_labels(table: pd.DataFrame, labels: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows whose emotion is one of `labels`, spelt as there, and the exclusions.

    An emotion that is no label but is another word for one (happiness for joy) takes that name.
    """
    spelt = {other: name for other, name in ALIASES.items() if name in labels}
    spelt |= {name: name for name in labels}
    emotion = table["emotion"].map(spelt)
    known = emotion.notna()
    left_out = table.loc[~known, ["corpus", "path"]].assign(
        reason=[f"emotion {word!r} is not one of the labels" for word in table["emotion"][~known]]
    )
    kept = table[known].assign(emotion=emotion[known].astype(str))
    return kept.reset_index(drop=True), excluded_frame([left_out])
