"""The change of the gap in a cell that was named before the sweep, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_sweep import LABELS, balanced, predictions, utterances, write

from analysis import report
from analysis.front import choose, front
from analysis.statistics import SpeakerSums, evidence, paired
from analysis.tables import tables
from ermgap import metrics

CELL = "de/speech"
TRIALS = [
    {"acc": 0.62, "max_gap": 0.24, "loss": "erm"},
    {"acc": 0.60, "max_gap": 0.08},
    {"acc": 0.55, "max_gap": 0.05},
]


def changed(erm: dict, other: dict, *, speakers: int, seed: int) -> paired.PairedDifference:
    """The change of the German gap from one model to another, both drawn with `predictions`."""
    table = balanced(speakers, each=20).query("language == 'de'")
    tables = {name: predictions(table, **model, seed=2 * seed + number)
              for number, (name, model) in enumerate((("erm", erm), ("other", other)))}  # fmt: skip
    sums = SpeakerSums.of(tables, labels=LABELS, cell=CELL)
    weights = sums.draws(200, np.random.default_rng(seed))
    return paired.paired_differences(sums, "other", "erm", weights)["cell_gap"]


FAIR, NOISY, UNFAIR = ({"right": right, "handicap": handicap}
                       for right, handicap in ((0.6, 0.0), (0.3, 0.0), (0.6, 0.2)))  # fmt: skip


@pytest.mark.parametrize("speakers", [6, 12])
@pytest.mark.parametrize(
    ("erm", "other"), [(FAIR, FAIR), (UNFAIR, UNFAIR), (FAIR, UNFAIR), (NOISY, FAIR)]
)
def test_a_gap_that_did_not_fall_is_seldom_surely_lower(erm, other, speakers):
    """40 pairs, of which 5 % are 2: more than 6 have a probability of 0.3 %."""
    changes = [changed(erm, other, speakers=speakers, seed=seed) for seed in range(40)]
    assert sum(change.high < 0 for change in changes) <= 6


def test_a_large_fall_is_seen():
    large = {"right": 0.6, "handicap": 0.4}
    changes = [changed(large, FAIR, speakers=12, seed=seed) for seed in range(20)]
    assert np.mean([change.high < 0 for change in changes]) >= 0.7
    assert np.mean([change.value for change in changes]) < -0.1


def test_the_gap_is_that_of_the_cell_and_the_noisier_of_two_has_the_further_end():
    table = balanced(6)
    made = {
        name: predictions(table, **model, seed=3) for name, model in (("a", NOISY), ("b", UNFAIR))
    }
    sums = SpeakerSums.of(made, labels=LABELS, cell=CELL)
    weights = sums.draws(200, np.random.default_rng(0))
    a, b = (paired.scores(sums, name, weights) for name in "ab")
    gaps = metrics.evaluate(made["b"], labels=LABELS)["gaps"]
    assert b.whole["cell_gap"] == pytest.approx(gaps[CELL]["avg"])
    change, back = (paired.difference(sums, *two)["cell_gap"] for two in ((a, b), (b, a)))
    assert back.value == -change.value and back.low == pytest.approx(-change.high)
    more = change.high - change.value - (change.value - change.low)
    assert abs(more) == pytest.approx(abs(a.noise - b.noise))
    assert np.sign(more) == np.sign(b.noise - a.noise)
    half = paired.mixture([0.5, 0.5], [a, b])
    assert half.noise == pytest.approx((a.noise + b.noise) / 2)
    plain = SpeakerSums.of(made, labels=LABELS)
    assert set(paired.paired_differences(plain, "a", "b", weights)) == {"acc", "w_f1", "max_gap"}
    small = SpeakerSums.of(made, labels=LABELS, cell=CELL, cell_support=10_000)
    assert small.named is None  # it does not count


@pytest.fixture
def named(tmp_path):
    """A sweep that is about the German cell, where the others have no gap."""
    config = {"data": {"min_support": 5}, "train": {"select": "w_f1"}, "sweep": {"cell": CELL}}
    records = write(tmp_path / "sweep", TRIALS, config=config)
    table = utterances(n=1800, speakers=6, seed=1)
    for i, (right, handicap) in enumerate(((0.7, 0.5), (0.68, 0.0), (0.6, 0.0))):
        made = predictions(table, right=right, handicap=handicap, seed=5 + i)
        made.to_parquet(records.storage / "predictions" / f"t{i:04d}.parquet")
    return records


def test_the_report_says_which_point_lowered_it_and_what_else_that_changed(named, tmp_path):
    info = front.info(named)
    known = evidence.collect(info, named)
    change = known["t0001"].in_cell
    assert info.cell == CELL and change.high < 0 and known["t0000"].in_cell is None
    said = evidence.sentence(info, known)
    start = f"In {CELL}, the cell named before the sweep, 2 of 2 points surely lowered ERM's gap of"
    assert said.startswith(start) and "on the same 12 speakers" in said
    assert f"The most accurate of them, t0001, changed it by {change.text()} points" in said
    assert "worst group's W-F1 from 62.0 to 60.0 %" in said and "The largest gap over cells" in said
    choice = choose.rules(info)["surely fairer than ERM"](info, known)
    assert choice.trial_id == "t0001" and f"a gap in {CELL} that is surely below" in choice.sentence
    shown = tables.display(info, report.ReportContent(named, with_text=False).bars, known)
    assert shown[f"{CELL} against ERM"].str.startswith("-").all()
    page = report.write(named.directory, tmp_path / "plots", quiet=True) / "report.html"
    assert f"{CELL} against ERM" in page.read_text(encoding="utf-8")
    summary = json.loads((named.directory / "summary.json").read_text())["evidence"]
    assert summary["points"]["t0001"]["change"]["cell_gap"]["high"] == pytest.approx(change.high)
    assert summary["erm_cell_gap"] > 0.2


def test_where_nothing_surely_fell_the_largest_fall_is_named(named, monkeypatch):
    info = front.info(named)
    known = evidence.collect(info, named)
    weak = paired.PairedDifference(-0.03, 0.04, -0.1, 0.05, 0.7)
    monkeypatch.setattr(evidence.PointEvidence, "in_cell", property(lambda self: weak))
    said = evidence.sentence(info, known)
    assert "none of 3 points surely lowered ERM's gap" in said
    assert "the largest fall is −3.0 [−10.0, +5.0] points" in said
    rising = paired.PairedDifference(0.03, 0.04, -0.05, 0.1, 0.2)
    monkeypatch.setattr(evidence.PointEvidence, "in_cell", property(lambda self: rising))
    assert "none of them measured a smaller one" in evidence.sentence(info, known)
