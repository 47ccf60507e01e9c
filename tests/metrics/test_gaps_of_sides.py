"""Gaps between several sides equal fairlearn's and a formula's; unknown sides count for no gap."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
from sklearn.metrics import accuracy_score, f1_score

from ermgap import metrics
from ermgap.metrics import Compared
from ermgap.rates import comparable

LABELS = ("anger", "joy", "neutral", "sadness")
ACCENTS = ("east", "north", "south", "west")
SEEDS = range(6)


def random_table(seed: int, *, sides: int = 4, missing: float = 0.1) -> pd.DataFrame:
    """Up to three languages; an accent that is rare or absent somewhere, and some unknown."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(300, 700))
    accent = rng.choice(ACCENTS[:sides], n, p=rng.dirichlet(np.full(sides, 3.0)))
    table = pd.DataFrame(
        {
            "utterance_id": [f"u{i}" for i in range(n)],
            "language": rng.choice(["de", "en", "ja"][: 1 + seed % 3], n),
            "modality": "speech",
            "gender": rng.choice(["female", "male", ""], n, p=[0.45, 0.45, 0.1]),
            "accent": np.where(rng.random(n) < missing, "", accent),
            "speaker": rng.integers(0, 40, n).astype(str),
            "label": rng.choice(LABELS, n, p=rng.dirichlet(np.full(len(LABELS), 2.0))),
        }
    )
    right = rng.random(n) < 0.4 + 0.3 * (table["accent"] == "north")
    table["prediction"] = np.where(right, table["label"], rng.choice(LABELS, n))
    logp = np.log(rng.dirichlet(np.ones(len(LABELS)), n))
    table[[f"logp_{label}" for label in LABELS]] = logp
    return table


def weighted(true: pd.Series, said: pd.Series) -> float:
    return f1_score(true, said, labels=LABELS, average="weighted", zero_division=0)


def between_groups(cell: pd.DataFrame, metric, true: pd.Series, said: pd.Series) -> float:
    frame = MetricFrame(metrics=metric, y_true=true, y_pred=said, sensitive_features=cell["accent"])
    return frame.difference(method="between_groups")


def fairlearn_gaps(cell: pd.DataFrame, least: int) -> dict[str, float]:
    """The four gaps of one cell, whose sides are all compared; per class of those that have it."""
    gaps = {
        "acc": between_groups(cell, accuracy_score, cell["label"], cell["prediction"]),
        "w_f1": between_groups(cell, weighted, cell["label"], cell["prediction"]),
    }
    support = pd.crosstab(cell["accent"], cell["label"])
    n = support.sum(axis=1)
    for name, rate in (("tpr", true_positive_rate), ("fpr", false_positive_rate)):
        sizes = []
        for label in LABELS:
            enough = support.index[support.get(label, pd.Series(0, support.index)) >= least]
            if len(enough) < 2:
                continue
            if name == "fpr":  # a side that says nothing else has no negatives
                enough = [side for side in enough if n[side] > support.loc[side, label]]
            part = cell[cell["accent"].isin(enough)]
            if part["accent"].nunique() >= 2:
                true, said = part["label"] == label, part["prediction"] == label
                sizes.append(between_groups(part, rate, true, said))
        gaps[name] = float(np.mean(sizes)) if sizes else np.nan
    return gaps


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("least", [1, 5])
def test_the_gaps_of_several_sides_equal_fairlearn_between_groups(seed, least):
    table = random_table(seed)
    found = metrics.evaluate(table, labels=LABELS, attribute=("accent",), min_support=least)
    worst = []
    for language, cell in table[table["accent"] != ""].groupby("language"):
        counts = cell["accent"].value_counts()
        compared = cell[cell["accent"].isin(counts.index[counts >= 2 * least])]
        gap = found["gaps"][f"{language}/speech"]
        assert metrics.side_counts(gap) == {a: int(counts.get(a, 0)) for a in ACCENTS}
        if compared["accent"].nunique() < 2:
            assert not gap["counts"]
            continue
        expected = fairlearn_gaps(compared, least)
        for name, value in expected.items():
            assert gap[name] == pytest.approx(value, abs=1e-12, nan_ok=True), (language, name)
        assert gap["avg"] == pytest.approx(np.nanmean(list(expected.values())))
        if gap["counts"]:
            worst.append(gap["avg"])
    assert found["max_gap"] == pytest.approx(max(worst))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_side_without_enough_utterances_or_speakers_is_not_compared_and_stays_counted(seed):
    table = random_table(seed, missing=0.0)
    rare = table[(table["accent"] != "west") | (table.groupby("accent").cumcount() < 4)]
    without = rare[rare["accent"] != "west"]
    found, expected = (
        metrics.evaluate(part, labels=LABELS, attribute=("accent",)) for part in (rare, without)
    )
    assert found["max_gap"] == expected["max_gap"]
    gaps = found["gaps"]["overall/speech"]
    assert gaps["n_west"] == 4 and gaps["avg"] == expected["gaps"]["overall/speech"]["avg"]
    one_voice = table.assign(
        speaker=table["speaker"].where(table["accent"] != "west", "the only one")
    )
    support = {"attribute": ("accent",), "speaker_support": 2}
    found = metrics.evaluate(one_voice, labels=LABELS, **support)
    expected = metrics.evaluate(table[table["accent"] != "west"], labels=LABELS, **support)
    assert found["max_gap"] == expected["max_gap"]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_unknown_side_counts_for_accuracy_alone(seed):
    table = random_table(seed, missing=0.3)
    known = table[table["accent"] != ""]
    whole, part = (
        metrics.evaluate(t, labels=LABELS, attribute=("accent",)) for t in (table, known)
    )
    assert whole["acc"] == pytest.approx(accuracy_score(table["label"], table["prediction"]))
    assert whole["w_f1"] == pytest.approx(weighted(table["label"], table["prediction"]))
    for name in ("max_gap", "max_loss_gap", "worst_group_w_f1", "worst_group", "gaps"):
        assert whole[name] == part[name]


@pytest.mark.parametrize("seed", SEEDS)
def test_two_crossed_attributes_are_one_with_their_combinations(seed):
    table = random_table(seed, sides=2)
    both = table["accent"] + " & " + table["gender"]
    known = (table["accent"] != "") & (table["gender"] != "")
    joined = table.assign(accent=both.where(known, ""))
    crossed = metrics.evaluate(table, labels=LABELS, attribute=("accent", "gender"))
    assert crossed == metrics.evaluate(joined, labels=LABELS, attribute=("accent",))
    sides = metrics.side_counts(crossed["gaps"]["overall/speech"])
    assert sorted(sides) == sorted(both[known].unique())


def test_languages_are_compared_in_one_cell():
    table = random_table(2)
    found = metrics.evaluate(table, labels=LABELS, attribute=("language", "gender"))
    assert set(found["gaps"]) == {"all/speech", "overall/speech"}
    assert len(metrics.side_counts(found["gaps"]["all/speech"])) == 6
    accuracy = (table["label"] == table["prediction"]).groupby(
        [table["language"], table["gender"]]
    ).mean().drop("", level="gender")  # fmt: skip
    assert found["gaps"]["all/speech"]["acc"] == pytest.approx(accuracy.max() - accuracy.min())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sides", [2, 3, 4])
def test_the_loss_gap_is_the_largest_difference_of_mean_losses(seed, sides):
    table = random_table(seed, sides=sides)
    found = metrics.evaluate(table, labels=LABELS, attribute=("accent",), min_support=1)
    logp = table[[f"logp_{label}" for label in LABELS]].to_numpy()
    place = [LABELS.index(label) for label in table["label"]]
    loss = pd.Series(-logp[np.arange(len(table)), place])
    gaps = []
    for language, part in table[table["accent"] != ""].groupby("language"):
        if found["gaps"][f"{language}/speech"]["counts"]:
            means = loss[part.index].groupby(part["accent"]).agg(["mean", "size"])
            means = means.loc[means["size"] >= 2, "mean"]
            gaps.append(max(abs(a - b) for a, b in combinations(means, 2)))
    assert found["max_loss_gap"] == pytest.approx(max(gaps))


def test_what_is_compared_depends_on_the_true_labels_alone():
    rng = np.random.default_rng(0)
    support = rng.integers(0, 12, (3, 4, 5)).astype(float)
    hits = np.minimum(support, rng.integers(0, 12, support.shape))
    some = Compared.of(metrics.Margins(support, hits, hits), min_support=2)
    other = Compared.of(metrics.Margins(support, support, support), min_support=2)
    for name in ("sides", "classes", "counted"):
        assert (getattr(some, name) == getattr(other, name)).all()
    assert comparable(np.array([4, 2, 4]), np.array([True, True, False])).tolist() == [1, 0, 0]
