"""A report of whatever is there: it is written, and says what is missing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, THREE, write

from analysis import report
from ermgap.errors import UserError

EQUAL = [{"acc": 0.6, "max_gap": 0.1, "loss": "erm"}] + [{"acc": 0.6, "max_gap": 0.1}] * 3


def page_of(records, tmp_path) -> str:
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    json.loads((folder / "report.json").read_text())
    return (folder / "report.html").read_text()


def change_predictions(records, change) -> None:
    for path in (records.storage / "predictions").glob("t*.parquet"):
        change(pd.read_parquet(path)).to_parquet(path)


def test_a_language_without_one_gender_has_no_gap(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    change_predictions(records, lambda t: t[~((t["language"] == "de") & (t["gender"] == "male"))])
    page = page_of(records, tmp_path)
    data = json.loads(page.split("id='explorer-data'>")[1].split("</script>")[0])
    cells = data["details"]["t0000"]["cells"]
    assert sum(map(sum, data["details"]["t0000"]["n"][cells.index("de/speech")][1:])) == 0
    signed = json.loads((tmp_path / "plots/sweep/report.json").read_text())["signed_gaps"]["t0000"]
    assert {one["cell"] for one in signed} == {"en/speech", "ja/speech"}


def test_all_equal(tmp_path):
    page = page_of(write(tmp_path / "sweep", EQUAL), tmp_path)
    assert "There is no knee" in page


def test_one_trial(tmp_path):
    page = page_of(write(tmp_path / "sweep", THREE[:1]), tmp_path)
    assert "1 of 1 configurations ran to their end and 1 of them are on the front" in page
    assert "There is no knee" in page


def test_none_finished(tmp_path):
    running = [{"acc": 0.3, "max_gap": 0.2, "status": "running"}]
    page = page_of(write(tmp_path / "sweep", running, planned=4, done=False), tmp_path)
    assert "0 of 4 configurations ran to their end and none is usable yet" in page
    assert "Unfinished sweep" in page and "The front is empty" in page


def test_all_dominated_by_one(tmp_path):
    best = [{"acc": 0.7, "max_gap": 0.01, "loss": "erm"}]
    worse = [{"acc": 0.5 + i / 100, "max_gap": 0.2} for i in range(4)]
    page = page_of(write(tmp_path / "sweep", best + worse), tmp_path)
    assert "5 of 5 configurations ran to their end and 1 of them are on the front" in page


@pytest.mark.parametrize("what", ["prediction", "logp"])
def test_predictions_that_are_not_numbers_or_words(tmp_path, what):
    records = write(tmp_path / "sweep", THREE)

    def spoil(table):
        if what == "prediction":
            return table.assign(prediction=table["prediction"].where(table.index % 3 > 0))
        return table.assign(**{f"logp_{label}": np.nan for label in LABELS})

    change_predictions(records, spoil)
    assert "t0000" in page_of(records, tmp_path)


def test_an_unknown_true_label_costs_its_details_alone(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    path = records.storage / "predictions" / "t0001.parquet"
    table = pd.read_parquet(path)
    table.loc[3, "label"] = "boredom"
    table.to_parquet(path)
    assert "boredom" in page_of(records, tmp_path)
    told = json.loads((records.directory / "summary.json").read_text())["evidence"]
    assert "boredom" in told["missing"]["t0001"] and "t0000" in told["points"]


def test_a_record_cut_short_is_said(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    with open(records.directory / "trials.jsonl", "a") as file:
        file.write('{"trial_id": "t00')
    assert "half-written line of trials.jsonl was omitted" in page_of(records, tmp_path)


@pytest.mark.parametrize("name", ["table.parquet", "predictions"])
def test_missing_files(tmp_path, name):
    records = write(tmp_path / "sweep", THREE)
    target = records.directory / name
    if target.is_dir():
        for path in target.glob("*"):
            path.unlink()
    else:
        target.unlink()
    page = page_of(records, tmp_path)
    assert ("No bar for" in page) == (name == "predictions")


def test_no_description_at_all(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    (records.directory / "sweep.yaml").unlink()
    with pytest.raises(UserError, match="no sweep.yaml"):
        report.write(records.directory, tmp_path / "plots")
