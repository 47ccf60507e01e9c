"""The table of runs over speaker folds has the numbers of analysis.statistics."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import real_table  # noqa: E402

from analysis.statistics import SpeakerSums  # noqa: E402
from analysis.statistics.paired import paired_differences  # noqa: E402
from ermgap.config import MELD_LABELS  # noqa: E402

FOLDS, SPEAKERS, EACH = 3, 12, 60


def predictions(right: float, seed: int) -> pd.DataFrame:
    """Utterances of SPEAKERS speakers in two languages; a share `right` is predicted rightly."""
    rng = np.random.default_rng(seed)
    n = SPEAKERS * EACH
    speaker = np.repeat(np.arange(SPEAKERS), EACH)
    label = np.tile(np.arange(EACH) % len(MELD_LABELS), SPEAKERS)
    guess = np.where(rng.random(n) < right, label, rng.integers(len(MELD_LABELS), size=n))
    return pd.DataFrame(
        {
            "utterance_id": [f"u{i}" for i in range(n)],
            "language": np.where(speaker % 4 < 2, "de", "en"),
            "gender": np.where(speaker % 2, "male", "female"),
            "speaker": [f"s{s:02d}" for s in speaker],
            "modality": "speech",
            "fold": speaker // (SPEAKERS // FOLDS),
            "label": np.array(MELD_LABELS)[label],
            "prediction": np.array(MELD_LABELS)[guess],
        }
    )


@pytest.fixture(scope="module")
def whole() -> dict[str, pd.DataFrame]:
    """Two systems' predictions on all folds."""
    return {"ERM": predictions(0.7, 0), "other": predictions(0.6, 1)}


def rows(whole: dict[str, pd.DataFrame]) -> list[dict]:
    """What the runs of one seed leave, a row a system and fold."""
    return [
        {"name": name, "fold": fold, "seed": 0, "raised_share": 0.0}
        | {"speakers": real_table.speaker_counts(part)}
        for name, table in whole.items()
        for fold, part in table.groupby("fold")
    ]


def test_values_and_differences_are_those_of_predictions(whole):
    mine = real_table.sums_of(rows(whole), folds=FOLDS)
    theirs = SpeakerSums.of(whole, labels=MELD_LABELS)
    got = dict(
        zip(
            real_table.COLUMNS,
            real_table.values(mine, mine.measured_weights, [("other", 0)])[0],
            strict=True,
        )
    )
    expected = theirs.values(theirs.measured_weights, "other")
    assert got["acc"] == pytest.approx(expected["acc"][0])
    assert got["max_gap"] == pytest.approx(expected["max_gap"][0])
    weights = mine.draws(200, np.random.default_rng(0))
    paired = real_table.Paired(mine, "other", weights)
    same = paired_differences(theirs, "other", "ERM", weights)["acc"]
    assert paired.difference[0] == pytest.approx(same.value)
    assert paired.half[0] == pytest.approx((same.high - same.low) / 2, rel=0.2)


def test_a_seed_without_all_folds_is_left_out(whole):
    partial = [row | {"seed": 1} for row in rows(whole)[:-1]]
    text = real_table.table([*rows(whole), *partial], ["ERM", "other"], folds=FOLDS)
    assert "| ERM | 2 |" in text and "| other | 1 |" in text
