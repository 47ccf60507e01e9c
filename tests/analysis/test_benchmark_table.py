"""The benchmark table agrees with scikit-learn and fairlearn, and says what it cannot know."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
from fake_sweep import LABELS, predictions, utterances
from sklearn.metrics import accuracy_score, f1_score

from analysis.statistics import SpeakerSums, uncertainty
from analysis.tables import formats
from analysis.tables.benchmark_table import SCORES, table
from ermgap import metrics
from ermgap.errors import UserError

AWKWARD = r"50% & A_1 #2 {x} \ ~^|<b>"


def system(seed: int = 0, *, n: int = 480, right: float = 0.6, **changes) -> pd.DataFrame:
    return predictions(utterances(n=n), right=right, handicap=0.1, seed=seed).assign(**changes)


def in_both(frame: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, other.assign(modality="speech+text")], ignore_index=True)


def built(systems, **options):
    return table(systems, labels=LABELS, **({"resamples": 60} | options))


def row(made, system: str, block: str) -> pd.Series:
    rows = made.rows.set_index(["system", "block"])
    return rows.loc[(system, block)]


@pytest.fixture(scope="module")
def mixed():
    """Two modalities, a constant system, unparsable answers, and one without German men."""
    first, second = system(0), system(1, right=0.7)
    odd = in_both(system(2), system(3))
    odd.loc[::7, "prediction"] = "I am not sure"
    partial = first[(first["language"] != "de") | (first["gender"] == "female")]
    return {
        "ERM": in_both(first, second),
        AWKWARD: odd,
        "constant": in_both(first, second).assign(prediction="joy"),
        "partial": partial,
    }


@pytest.fixture(scope="module")
def made(mixed):
    return built(mixed, baseline="ERM", synthetic=["demo"])


# Numbers ------------------------------------------------------------------------------------------


def difference(part: pd.DataFrame, metric) -> float:
    frame = MetricFrame(
        metrics=metric,
        y_true=part["label"],
        y_pred=part["prediction"],
        sensitive_features=part["gender"],
    )
    return frame.difference()


def weighted(true, predicted) -> float:
    return f1_score(true, predicted, labels=LABELS, average="weighted", zero_division=0)


def mean_rate_gap(part: pd.DataFrame, rate) -> float:
    gaps = []
    for label in LABELS:
        binary = part.assign(label=part["label"] == label, prediction=part["prediction"] == label)
        gaps.append(difference(binary, lambda t, p: rate(t, p, pos_label=True)))
    return float(np.mean(gaps))


@pytest.mark.parametrize("block", ["de/speech", "overall/speech", "overall/speech+text"])
@pytest.mark.parametrize("name", ["ERM", AWKWARD])
def test_scores_and_gaps_are_those_of_scikit_learn_and_fairlearn(mixed, made, name, block):
    language, modality = block.split("/")
    part = mixed[name]
    part = part[part["modality"] == modality]
    part = part if language == "overall" else part[part["language"] == language]
    scores = row(made, name, block)
    assert scores["classes"] == len(LABELS)
    wanted = {
        "w_f1": weighted(part["label"], part["prediction"]),
        "acc": accuracy_score(part["label"], part["prediction"]),
        "tpr_gap": mean_rate_gap(part, true_positive_rate),
        "fpr_gap": mean_rate_gap(part, false_positive_rate),
        "w_f1_gap": difference(part, weighted),
        "acc_gap": difference(part, accuracy_score),
    }
    wanted["avg_gap"] = np.mean(list(wanted.values())[2:])
    assert dict(scores[list(SCORES)]) == pytest.approx(wanted)
    assert scores["n"] == len(part) == scores["n_female"] + scores["n_male"]


@pytest.mark.parametrize("min_support", [1, 9])
def test_blocks_and_the_largest_gap_are_those_of_the_metrics(mixed, min_support):
    made = built(mixed, min_support=min_support)
    for name, frame in mixed.items():
        expected = metrics.evaluate(frame, labels=LABELS, min_support=min_support)
        for block, gaps in expected["gaps"].items():
            scores = row(made, name, block)
            assert scores["avg_gap"] == pytest.approx(gaps["avg"], nan_ok=True)
            assert scores["classes"] == gaps["classes"]
        summary = made.systems.set_index("system").loc[name]
        assert summary["max_gap"] == pytest.approx(expected["max_gap"])
        assert summary["worst_cell"] == expected["worst_cell"]


def test_standard_errors_are_those_of_resampled_speakers():
    frame = system(0)
    made = built({"ERM": frame}, resamples=400, seed=3)
    rng = np.random.default_rng(3)
    sums = SpeakerSums.of({"": frame}, labels=LABELS, min_support=1)
    expected = uncertainty.bootstrap(sums, resamples=400, rng=rng)
    assert made.systems["max_gap_se"][0] == pytest.approx(expected["max_gap_se"])
    assert row(made, "ERM", "overall/speech")["acc_se"] == pytest.approx(expected["acc_se"])


def test_folds_are_pooled_and_an_utterance_predicted_twice_is_refused():
    frame = system(0)
    folds = frame.assign(fold=pd.factorize(frame["speaker"])[0] % 4)
    shuffled = folds.sort_values("fold", kind="stable")
    made = built({"ERM": shuffled})
    pd.testing.assert_frame_equal(made.rows, built({"ERM": frame}).rows)
    assert any("4 folds are pooled" in note for note in formats.notes(made))
    with pytest.raises(UserError, match="u00000.*twice.*the fold in which"):
        built({"ERM": pd.concat([folds, folds[:1].assign(fold=9)])})


# Differences --------------------------------------------------------------------------------------


def test_identical_systems_differ_by_exactly_nothing_whatever_the_order_of_their_rows():
    frame = in_both(system(0), system(1))
    made = built({"ERM": frame, "twin": frame.sample(frac=1, random_state=0)}, baseline="ERM")
    deltas = [name for name in made.rows if name.startswith("delta_")]
    overall = made.rows[made.rows["language"] == "overall"]
    assert len(overall) == 4 and (overall[deltas] == 0).all(axis=None)
    assert "0.0 ± 0.0" in formats.to_text(made) and "+0.0" not in formats.to_text(made)


def test_a_paired_difference_is_surer_than_its_two_values():
    frame = system(0)
    other = frame.copy()
    wrong = other.index[other["prediction"] != other["label"]][:20]
    other.loc[wrong, "prediction"] = other.loc[wrong, "label"]
    scores = row(built({"ERM": frame, "better": other}, baseline="ERM"), "better", "overall/speech")
    assert scores["delta_acc"] == pytest.approx(20 / 480)
    assert 0 < scores["delta_acc_se"] < scores["acc_se"] / 1.5


def test_a_system_scored_on_other_utterances_has_no_difference_and_is_never_the_best(made):
    assert np.isnan(row(made, "partial", "overall/speech")["delta_acc"])
    assert any("other utterances than those of ERM" in note for note in formats.notes(made))
    grid = next(grid for grid in formats.grids(made) if grid.title == "overall, speech")
    assert not {place for place in grid.bold if grid.rows[place[0]][0] == "partial"}


# What cannot be known -----------------------------------------------------------------------------


def test_an_undefined_gap_is_a_dash_with_its_reason_and_never_zero(made):
    scores = row(made, "partial", "de/speech")
    assert scores[[name for name in SCORES if name.endswith("_gap")]].isna().all()
    assert np.isfinite(scores["acc"]) and scores["n_male"] == 0
    text = formats.to_text(made)
    assert "– partial in de/speech: only female utterances, so no gap is defined." in text
    empty = row(made, "partial", "en/speech+text")
    assert empty["n"] == 0 and empty[list(SCORES)].isna().all() and not empty["degenerate"]
    assert re.search(r"partial in de/speech\+text, .*: no prediction\.", text)


def test_a_system_of_one_gender_is_written_and_has_no_worst_cell(mixed):
    women = {name: table[table["gender"] == "female"] for name, table in mixed.items()}
    made = built({"women": women["ERM"], "ERM": mixed["ERM"]})
    assert made.systems["worst_cell"].isna().tolist() == [True, False]
    assert [row[2] for row in formats.grids(made)[-1].rows][0] == "–"
    assert "women" in formats.to_latex(made) and "women" in formats.to_text(made)


def test_too_little_support_leaves_two_gaps_and_says_so():
    made = built({"ERM": system(0, n=60)}, min_support=30)
    scores = row(made, "ERM", "de/speech")
    assert np.isnan(scores["tpr_gap"]) and scores["classes"] == 0
    assert scores["avg_gap"] == pytest.approx((scores["w_f1_gap"] + scores["acc_gap"]) / 2)
    assert "no class has 30 utterance(s) of two sides" in formats.to_text(made)


def test_answers_that_are_no_label_are_wrong_and_have_a_column_of_their_own(mixed, made):
    scores = row(made, AWKWARD, "overall/speech")
    part = mixed[AWKWARD][mixed[AWKWARD]["modality"] == "speech"]
    assert scores["unparsable"] == (part["prediction"] == "I am not sure").sum() > 0
    assert scores["acc"] == pytest.approx((part["prediction"] == part["label"]).mean())
    assert "no label" in formats.to_text(made)
    assert "no label" not in formats.to_text(built({"ERM": system(0)}))


def test_a_constant_system_is_marked_and_never_bold(made):
    assert row(made, "constant", "de/speech")["degenerate"]
    assert row(made, "constant", "de/speech")["tpr_gap"] == 0
    for grid in formats.grids(made):
        names = [cells[0] for cells in grid.rows]
        assert "constant" not in names, "the dagger is missing"
        assert not [place for place in grid.bold if names[place[0]] == "constant†"]
    assert made.systems.set_index("system")["degenerate"].to_dict()["constant"]
    assert "a constant predictor has a gap of 0" in formats.to_text(made)


def test_the_best_of_each_column_is_bold_among_several_systems_and_none_when_alone(made):
    grid = formats.grids(built({"a": system(0), "b": system(1, right=0.9)}))[3]
    assert {(1, 1), (1, 2)} <= grid.bold and len({column for _, column in grid.bold}) == 7
    assert all(not grid.bold for grid in formats.grids(built({"ERM": system(0)})))


def test_the_notes_tell_the_split_the_noise_and_synthetic_speech(made):
    text = "\n".join(formats.notes(made))
    assert "Split: dev" in text and "4.3 points" in text and "not human: demo" in text
    assert "no 95 % interval" in text and "4 speaker(s) at the least" in text


@pytest.mark.parametrize(
    ("systems", "options", "message"),
    [
        ({}, {}, "no system"),
        ({"a": system(0)}, {"baseline": "ERM"}, "'ERM' is none of the systems"),
        ({"a": system(0)[:0]}, {}, "of a are empty"),
        ({"a": system(0).drop(columns="speaker")}, {}, "of a lack the column.* speaker"),
        ({"a": system(0, label="calm")}, {}, "'calm'"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(systems, options, message):
    with pytest.raises(UserError, match=message):
        built(systems, **options)


# Formats ------------------------------------------------------------------------------------------


def test_the_csv_holds_every_column_as_fractions_and_reads_back(made):
    read = pd.read_csv(io.StringIO(formats.to_csv(made)))
    assert list(read["system"]) == list(made.rows["system"]) and len(read) == 4 * 8
    for name in made.rows:
        kind = pd.testing.assert_series_equal
        kind(read[name], made.rows[name], check_dtype=False, rtol=1e-12)
    assert {"max_gap", "max_gap_se", "worst_cell"} <= set(read)


def test_latex_is_escaped_and_every_row_has_its_columns(made):
    text = formats.to_latex(made)
    name = r"50\% \& A\_1 \#2 \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}"
    assert name + r"\textbar{}\textless{}b\textgreater{}" in text
    assert r"\toprule" in text and r"\bottomrule" in text and "$-$" in text
    assert not set("±–−†") & set(text), "a sign that needs a package"
    unescaped = re.sub(r"\\[{}]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    inner = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    columns = {len(re.findall(r"(?<!\\)&", line)) for line in inner.splitlines() if "&" in line}
    assert columns == {9, 2, 3}  # blocks, the largest gaps, the differences


def test_html_and_markdown_are_escaped_and_stand_alone(made):
    page = formats.to_html(made)
    assert "<b>" in page and "&lt;b&gt;" in page and "A_1 #2 {x} \\ ~^|&lt;b&gt;" in page
    assert not re.search(r"<script|src=|href=", page) and "prefers-color-scheme" in page
    assert page.count("<div class='scroll'>") == len(formats.grids(made))
    lines = formats.to_markdown(made).splitlines()
    block = [line for line in lines if line.startswith("|")][:6]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1
    assert r"A\_1 \#2 \{x\} \\ \~^\|\<b\>" in block[3] and any("**" in line for line in block)


def test_text_is_aligned_and_four_files_are_written(made, tmp_path):
    lines = formats.to_text(made).splitlines()
    start = lines.index("de, speech") + 1
    assert len({len(line) for line in lines[start : start + 5]}) == 1
    paths = formats.write(made, tmp_path / "new", name="table")
    assert [path.name for path in paths] == ["table.csv", "table.tex", "table.html", "table.md"]
    assert paths[0].read_text(encoding="utf-8") == formats.to_csv(made)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        formats.write(made, tmp_path / "file")
