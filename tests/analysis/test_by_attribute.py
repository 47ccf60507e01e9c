"""Gaps by every attribute: their values, warnings only where they are true, and their names."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from fake_sweep import LABELS, THREE, many, predictions, utterances, write
from sklearn.metrics import accuracy_score

from analysis import report
from analysis.front import front
from analysis.statistics.uncertainty import classes_of, dev_predictions
from analysis.tables import by_attribute
from ermgap import metrics

ACCENTS = ("north", "south", "west")
FAR = {"north": 0.0, "south": 0.25, "west": 0.45}


def swept(tmp_path, *, attribute=("gender",), accents=ACCENTS, trials=THREE, **sweep):
    records = write(tmp_path / "sweep", trials, accents=accents, attribute=attribute, **sweep)
    return records, front.info(records)


def measured(records, info) -> pd.DataFrame | None:
    names = dict.fromkeys([info.erm.trial_id, *(p.trial_id for p in info.front)])
    tables = {name: dev_predictions(records, name) for name in names}
    return by_attribute.table(info, tables, **classes_of(records))


@pytest.mark.parametrize("seed", range(3))
def test_gaps_are_those_of_evaluate_and_of_fairlearn(tmp_path, seed):
    records, info = swept(tmp_path)
    rng = np.random.default_rng(seed)
    for path in (records.storage / "predictions").glob("*.parquet"):
        table = pd.read_parquet(path)
        table.loc[np.random.default_rng(seed).random(len(table)) < 0.1, "accent"] = ""
        table["prediction"] = table["prediction"].where(rng.random(len(table)) < 0.8, "joy")
        table.to_parquet(path)
    rows = measured(records, info)
    assert list(rows["attribute"].unique()) == ["gender", "accent"]
    for row in rows.itertuples():
        table = dev_predictions(records, row.trial_id)
        whole = metrics.evaluate(table, labels=LABELS, attribute=(row.attribute,))
        assert row.max_gap == pytest.approx(whole["max_gap"]) and row.at_most > row.max_gap
        assert row.worst_cell == whole["worst_cell"]
        part = table[table["language"] == row.worst_cell.split("/")[0]]
        part = part[part[row.attribute] != ""]
        said = {"y_true": part["label"], "y_pred": part["prediction"]}
        said |= {"sensitive_features": part[row.attribute]}
        frame = MetricFrame(metrics=accuracy_score, **said)
        assert row.highest_acc - row.lowest_acc == pytest.approx(
            frame.difference(method="between_groups")
        )
        assert frame.by_group[row.lowest] == row.lowest_acc == frame.by_group.min()
    unknown = (dev_predictions(records, info.erm.trial_id)["accent"] == "").sum()
    assert f"{unknown} utterances are of unknown accent" in rows["note"].iloc[-1]


def test_gender_alone_has_no_table_and_no_sentence(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    assert measured(records, front.info(records)) is None
    assert "Gaps by every attribute" not in (folder / "report.html").read_text()
    assert not (folder / "attributes.csv").exists()
    assert "attributes" not in json.loads((records.directory / "summary.json").read_text())


def unfair(table: pd.DataFrame, *, accent: float, gender: float, seed: int = 1) -> pd.DataFrame:
    """Predictions with planted gaps: `accent` times FAR, and `gender` for female speakers."""
    rng = np.random.default_rng(seed)
    chance = 0.85 - accent * table["accent"].map(FAR) - gender * (table["gender"] == "female")
    wrong = [LABELS[(LABELS.index(label) + 1) % len(LABELS)] for label in table["label"]]
    return table.assign(prediction=np.where(rng.random(len(table)) < chance, table["label"], wrong))


@pytest.mark.parametrize(("accent", "said"), [(1.6, "surely larger"), (0.0, None)])
def test_a_point_that_only_moved_the_gap_is_warned_of(tmp_path, accent, said):
    records, info = swept(tmp_path)
    table = utterances(n=4800, speakers=24, accents=ACCENTS)
    for point in info.points:
        fair = point is not info.erm
        made = unfair(table, accent=accent * fair, gender=0.0 if fair else 0.4)
        made.to_parquet(records.storage / "predictions" / f"{point.trial_id}.parquet")
    rows = measured(records, info)
    erm = rows[(rows["attribute"] == "accent") & (rows["trial_id"] == info.erm.trial_id)]
    lines = by_attribute.warnings(info, rows)
    if said is None:  # as small a gap by accent as ERM's, but for chance
        assert all("surely" not in line for line in lines)
        return
    assert (
        len(lines) == len([p for p in info.front if p is not info.erm])
        and erm["max_gap"].lt(0.2).all()
    )
    assert all(
        "lowered ERM's gap by gender" in line and f"accent is {said}" in line for line in lines
    )


@pytest.mark.parametrize("seed", range(4))
def test_warnings_are_said_exactly_where_one_gap_fell_and_another_rose(tmp_path, seed):
    records, info = swept(tmp_path, trials=many(seed, 8))
    rows = measured(records, info)
    gaps = rows.pivot(index="trial_id", columns="attribute", values="max_gap")
    less = gaps - gaps.loc[info.erm.trial_id]
    wanted = [p.trial_id for p in info.front if less.loc[p.trial_id, "gender"] < 0
              and less.loc[p.trial_id, "accent"] > 0]  # fmt: skip
    lines = by_attribute.warnings(info, rows)
    assert [line.split()[0] for line in lines] == wanted
    assert len(by_attribute.summary(info, rows)) == bool(wanted)
    surely = rows[(rows["attribute"] == "accent")].set_index("trial_id")["change_low"] > 0
    assert [("surely" in line) for line in lines] == [surely[name] for name in wanted]


def test_sides_that_are_not_estimable_are_named_with_counts(tmp_path):
    records, info = swept(tmp_path, accents=("north", "south"))
    for path in (records.storage / "predictions").glob("*.parquet"):
        table = pd.read_parquet(path)
        few = table.index[(table["language"] == "ja") & (table["accent"] == "south")]
        table.loc[few[3:], "accent"] = "north"
        table.loc[table["language"] == "en", "accent"] = "north"
        table.to_parquet(path)
    rows = measured(records, info)
    note = rows[rows["attribute"] == "accent"]["note"].iloc[0]
    assert "Not estimable: south in ja/speech (3 utterances, " in note
    assert "no gap where a side is alone: north in en/speech." in note
    assert set(rows[rows["attribute"] == "accent"]["worst_cell"]) == {"de/speech"}


def test_an_attribute_of_one_value_has_its_sentence_and_no_gap(tmp_path):
    records, info = swept(tmp_path, accents=("north",))
    rows = measured(records, info)
    mine = rows[rows["attribute"] == "accent"]
    assert mine["max_gap"].isna().all() and "No cell has two sides" in mine["note"].iloc[0]
    assert "No cell has two sides" in by_attribute.html(info, rows)


def test_many_sides_have_gaps_without_bounds(tmp_path):
    records, info = swept(tmp_path)
    accents = [f"a{k:02d}" for k in range(10)]
    table = utterances(n=4800, speakers=20, accents=accents)
    for point in info.points:
        made = predictions(table, right=0.6, handicap=0.1, seed=3)
        made.to_parquet(records.storage / "predictions" / f"{point.trial_id}.parquet")
    mine = measured(records, info).query("attribute == 'accent'")
    assert mine["max_gap"].notna().all() and mine["at_most"].isna().all()
    assert mine["change"].dropna().eq(0).all()


def test_provenance_is_repeated_with_the_gaps_and_the_data(tmp_path):
    sources = {"gender": "self-reported", "accent": "annotated (a), inferred (b)"}
    records, info = swept(tmp_path, attribute=("gender", "accent"), provenance=sources)
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    page = (folder / "report.html").read_text()
    crossed = "gender self-reported; accent annotated (a), inferred (b)"
    assert f"Provenance of gender &amp; accent: {crossed}." in page
    for part in (crossed, "self-reported", "annotated (a), inferred (b)"):
        assert f"<span class='soft'>provenance: {part}</span>" in page
    table = pd.read_csv(folder / "attributes.csv")
    assert set(table["attribute"]) == {"gender & accent", "gender", "accent"}
    summary = json.loads((records.directory / "summary.json").read_text())
    assert len(summary["attributes"]) == len(table)
    older, _ = swept(tmp_path / "older")
    folder = report.write(older.directory, tmp_path / "plots2", quiet=True)
    assert "Provenance of gender: not stated." in (folder / "report.html").read_text()
