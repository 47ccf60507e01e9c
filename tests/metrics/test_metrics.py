"""Metrics equal scikit-learn's and fairlearn's on random tables with missing classes and groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from ermgap import metrics
from ermgap.config import GENDERS
from ermgap.errors import UserError
from ermgap.records import is_degenerate

LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
SEEDS = range(12)
FEW_SEEDS = range(4)  # fairlearn takes most of this file's seconds


def random_table(seed: int) -> pd.DataFrame:
    """1 to 3 languages, 1 or 2 modalities, skewed classes; some classes and one gender missing."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(60, 500))
    prior = rng.dirichlet(np.full(len(LABELS), 0.6))
    table = pd.DataFrame(
        {
            "utterance_id": [f"u{i}" for i in range(n)],
            "language": rng.choice(["de", "en", "ja"][: rng.integers(1, 4)], n),
            "modality": rng.choice(["speech", "speech+text"][: rng.integers(1, 3)], n),
            "gender": rng.choice(["female", "male"], n, p=[0.4, 0.6]),
            "label": rng.choice(LABELS, n, p=prior),
        }
    )
    right = rng.random(n) < 0.5
    table["prediction"] = np.where(right, table["label"], rng.choice(LABELS, n))
    logp = np.log(rng.dirichlet(np.ones(len(LABELS)), n))
    table[[f"logp_{label}" for label in LABELS]] = logp
    lost = (table["language"] == "de") & (table["gender"] == "male") & (seed % 3 == 0)
    lost |= (table["gender"] == "female") & (table["label"] == LABELS[seed % 7])
    return table[~lost].reset_index(drop=True)


def weighted(table: pd.DataFrame) -> float:
    return f1_score(
        table["label"], table["prediction"], labels=LABELS, average="weighted", zero_division=0
    )


def cells_of(table: pd.DataFrame):
    for (language, modality), cell in table.groupby(["language", "modality"]):
        yield f"{language}/{modality}", cell
    for modality, cell in table.groupby("modality"):
        yield f"overall/{modality}", cell


def fairlearn_rate_gap(cell: pd.DataFrame, rate, classes: list[str]) -> float:
    """Mean over classes of fairlearn's difference; FPR leaves out classes without negatives."""
    gaps = []
    for name in classes:
        truth = cell["label"] == name
        if rate is false_positive_rate and truth.groupby(cell["gender"]).all().any():
            continue
        frame = MetricFrame(
            metrics=rate,
            y_true=truth,
            y_pred=cell["prediction"] == name,
            sensitive_features=cell["gender"],
        )
        gaps.append(frame.difference())
    return float(np.mean(gaps)) if gaps else np.nan


def classes_with_support(cell: pd.DataFrame, least: int) -> list[str]:
    counts = pd.crosstab(cell["label"], cell["gender"]).reindex(
        index=LABELS, columns=GENDERS, fill_value=0
    )
    return list(counts.index[(counts >= least).all(axis=1)])


@pytest.mark.parametrize("seed", SEEDS)
def test_pooled_scores_equal_scikit_learn(seed):
    table = random_table(seed)
    found = metrics.evaluate(table, labels=LABELS)
    assert found["acc"] == pytest.approx(accuracy_score(table["label"], table["prediction"]))
    assert found["w_f1"] == pytest.approx(weighted(table))
    assert found["n"] == len(table)
    common = table["label"].mode()[0]
    constant = table.assign(prediction=common)
    assert found["majority_rate"] == pytest.approx((table["label"] == common).mean())
    assert found["majority_w_f1"] == pytest.approx(weighted(constant))


@pytest.mark.parametrize("seed", FEW_SEEDS)
@pytest.mark.parametrize("least", [1, 5])
def test_every_gap_equals_fairlearn_and_scikit_learn(seed, least):
    table = random_table(seed)
    found = metrics.evaluate(table, labels=LABELS, min_support=least)["gaps"]
    assert set(found) == {name for name, _ in cells_of(table)}
    for name, cell in cells_of(table):
        classes = classes_with_support(cell, least)
        genders = [group for _, group in cell.groupby("gender")]
        expected = {
            "tpr": fairlearn_rate_gap(cell, true_positive_rate, classes),
            "fpr": fairlearn_rate_gap(cell, false_positive_rate, classes),
            "w_f1": np.nan,
            "acc": np.nan,
        }
        if len(genders) == 2:
            female, male = genders
            expected["w_f1"] = abs(weighted(female) - weighted(male))
            frame = MetricFrame(
                metrics=accuracy_score,
                y_true=cell["label"],
                y_pred=cell["prediction"],
                sensitive_features=cell["gender"],
            )
            expected["acc"] = frame.difference()
        for key, value in expected.items():
            assert found[name][key] == pytest.approx(value, nan_ok=True), (name, key)
        defined = [value for value in expected.values() if np.isfinite(value)]
        assert found[name]["defined"] == len(defined)
        assert found[name]["avg"] == pytest.approx(np.mean(defined or [np.nan]), nan_ok=True)
        assert found[name]["classes"] == len(classes)
        assert found[name]["n_female"] == (cell["gender"] == "female").sum()
        assert found[name]["n_male"] == (cell["gender"] == "male").sum()


def test_accuracy_by_group_equals_fairlearn_with_control_features():
    table = random_table(4)
    found = metrics.evaluate(table, labels=LABELS)["gaps"]
    frame = MetricFrame(
        metrics=accuracy_score,
        y_true=table["label"],
        y_pred=table["prediction"],
        sensitive_features=table["gender"],
        control_features=table["language"] + "/" + table["modality"],
    )
    assert len(frame.difference()) >= 2
    for name, difference in frame.difference().items():
        assert found[name]["acc"] == pytest.approx(difference)


@pytest.mark.parametrize("seed", SEEDS)
def test_maxima_and_minima_are_over_language_cells_and_not_over_the_pooled_ones(seed):
    table = random_table(seed)
    found = metrics.evaluate(table, labels=LABELS)
    cells = {n: gap for n, gap in found["gaps"].items() if not n.startswith("overall")}
    enough = [g for g in cells.values() if min(g["n_female"], g["n_male"]) >= 10]
    most = max([g["defined"] for g in enough], default=0)
    gaps = {n: g["avg"] for n, g in cells.items() if g in enough and g["defined"] == most}
    assert found["cells"] == len(cells) and found["cells_counted"] == len(gaps)
    assert {n for n, g in cells.items() if g["counts"]} == set(gaps)
    assert found["max_gap"] == pytest.approx(pd.Series(gaps).max(), nan_ok=True)
    by_group = {
        f"{language}/{modality}/{gender}": weighted(group)
        for (language, modality, gender), group in table.groupby(["language", "modality", "gender"])
        if len(group) >= 10
    }
    assert found["worst_group_w_f1"] == pytest.approx(min(by_group.values()))
    assert by_group[found["worst_group"]] == pytest.approx(min(by_group.values()))
    truth = [table[f"logp_{label}"][i] for i, label in enumerate(table["label"])]
    means = table.assign(loss=-np.array(truth)).pivot_table(
        index=["language", "modality"], columns="gender", values="loss"
    )
    both = means.reindex(columns=GENDERS)
    differences = (both["female"] - both["male"]).abs()
    largest = differences[["/".join(cell) in gaps for cell in differences.index]].max()
    assert found["max_loss_gap"] == pytest.approx(largest, nan_ok=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_equal_the_confusion_matrix_of_each_group(seed):
    table = random_table(seed)
    coded = metrics.encode(table, labels=LABELS)
    counts, unknown = metrics.confusions(coded)
    assert not unknown.any()
    for (language, modality, gender), group in table.groupby(["language", "modality", "gender"]):
        cell = coded.cells.index(f"{language}/{modality}")
        ours = counts[cell, GENDERS.index(gender)]
        theirs = confusion_matrix(group["label"], group["prediction"], labels=list(LABELS))
        np.testing.assert_array_equal(ours[:, :-1], theirs)
        present = theirs.sum(1) > 0
        recalls = recall_score(
            group["label"], group["prediction"], labels=LABELS, average=None, zero_division=0
        )
        hits = np.diagonal(ours)[present] / ours.sum(1)[present]
        np.testing.assert_allclose(hits, recalls[present])


def test_a_missing_gender_makes_a_cell_undefined_and_never_zero():
    table = random_table(1)
    women = table[table["gender"] == "female"]
    found = metrics.evaluate(women, labels=LABELS)
    assert np.isnan(found["max_gap"]) and np.isnan(found["max_loss_gap"])
    assert found["worst_cell"] is None
    for gap in found["gaps"].values():
        assert gap["defined"] == 0 and gap["n_male"] == 0
        assert all(np.isnan(gap[key]) for key in ("tpr", "fpr", "w_f1", "acc", "avg"))


def test_too_few_utterances_of_every_class_leave_two_of_four_gaps():
    table = pd.DataFrame(
        {
            "language": "de",
            "modality": "speech",
            "gender": ["female", "male"] * 4,
            "label": ["joy", "joy", "fear", "fear"] * 2,
            "prediction": "joy",
        }
    )
    gap = metrics.evaluate(table, labels=LABELS, min_support=3)["gaps"]["de/speech"]
    assert np.isnan(gap["tpr"]) and np.isnan(gap["fpr"]) and gap["classes"] == 0
    assert gap["defined"] == 2 and gap["avg"] == 0.0


def cell(language: str, female: int, male: int, *, right=(0.6, 0.6), labels=LABELS[:4]):
    """A cell of so many utterances, labels in turn, of which a share is recognised by gender."""
    parts = []
    for gender, n, share in zip(GENDERS, (female, male), right, strict=True):
        label = np.resize(labels, n)
        hit = np.arange(n) >= n - round(n * share)
        parts.append(pd.DataFrame({"language": language, "modality": "speech", "gender": gender,
                                   "label": label, "prediction": np.where(hit, label, "none"),
                                   **{f"logp_{name}": -1.0 for name in LABELS}}))  # fmt: skip
        parts[-1].loc[~hit, [f"logp_{name}" for name in LABELS]] = -5.0
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("few", [1, 2, 9])
def test_a_gender_of_few_utterances_sets_neither_the_largest_gap_nor_the_worst_group(few):
    table = pd.concat([cell("de", 60, 60, right=(0.7, 0.6)), cell("ja", few, 40, right=(0, 0.6))])
    found = metrics.evaluate(table, labels=LABELS)
    assert found["worst_cell"] == "de/speech" and found["max_gap"] < 0.15
    assert found["worst_group"] == "de/speech/male" or found["worst_group"] == "ja/speech/male"
    assert found["max_loss_gap"] == pytest.approx(0.4)
    assert (found["cells"], found["cells_counted"]) == (2, 1)
    small = found["gaps"]["ja/speech"]  # measured nevertheless, with its numbers
    assert small["acc"] == pytest.approx(0.6) and (small["n_female"], small["n_male"]) == (few, 40)
    assert small["counts"] is False and found["gaps"]["de/speech"]["counts"] is True
    assert metrics.uncounted_cells(found["gaps"]) == {
        "ja/speech": f"{few} female and 40 male utterances, 2 of 4 gaps defined"
    }


def test_a_cell_without_a_class_of_enough_support_does_not_compete_with_cells_that_have_four_gaps():
    spread = cell("ja", 20, 20, right=(0.2, 0.8), labels=LABELS)  # two or three of a class
    found = metrics.evaluate(pd.concat([cell("de", 60, 60), spread]), labels=LABELS)
    assert found["gaps"]["ja/speech"]["defined"] == 2
    assert found["worst_cell"] == "de/speech" and found["cells_counted"] == 1
    alone = metrics.evaluate(spread, labels=LABELS)  # among its like it does
    assert alone["worst_cell"] == "ja/speech" and alone["max_gap"] > 0.4


def test_the_support_of_a_cell_is_twice_that_of_a_class_unless_it_is_given():
    table = cell("de", 12, 12, right=(0.9, 0.5), labels=LABELS[:2])
    assert np.isfinite(metrics.evaluate(table, labels=LABELS, min_support=6)["max_gap"])
    none = metrics.evaluate(table, labels=LABELS, min_support=6, cell_support=13)
    assert np.isnan(none["max_gap"]) and none["worst_cell"] is None and none["worst_group"] is None
    assert np.isnan(none["worst_group_w_f1"]) and np.isnan(none["max_loss_gap"])
    assert (none["cells"], none["cells_counted"]) == (1, 0)


def test_which_cells_count_depends_on_the_true_labels_alone():
    for seed in SEEDS:
        table = random_table(seed)
        other = table.assign(prediction="joy")
        first, second = (metrics.evaluate(one, labels=LABELS) for one in (table, other))
        for name, gap in first["gaps"].items():
            assert gap.get("counts") == second["gaps"][name].get("counts")


@pytest.mark.parametrize("name", ["overall", "de/x"])
def test_a_language_that_would_be_mistaken_for_another_cell_is_refused(name):
    with pytest.raises(UserError, match=f"language '{name}'.*write two letters"):
        metrics.evaluate(cell(name, 20, 20), labels=LABELS)


def test_an_empty_table_is_undefined_everywhere():
    found = metrics.evaluate(random_table(0)[:0], labels=LABELS)
    assert found["n"] == 0 and found["gaps"] == {}
    for key in ("acc", "w_f1", "max_gap", "worst_group_w_f1", "max_loss_gap", "majority_rate"):
        assert np.isnan(found[key]), key


def test_a_word_that_is_no_label_counts_as_wrong_and_as_no_class():
    table = random_table(2)
    table.loc[::3, "prediction"] = "no idea"
    found = metrics.evaluate(table, labels=LABELS)
    assert found["acc"] == pytest.approx((table["label"] == table["prediction"]).mean())
    assert found["w_f1"] == pytest.approx(weighted(table))


def test_the_order_of_rows_and_the_names_of_genders_do_not_change_any_gap():
    table = random_table(5)
    swapped = table.assign(gender=table["gender"].map({"female": "male", "male": "female"}))
    shuffled = swapped.sample(frac=1, random_state=0)
    one = metrics.evaluate(table, labels=LABELS)
    two = metrics.evaluate(shuffled, labels=LABELS)
    for key in ("acc", "w_f1", "max_gap", "worst_group_w_f1", "max_loss_gap"):
        assert one[key] == pytest.approx(two[key]), key


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("label", "calm", "row 3 .* label 'calm'"),
        ("language", None, "no language"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_in_one_sentence(column, value, words):
    table = random_table(1)
    table.loc[3, column] = value
    with pytest.raises(UserError, match=words):
        metrics.evaluate(table, labels=LABELS)


def test_a_missing_column_is_refused_by_name():
    with pytest.raises(UserError, match="gender"):
        metrics.evaluate(random_table(1).drop(columns="gender"), labels=LABELS)


def test_a_constant_predictor_is_degenerate_although_its_gap_is_zero():
    table = random_table(3).assign(prediction="joy")
    found = metrics.evaluate(table, labels=LABELS)
    assert is_degenerate(
        acc=found["acc"], w_f1=found["w_f1"], majority_rate=found["majority_rate"], floor=None
    )


def test_the_floor_and_undefined_scores_make_a_point_degenerate():
    rule = {"majority_rate": 0.3, "floor": 0.25}
    assert not is_degenerate(acc=0.5, w_f1=0.25, **rule)
    assert is_degenerate(acc=0.5, w_f1=0.24, **rule)
    assert is_degenerate(acc=0.3, w_f1=0.4, **rule)
    assert is_degenerate(acc=float("nan"), w_f1=0.4, **rule)
