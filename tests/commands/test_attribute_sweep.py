"""A whole sweep over a crossed attribute of a manifest, with three sides and with four."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from real_sweep import RealSweep

from ermgap.corpora.demo import FOLDER
from ermgap.metrics import side_counts
from ermgap.records import Records

SIDES = {
    3: ["female & north", "female & south", "male & north"],
    4: ["female & north", "female & south", "male & north", "male & south"],
}


def write_manifest(folder: Path, sides: int) -> None:
    """48 clips of German and English, train and dev, as many of each side."""
    table = pd.read_csv(FOLDER / "manifest.csv", keep_default_na=False)
    table = table[table["language"] != "ja"]
    voice = table.groupby(["split", "gender"])["speaker"].rank("dense").astype(int)
    south = (voice % 2 == 0) & ((sides == 4) | (table["gender"] == "female"))
    table = table.assign(**{"group:accent": south.map({True: "south", False: "north"})})
    keys = ["split", "language", "gender", "group:accent"]
    table = table[table.groupby(keys).cumcount() < 6]
    for path in table["path"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FOLDER / path, folder / path)
    columns = ["path", "language", "gender", "emotion", "speaker", "split", "transcript"]
    table[[*columns, "group:accent"]].to_csv(folder / "manifest.csv", index=False)


@pytest.mark.parametrize("sides", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_sweep_over_a_crossed_attribute_runs_from_a_manifest_to_its_report(tmp_path, sides):
    write_manifest(tmp_path, sides)
    settings = ["objective.attribute=[gender,accent]", "data.min_support=1", "data.cell_support=3"]
    options = [part for setting in settings for part in ("--set", setting)]
    with RealSweep(
        tmp_path, "pareto.py", "--smoke-test", "--trials", "4", "--data",
        f"people={tmp_path / 'manifest.csv'}", "--out", "out", *options,
    ) as sweep:  # fmt: skip
        assert sweep.ends() == 0, sweep.said
    assert "Traceback" not in sweep.said
    for trial in Records.open(sweep.out).trials():
        for row in filter(lambda row: "dev" in row, trial.rows):
            cells = {cell: gap for cell, gap in row["dev"]["gaps"].items() if "counts" in gap}
            assert set(cells) == {"de/speech", "en/speech"}
            assert all(list(side_counts(gap)) == SIDES[sides] for gap in cells.values())
            assert {name.split("/", 2)[2] for name in row["losses"]} == set(SIDES[sides])
    page = (tmp_path / "analysis" / "plots" / "out" / "report.html").read_text()
    assert "gender &amp; accent" in page and not re.search(r"\b(wo)?men\b", page)
