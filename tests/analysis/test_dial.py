"""The dial in the analysis: smoothed curves, their bands, barriers, the front and the page."""

from __future__ import annotations

import functools
import json

import browser
import numpy as np
import pytest
from fake_sweep import DEGENERATE, many, write, write_dial

from analysis import report
from analysis.front import choose, dial, front
from analysis.page import dial_section
from analysis.statistics import dial as bands
from analysis.statistics import evidence
from ermgap.records import POSITIONS


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep with a smooth line and one with a barrier, and the folder of its report."""
    folder = tmp_path_factory.mktemp("dial")
    records = write(folder / "sweep", many(0, 10) + DEGENERATE)
    write_dial(records, "t0000", "t0001")
    write_dial(records, "t0000", "t0002", dip=0.3)
    return records, report.write(records.directory, folder / "plots", quiet=True)


@pytest.fixture(scope="module")
def read(sweep) -> bands.Dial:
    return bands.read(front.info(sweep[0]), sweep[0])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16])
def test_the_smoother_keeps_what_is_no_noise(count):
    positions = np.linspace(0, 1.5, count)
    matrix = dial.smoother(positions)
    assert matrix.sum(1) == pytest.approx(np.ones(count))
    curve = 0.3 - 0.2 * positions + (0.1 * positions**2 if count >= 5 else 0)
    assert matrix @ curve == pytest.approx(curve)
    assert matrix[0] == pytest.approx(np.eye(count)[0])
    noise = np.random.default_rng(0).normal(size=(count, 500))
    if count == 16:
        assert (matrix @ noise)[1:].std(1).max() < 0.85
        assert (matrix @ noise)[3:-3].std(1).max() < 0.55


def line(gap, acc=0.7) -> dial.Line:
    positions = np.array(POSITIONS)
    ids = tuple({0: "a", 10: "b"}.get(k, f"a-b@{p:g}") for k, p in enumerate(positions))
    flat = np.full(len(positions), acc)
    return dial.Line("a", "b", positions, ids, {"acc": flat, "max_gap": gap},
                     (None,) * 16, np.zeros(16, bool))  # fmt: skip


def test_a_lucky_position_is_not_chosen_and_one_in_a_barrier_neither(read):
    gap = 0.3 - 0.15 * np.array(POSITIONS)
    gap[3] = 0.01
    lucky = line(gap)
    assert np.argmin(gap) == 3 and read.best_position(lucky) == 15
    falling = line(0.3 - 0.15 * np.array(POSITIONS))
    falling.barred[12:] = True
    assert read.best_position(falling) == 11
    costly = line(gap)
    costly.measured["acc"] = 0.7 - 0.5 * np.array(POSITIONS)
    assert read.best_position(costly) is None


def test_positions_in_a_barrier_do_not_bend_the_rest_of_the_curve():
    bent = line(0.3 - 0.1 * np.array(POSITIONS))
    bent.measured["max_gap"][4:7] = 0.9
    bent.barred[4:7] = True
    assert bent.smoothed["max_gap"][~bent.barred] == pytest.approx(
        bent.measured["max_gap"][~bent.barred]
    )


def test_the_front_has_smoothed_positions_and_the_trials_alone_have_their_own_hypervolume(
    sweep, read
):
    alone, info = front.info(sweep[0]), read.info
    assert info.hypervolume == alone.hypervolume and alone.hypervolume_with_dial is None
    assert info.hypervolume_with_dial > info.hypervolume
    assert [p.trial_id for p in info.points] == [p.trial_id for p in alone.points]
    positions = [p for p in info.front if p.dial]
    assert positions and {p.dial[:2] for p in info.dial} == {("t0000", "t0001"), ("t0000", "t0002")}
    assert not {0.0, 1.0} & {p.dial[2] for p in info.dial}
    by_name = {one.name: one for one in read.lines}
    for point in positions:
        curve = by_name["-".join(point.dial[:2])]
        number = curve.ids.index(point.trial_id)
        assert point.values["max_gap"] == curve.smoothed["max_gap"][number]
        assert info.find(point.trial_id) is point


def test_a_barrier_is_reported_and_its_positions_are_neither_on_the_front_nor_chosen(read):
    smooth, bent = (read.bands[one.name] for one in read.lines)
    assert not smooth.barrier
    inside = set(bent.barrier)
    assert {f"t0000-t0002@{p:g}" for p in (0.3, 0.4, 0.5, 0.6)} <= inside
    assert all(0 < read.info.find(name).dial[2] < 1 for name in inside)
    assert {read.info.find(name).kind for name in inside} == {"barrier"}
    picked = {rule(read.info).trial_id for rule in choose.rules(read.info).values()}
    assert not inside & picked and not inside & {p.trial_id for p in read.info.front}
    (said,) = [text for text in dial_section.sentences(read) if "barrier" in text]
    assert said.startswith("Between t0000 and t0002 lies a barrier: at positions 0.")


def test_differences_of_a_position_are_those_of_the_smoothed_curve(sweep, read):
    found = evidence.collect(read.info, sweep[0], changes=read.changes)
    smooth = read.lines[0]
    for point in (p for p in read.info.front if p.dial and p.dial[1] == "t0001"):
        number = smooth.ids.index(point.trial_id)
        change = found[point.trial_id].change
        assert change is read.bands[smooth.name].to_erm[number]
        erm = read.info.erm.values
        assert change["acc"].value == pytest.approx(
            point.values["acc"] - erm["acc"], abs=0.02
        )  # the made-up trials' rows and predictions differ a little
    lower = read.bands[smooth.name].to_lower
    assert lower[0]["acc"].value == 0 and lower[0]["max_gap"].value == 0
    for number in range(16):
        wanted = smooth.smoothed["max_gap"][number] - smooth.measured["max_gap"][0]
        assert lower[number]["max_gap"].value == pytest.approx(wanted)
    women, men = read.bands[smooth.name].recall[[0, -1]].T
    assert women[0] < women[1] and abs(men[1] - men[0]) < abs(women[1] - women[0])


def test_the_files_of_a_sweep_hold_its_dial(sweep):
    records, folder = sweep
    summary = json.loads((records.directory / "summary.json").read_text())
    smooth = summary["dial"][0]
    assert (smooth["lower"], smooth["upper"]) == ("t0000", "t0001")
    assert smooth["positions"] == pytest.approx(POSITIONS)
    assert summary["hypervolume_with_dial"] > summary["hypervolume"]
    assert any("@" in point["trial_id"] for point in summary["front"])
    assert "surely fairer than ERM" in summary["choices"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "positions of the dial between them" in page and "lies a barrier" in page
    assert "recall of female/male in de/speech goes from" in page
    assert "t0000-t0001@" in (folder / "pareto.csv").read_text()


def test_a_sweep_without_a_dial_says_nothing_of_one(tmp_path):
    records = write(tmp_path / "sweep", many(0, 6))
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    summary = json.loads((records.directory / "summary.json").read_text())
    assert not {"dial", "hypervolume_with_dial"} & set(summary)
    assert "surely fairer than ERM" not in summary["choices"]
    assert "<h2>The dial</h2>" not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_line_without_all_its_predictions_has_a_curve_and_no_band(tmp_path):
    records = write(tmp_path / "sweep", many(0, 6))
    write_dial(records, "t0000", "t0001", positions=(0, 0.5, 1))
    records.append_dial({"id": "gone-t0001@0.5", "lower": "gone", "upper": "t0001",
                         "position": 0.5, "dev": {}})  # fmt: skip
    (records.storage / "predictions" / "t0000-t0001@0.5.parquet").unlink()
    read = bands.read(front.info(records), records)
    assert [one.name for one in read.lines] == ["t0000-t0001"] and not read.bands
    assert any("nothing says how sure" in text for text in dial_section.sentences(read))
    page = report.write(records.directory, tmp_path / "plots", quiet=True) / "report.html"
    assert "id='dial'" in page.read_text(encoding="utf-8")


def test_a_surely_fairer_position_is_named_in_the_first_sentences(tmp_path, monkeypatch):
    records = write(tmp_path / "sweep", many(0, 10))
    write_dial(records, "t0000", "t0001")
    read = bands.read(front.info(records), records)
    found = evidence.collect(read.info, records, changes=read.changes)
    said = evidence.sentence(read.info, found)
    assert "none surely lowered its gap" in said and "speakers like these" in said
    name = next(p.trial_id for p in read.info.front if p.dial)
    monkeypatch.setattr(evidence.PointEvidence, "fell", property(lambda self: self is found[name]))
    said = evidence.sentence(read.info, found)
    assert f"1 surely lowered its gap (95 % confidence, on the same speakers): the most accurate " \
        f"such point is {name}, {choose.scores(read.info.find(name))}." in said  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A sweep with a dial that is about the German cell, and its report."""
    folder = tmp_path_factory.mktemp("named")
    config = {"data": {"min_support": 5}, "train": {"select": "w_f1"}}
    config |= {"sweep": {"cell": "de/speech"}}
    records = write(folder / "sweep", many(0, 6), config=config)
    write_dial(records, "t0000", "t0001")
    return records, report.write(records.directory, folder / "plots", quiet=True) / "report.html"


def test_every_position_has_its_change_in_the_named_cell(named):
    records, page = named
    (line,) = json.loads((records.directory / "summary.json").read_text())["dial"]
    changes = [change["cell_gap"] for change in line["less_lower"]]
    assert len(changes) == 16 and changes[0]["value"] == 0
    assert changes[10]["value"] < -0.1 and changes[10]["low"] < changes[10]["high"]
    assert len(line["less_erm"]) == 16 and "cell_gap" in line["less_erm"][3]
    text = page.read_text(encoding="utf-8")
    assert "gap in de/speech " in text and "the cell named before the sweep" in text


async def _named(page):
    await page.until("document.getElementById('dial').dataset.ready === 'yes'")
    wide = """[...document.querySelectorAll('body *')].filter(e =>
        e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    await page.ask("document.querySelector('table.front a').click()")
    return {
        "dial": await page.ask("document.getElementById('dial').innerText"),
        "curves": await page.ask("document.querySelectorAll('#dial .curves svg').length"),
        "front": await page.ask("document.querySelector('table.front').innerText"),
        "too wide": await page.ask(wide),
        "errors": page.errors,
    }


@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_the_named_cell(named, width):
    seen = browser.visit(_named, named[1], width=width, height=900, dark=False)
    assert "Gap in de/speech less t0000's" in seen["dial"] and seen["curves"] == 6
    assert "de/speech against ERM" in seen["front"]
    assert seen["too wide"] == [] and seen["errors"] == []


async def _turn(page):
    await page.until("document.getElementById('dial').dataset.ready === 'yes'")
    slider = "document.getElementById('turn-0')"
    seen = {"position": await page.ask("document.querySelector('#dial output').textContent")}
    numbers = "document.querySelector('#dial .numbers').innerText"
    needle = "document.querySelector('#dial .needle').getAttribute('x1')"
    seen["before"] = [await page.ask(numbers), await page.ask(needle)]
    await page.ask(f"{slider}.focus()")
    await page.key("Home", 36)
    await page.key("ArrowRight", 39)
    seen["after"] = [await page.ask(numbers), await page.ask(needle)]
    seen["at"] = await page.ask("document.querySelector('#dial output').textContent")
    seen["label"] = await page.ask(f"{slider}.labels[0].textContent")
    seen["spoken"] = await page.ask(f"{slider}.getAttribute('aria-valuetext')")
    await page.ask("document.querySelectorAll('#dial details').forEach(d => { d.open = true; })")
    await page.ask("""(s => { s.value = 5; s.dispatchEvent(new Event('input')) })
        (document.getElementById('turn-1'))""")
    seen["barrier"] = await page.ask("document.querySelectorAll('#dial details')[1].innerText")
    await page.ask("document.querySelector('#dial [data-trial]').click()")
    seen["detail"] = await page.ask("document.getElementById('detail').innerText")
    await page.ask("document.getElementById('dial-points').click()")
    seen["hidden"] = await page.ask("document.querySelectorAll('#picture [data-id*=\"@\"]').length")
    seen["too wide"] = await page.ask(
        """[...document.querySelectorAll('#dial *')].filter(e =>
        e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))"""
    )
    seen["errors"] = page.errors
    return seen


@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_turns_the_dial(sweep, read, width):
    seen = browser.visit(
        functools.partial(_turn), sweep[1] / "report.html", width=width, height=900,
        dark=width < 600,
    )  # fmt: skip
    smooth = read.lines[0]
    assert float(seen["position"]) == smooth.positions[read.best_position(smooth)]
    assert seen["at"] == "0.1" and seen["label"].startswith("Position")
    gap = f"{100 * smooth.smoothed['max_gap'][1]:.1f} points"
    assert gap in seen["after"][0] and gap in seen["spoken"]
    assert all(a != b for a, b in zip(seen["before"], seen["after"], strict=True))
    for part in ("Accuracy", "Recall in", "female / male", "Gap less t0000's", "95 %"):
        assert part in seen["after"][0]
    assert "In a barrier" in seen["barrier"]
    assert "position 0.1 between t0000 and t0001" in seen["detail"]
    assert seen["hidden"] == 0 and seen["too wide"] == [] and seen["errors"] == []


@pytest.fixture(scope="module")
def of_accents(tmp_path_factory):
    """A report of a sweep with a dial about an attribute of three sides."""
    folder = tmp_path_factory.mktemp("accents")
    about = {"accents": ("north", "south", "west"), "attribute": ("accent",)}
    records = write(folder / "sweep", many(0, 6), **about)
    write_dial(records, "t0000", "t0001", **about)
    return report.write(records.directory, folder / "plots", quiet=True)


def test_a_dial_of_three_sides_says_the_lowest_and_the_highest(of_accents):
    page = (of_accents / "report.html").read_text(encoding="utf-8")
    assert "recall of the lowest/highest side in de/speech goes from" in page
    assert "Largest gap by accent" in page and "female / male" not in page


async def _sides_of_the_dial(page) -> dict:
    await page.until("document.getElementById('dial').dataset.ready === 'yes'")
    asked = {
        "keys": "[...document.querySelectorAll('#dial .curves p.soft')].map(e => e.innerText)",
        "lines": "[...document.querySelectorAll('#dial .curves svg')]"
        ".map(e => e.querySelectorAll('polyline').length)",
        "said": "document.querySelector('#dial .numbers').innerText",
        "too wide": "document.documentElement.scrollWidth > innerWidth",
    }
    seen = {name: await page.ask(script) for name, script in asked.items()}
    return seen | {"errors": page.errors}


@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_dial_of_three_sides_has_a_curve_and_a_name_for_each(of_accents, width):
    seen = browser.visit(
        _sides_of_the_dial, of_accents / "report.html", width=width, height=900, dark=width < 600
    )
    assert seen["errors"] == [] and not seen["too wide"]
    assert seen["keys"] == ["north, south, west"] and 3 in seen["lines"]
    assert " / " in seen["said"]
