"""The interactive report: its data, and a reader who hovers, filters, clicks and types."""

from __future__ import annotations

import functools
import json
import os
import re

import browser
import pandas as pd
import pytest
from fake_sweep import DEGENERATE, LABELS, RUNNING, many, predictions, utterances, write

from analysis import report
from analysis.front import front, importance
from analysis.page import explorer
from analysis.statistics import evidence, uncertainty
from ermgap import metrics
from ermgap.records import Records

needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
HOSTILE = {"config": {"note": "</script><script>throw new Error('broken out')</script>"}}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep's records and the folder of its report."""
    folder = tmp_path_factory.mktemp("explorer")
    trials = many(0) + DEGENERATE + RUNNING
    trials[3] |= HOSTILE
    records = write(folder / "sweep", trials)
    table = utterances()
    for i in range(len(trials)):
        path = records.storage / "predictions" / f"t{i:04d}.parquet"
        if path.exists():
            made = predictions(table, right=0.6, handicap=0.1, seed=i)
            for label in LABELS:
                made[f"logp_{label}"] = -2.0 + (made["prediction"] == label)
            made.to_parquet(path)
    return records, report.write(records.directory, folder / "plots", quiet=True)


def told(records, **options) -> dict:
    info = front.info(records)
    bars = uncertainty.standard_errors(records, [p.trial_id for p in info.highlighted])
    return explorer.data(info, records, bars, evidence.collect(info, records), **options)


def test_the_data_are_those_of_the_records(sweep):
    records, _ = sweep
    found, info = told(records), front.info(records)
    assert [one["id"] for one in found["points"]] == [p.trial_id for p in info.points]
    assert {one["id"] for one in found["points"] if one["front"]} == {
        p.trial_id for p in info.front
    }
    table = pd.read_parquet(records.storage / "predictions" / "t0001.parquet")
    behind = found["details"]["t0001"]
    part = table[
        (table["language"] == "de") & (table["gender"] == "male") & (table["label"] == "joy")
    ]
    cell, joy = behind["cells"].index("de/speech"), LABELS.index("joy")
    assert behind["n"][cell][1][joy] == len(part)
    assert behind["hits"][cell][1][joy] == (part["label"] == part["prediction"]).sum()
    assert sum(map(sum, behind["confusions"][0])) == (table["gender"] == "female").sum()
    assert (
        sum(n for *_, n in behind["calibration"][0]["bins"]) == (table["gender"] == "female").sum()
    )
    worst = metrics.evaluate(table, labels=LABELS, min_support=1)["worst_cell"].split("/")[0]
    names = table.set_index("utterance_id")["language"]
    assert {names[one["utterance_id"]] for one in behind["utterances"]} == {worst}
    assert all(one["label"] != one["prediction"] for one in behind["utterances"])


def test_transcripts_are_in_the_page_only_when_asked_for(sweep, monkeypatch):
    records, folder = sweep
    table = utterances().assign(transcript="a secret sentence")
    monkeypatch.setattr(type(records), "table", lambda self: table)
    assert "a secret sentence" not in json.dumps(told(records)["details"])
    assert "a secret sentence" in json.dumps(told(records, with_text=True)["details"])


def test_a_value_cannot_end_the_script(sweep):
    _, folder = sweep
    page = (folder / "report.html").read_text()
    block = re.search(r"id='explorer-data'>(.*?)</script>", page, flags=re.DOTALL).group(1)
    notes = [one["config"].get("note") for one in json.loads(block)["points"]]
    assert HOSTILE["config"]["note"] in notes


def test_missing_predictions_are_said(tmp_path):
    records = write(tmp_path / "sweep", many(1, 10))
    (records.storage / "predictions" / "t0001.parquet").write_bytes(b"junk")
    assert "absent or unreadable" in told(records)["details"]["t0001"]["why"]


def test_importance_finds_what_matters_and_not_what_does_not(tmp_path):
    trials = [{"acc": 0.3 + 0.01 * i, "max_gap": 0.1 + 0.05 * (i % 7 == 0), "config": {
        "lr": 1e-4 * 1.1**i, "loss": "minmaxgap", "noise": (i * 7919 % 31) / 31}}
        for i in range(30)]  # fmt: skip
    info = front.info(write(tmp_path / "sweep", trials, with_predictions=False))
    found = {(one.objective, one.name): one for one in importance.importance(info)}
    assert found["acc", "lr"].share == pytest.approx(1.0)
    assert found["acc", "lr"].share > found["acc", "lr"].noise
    assert found["acc", "noise"].share < found["acc", "noise"].noise
    assert ("acc", "loss") not in found  # it never differs
    assert importance.importance(front.info(write(tmp_path / "few", many(0, 4)))) == []


# What is wider than the window, or than the element around it; many sides are scrolled to.
TOO_WIDE = """[
  ...[document.documentElement].filter(e => e.scrollWidth > innerWidth),
  ...[...document.querySelectorAll("table, img")]
    .filter(e => !e.closest("#detail details .wide"))
    .filter(e => e.scrollWidth > e.parentElement.clientWidth),
].map(e => `${e.tagName} ${e.scrollWidth} ${e.innerText.slice(0, 40)}`)"""


async def _walk(page, hovered: str):
    await page.until("document.getElementById('explorer').dataset.ready === 'yes'")
    marks = "document.querySelectorAll('#picture .mark').length"
    every, seen = await page.ask(marks), {}
    await page.mouse(f"#picture .mark[data-id='{hovered}']", click=False)
    seen["tip"] = await page.ask("document.querySelector('#explorer .tip')?.textContent")
    await page.mouse(f"#picture .mark[data-id='{hovered}']", click=True)
    seen["detail"] = await page.ask("document.getElementById('detail').innerText")
    await page.ask("document.querySelector('#front-only').click()")
    seen["front only"] = await page.ask(marks)
    await page.ask("document.querySelector('#front-only').click()")
    await page.ask("document.querySelector('#loss-erm').click()")
    seen["without erm"] = await page.ask(marks)
    await page.ask("document.querySelector('#loss-erm').click()")
    seen["all again"] = await page.ask(marks) == every
    choose = (
        "(s => {{ s.value = [...s.options].find(o => o.text === {!r}).value; "
        "s.dispatchEvent(new Event('change')) }})(document.querySelector('{}'))"
    )
    await page.ask(choose.format("fairest", "#rule"))
    seen["said"] = await page.ask("document.getElementById('said').textContent")
    seen["chosen"] = await page.ask("document.querySelector('#picture .chosen').dataset.id")
    await page.ask(choose.format("Weighted F1", "#pick-x"))
    seen["axis"] = await page.ask("document.querySelector('#picture').textContent")
    await page.ask(choose.format("Largest gap by gender", "#pick-x"))
    await page.ask("document.querySelector('#more summary').click()")
    await page.until("document.querySelectorAll('#parallel path').length > 5")
    seen["importance"] = await page.ask("document.getElementById('importance').textContent")
    await page.ask("document.querySelector('#picture [tabindex]').focus()")
    await page.key("Tab", 9)
    seen["focused"] = await page.ask("document.activeElement.dataset.id")
    await page.key("Enter", 13)
    seen["by key"] = await page.ask("document.querySelector('#detail h3').textContent")
    await page.ask("document.querySelector('table.front [data-trial]').click()")
    seen["by table"] = await page.ask("document.querySelector('#detail h3').textContent")
    await page.ask("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    seen["too wide"] = await page.ask(TOO_WIDE)
    seen["errors"] = page.errors
    seen["every"] = every
    return seen


def _goes_through(records, folder, *, hovered: str, width: int) -> dict:
    """Walk through a report and look whether it did what a reader would expect."""
    info = front.info(records)
    seen = browser.visit(
        functools.partial(_walk, hovered=hovered), folder / "report.html", width=width, height=900,
        dark=width < 600,
    )  # fmt: skip
    assert seen["errors"] == [] and seen["too wide"] == []
    assert seen["by table"].startswith(info.highlighted[0].trial_id)
    lr = f"{info.find(hovered).hyperparameters['lr']:.3g}"
    assert seen["tip"].startswith(hovered) and f"lr = {lr}" in seen["tip"]
    for part in (hovered, "Configuration", "Recall by emotion", "Confusions", "Calibration",
                 "A fair model of this accuracy", "Utterances behind the gap"):  # fmt: skip
        assert part in seen["detail"], part
    assert seen["every"] == sum(p.values["acc"] == p.values["acc"] for p in info.points)
    assert seen["front only"] < seen["every"] and seen["all again"]
    assert seen["without erm"] == seen["every"] - sum(p.is_erm for p in info.points)
    fairest = min(info.front, key=lambda p: p.values["max_gap"]).trial_id
    assert seen["said"].startswith("The fairest is") and seen["chosen"] == fairest
    assert "Weighted F1" in seen["axis"]
    assert seen["by key"].startswith(seen["focused"])
    return seen


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_goes_through_the_report(sweep, width):
    seen = _goes_through(*sweep, hovered="t0026", width=width)
    assert "What goes with accuracy" in seen["importance"]


ACCENTS = {
    "three": {"accents": ("north", "south", "west"), "attribute": ("accent",)},
    "four": {"accents": ("highland", "lowland", "northern", "southern"), "attribute": ("accent",)},
    "crossed": {"accents": ("north", "south"), "attribute": ("gender", "accent")},
}


@pytest.fixture(scope="module", params=ACCENTS)
def by_accent(tmp_path_factory, request):
    """The records of a sweep about another attribute, and the folder of its report."""
    folder = tmp_path_factory.mktemp(request.param)
    records = write(folder / "sweep", many(0, 10) + DEGENERATE, **ACCENTS[request.param])
    for path in (records.storage / "predictions").glob("*.parquet"):
        table = pd.read_parquet(path)
        scores = {f"logp_{label}": -2.0 + (table["prediction"] == label) for label in LABELS}
        table.assign(**scores).to_parquet(path)
    return records, report.write(records.directory, folder / "plots", quiet=True)


def test_no_text_names_another_attribute_than_the_sweep_s(by_accent):
    records, folder = by_accent
    title = front.info(records).attribute.title
    page = (folder / "report.html").read_text()
    assert f"Largest gap by {title}" in page and not re.search(r"\b(wo)?men\b", page)
    before, after = page.split("<h2>Gaps by every attribute</h2>")
    after = after.split("<h2>Speaker by speaker</h2>")[1]
    if title == "accent":
        for part in (re.sub(r"(src='data:)[^']*", r"\1", before), after):
            assert "gender" not in part
    for name in ("front.tex", "pareto.csv"):
        assert "women" not in (folder / name).read_text()


async def _look_at_sides(page):
    await page.until("document.getElementById('explorer').dataset.ready === 'yes'")
    await page.ask("document.querySelector('table.front [data-trial]').click()")
    seen = {"detail": await page.ask("document.getElementById('detail').innerText")}
    await page.ask("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    seen["all"] = await page.ask("document.getElementById('detail').innerText")
    seen["too wide"] = await page.ask(TOO_WIDE)
    colours = "[...document.querySelectorAll('#detail .swatch')].map(e => e.style.background)"
    seen["colours"] = await page.ask(f"new Set({colours}).size")
    return seen | {"errors": page.errors}


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_sees_every_side_and_nothing_is_cut_off(by_accent, width):
    records, folder = by_accent
    seen = browser.visit(
        _look_at_sides, folder / "report.html", width=width, height=900, dark=width < 600
    )
    assert seen["errors"] == [] and seen["too wide"] == []
    sides = told(records)["details"]["t0000"]["sides"]
    assert all(side in seen["all"] for side in sides) and seen["colours"] == len(sides)
    assert "max − min" in seen["detail"] and f"the lowest of {len(sides)} sides" in seen["detail"]
    assert (f"All {len(sides)} sides" in seen["detail"]) == (len(sides) > 3)


@needs_browser
@pytest.mark.skipif("ERMGAP_SWEEP" not in os.environ, reason="ERMGAP_SWEEP names no sweep")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_goes_through_the_report_of_a_real_sweep(tmp_path, width):
    records = Records.open(os.environ["ERMGAP_SWEEP"])
    folder = report.write(records.directory, tmp_path, quiet=True)
    _goes_through(records, folder, hovered=front.info(records).front[0].trial_id, width=width)
