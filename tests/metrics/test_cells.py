"""Which cells count for the largest gap: one rule in training, report and benchmark."""

from __future__ import annotations

import json

import fake_sweep
import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, utterances, write

from analysis import report
from analysis.front import front
from analysis.page import explorer, sentences
from analysis.statistics import SpeakerSums, evidence, null_band, uncertainty
from analysis.statistics.speaker_sums import largest_gap
from analysis.tables import benchmark_table, grids
from ermgap import metrics
from ermgap.config import Config
from ermgap.errors import UserError
from ermgap.records import Records
from sweeps.setup import cells

PRIOR = (0.11, 0.03, 0.03, 0.17, 0.47, 0.07, 0.12)  # of the labels in MELD
TRIALS = [{"acc": 0.5 + i / 50, "max_gap": 0.1 + i / 40, "loss": "erm" if not i else "minmaxgap"}
          for i in range(5)]  # fmt: skip


def like_meld(seed: int = 0, *, women: int = 80) -> pd.DataFrame:
    """Dev with rare emotions, and with so many utterances of Japanese women."""
    table = utterances(n=480, seed=seed)
    rng = np.random.default_rng(seed)
    table["label"] = rng.choice(LABELS, len(table), p=PRIOR)
    few = (table["language"] == "ja") & (table["gender"] == "female")
    return table[~few | (few.cumsum() <= women)].reset_index(drop=True)


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """`swept(table)` is a sweep whose dev is this table; its rows are what training writes."""

    def made(table: pd.DataFrame) -> Records:
        monkeypatch.setattr(fake_sweep, "utterances", lambda: table)
        return write(tmp_path / "sweep", TRIALS)

    return made


def drilled(records: Records) -> tuple[front.FrontInfo, dict]:
    info = front.info(records)
    bars = uncertainty.standard_errors(records, [p.trial_id for p in info.highlighted])
    found = evidence.collect(info, records)
    for name, backing in found.items():  # the evidence is of the recorded cell, too
        assert backing.cell == info.find(name).worst_cell
    return info, explorer.data(info, records, bars, found)["details"]


@pytest.mark.parametrize("seed", range(6))
def test_the_utterances_behind_a_gap_are_of_the_cell_that_the_trial_was_judged_by(swept, seed):
    table = like_meld(seed)
    info, details = drilled(swept(table))
    language = table.set_index("utterance_id")["language"]
    for name, denominators in details.items():
        worst = info.find(name).worst_cell
        assert denominators["cell"] == worst
        shown = {f"{language[one['utterance_id']]}/speech" for one in denominators["utterances"]}
        assert shown == {worst}


def test_a_cell_of_two_utterances_of_a_gender_is_left_out_everywhere_and_named(swept):
    table = like_meld(women=2)
    records = swept(table)
    info, details = drilled(records)
    assert info.cells == 3
    assert list(info.uncounted) == ["ja/speech"] and "2 female and 80 male" in info.uncounted[
        "ja/speech"]  # fmt: skip
    assert all(p.worst_cell != "ja/speech" for p in info.points)
    predicted = pd.read_parquet(records.storage / "predictions" / "t0001.parquet")
    told = metrics.evaluate(predicted, labels=LABELS)
    sums = SpeakerSums.of({"m": predicted}, labels=LABELS)
    assert sums.counted.tolist() == [True, True, False]
    assert largest_gap(sums.observed("m")) == pytest.approx(told["max_gap"])
    without = predicted[predicted["language"] != "ja"]
    other = SpeakerSums.of({"m": without}, labels=LABELS)
    assert null_band.fair(sums, "m", worlds=300).high == pytest.approx(
        null_band.fair(other, "m", worlds=300).high, rel=0.25
    )
    told = " ".join(sentences.caveats(info, uncertainty.standard_errors(records, ["t0001"])))
    assert "over 2 of 3 cells, without ja/speech (2 female and 80 male utterances" in told
    assert "10 utterances of two sides (data.cell_support)" in told
    gaps = evidence.signed_gaps(info, records)[
        "t0000"
    ]  # each cell's own gaps are listed all the same
    assert {one["cell"] for one in gaps} == {"de/speech", "en/speech", "ja/speech"}
    report.write(records.directory, records.directory / "plots", quiet=True)
    summary = json.loads((records.directory / "summary.json").read_text())
    assert summary["cells"] == 3 and list(summary["cells_left_out_of_max_gap"]) == ["ja/speech"]


def test_a_sweep_from_before_the_rule_is_read_as_recorded_and_its_small_cell_is_named(tmp_path):
    table = like_meld(women=2)
    new = write(tmp_path / "new", TRIALS[:1], with_predictions=False)
    records = Records.create(tmp_path / "old", sweep=new.sweep, table=new.table())
    found = fake_sweep.predictions(table, right=0.6, handicap=0.0, seed=0)
    dev = metrics.evaluate(found, labels=LABELS, cell_support=1)
    dev = {key: value for key, value in dev.items() if not key.startswith("cells")}
    dev["worst_cell"] = "ja/speech"
    for gap in dev["gaps"].values():
        gap.pop("counts", None)
    (records.storage / "predictions").mkdir(exist_ok=True)
    found.to_parquet(records.storage / "predictions" / "t0000.parquet", index=False)
    row = new.rows()[0] | {"dev": dev}
    records.append(row)
    info = front.info(records)
    details = explorer.data(info, records, uncertainty.standard_errors(records, []), {})["details"]
    assert details["t0000"]["cell"] == info.points[0].worst_cell == "ja/speech"
    told = " ".join(sentences.caveats(info, uncertainty.standard_errors(records, ["t0000"])))
    assert "recorded largest gap of t0000 is of such a cell" in told


def test_the_benchmark_leaves_the_same_cells_out_and_says_so():
    table = like_meld(women=2)
    systems = {name: fake_sweep.predictions(table, right=0.6, handicap=0.1, seed=seed)
               for seed, name in enumerate(("ERM", "ours"))}  # fmt: skip
    made = benchmark_table.table(systems, labels=LABELS, min_support=5, resamples=20)
    for one in made.systems.itertuples():
        told = metrics.evaluate(systems[one.system], labels=LABELS)
        assert (one.max_gap, one.worst_cell) == (told["max_gap"], told["worst_cell"])
        assert (one.n, one.cells) == (told["cells_counted"], told["cells"]) == (2, 3)
    notes = " ".join(grids.notes(made))
    assert "The max gap is without ja/speech (2 female and 80 male utterances)" in notes
    full = benchmark_table.table(
        {"ERM": fake_sweep.predictions(like_meld(), right=0.6, handicap=0.1, seed=0)},
        labels=LABELS, resamples=20,
    )  # fmt: skip
    assert "max gap is without" not in " ".join(grids.notes(full))


def test_a_dev_in_which_no_cell_would_count_is_refused_before_anything_trains():
    def asked(women: int, **data) -> None:
        config = Config().replace({f"data.{key}": value for key, value in data.items()})
        cells.require_a_cell(config, like_meld(women=women).query("language == 'ja'"))

    asked(10)
    asked(2, cell_support=2)
    asked(2, min_support=1)
    with pytest.raises(UserError, match=r"no language has 10 .*ja 9 female and 80 male") as problem:
        asked(9)
    assert "--set data.cell_support=N" in str(problem.value)
