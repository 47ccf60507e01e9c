"""Figures, files and texts of the report, for finished, unfinished and empty sweeps."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_sweep import DEGENERATE, ERM, RUNNING, THREE, many, write

from analysis import __main__, report
from analysis.figures import figures, layout, pairs
from analysis.front import front
from analysis.statistics import uncertainty
from analysis.tables import tables
from ermgap.errors import UserError
from ermgap.records import Records

CLOSE = [ERM, *({"acc": 0.66 + i / 500, "max_gap": 0.14 + i / 900} for i in range(1, 5))]

CASES = {
    "forty": many(0) + DEGENERATE + RUNNING,
    "twenty": many(1, 20) + DEGENERATE,
    "twelve": many(2, 12),
    "three": THREE,
    "close": CLOSE + DEGENERATE,
    "one": [ERM],
    "all degenerate": DEGENERATE,
    "none finished": RUNNING,
}


def read(tmp_path, trials, **sweep):
    records = write(tmp_path / "sweep", trials, **sweep)
    info = front.info(records)
    return info, uncertainty.standard_errors(records, [p.trial_id for p in info.highlighted])


@pytest.mark.parametrize("case", CASES)
def test_labels_overlap_neither_each_other_nor_the_points_of_the_front(tmp_path, case):
    """In boxes of a fixed size per letter, so that no font of this machine has a part in it."""
    info, bars = read(tmp_path, CASES[case])
    picture = layout.picture(info, bars)
    low, high = np.transpose([picture.xlim, picture.ylim])
    size = np.array([735.0, 403.0])  # of the axes, in pixels

    def pixels(places) -> np.ndarray:
        return (np.reshape(places, (-1, 2)) - low) / (high - low) * size

    named = [mark for mark in picture.marks if mark.point.trial_id in picture.labels]
    assert len(named) == len(picture.labels) <= 4
    sizes = np.reshape(
        [(7.0 * len(picture.labels[m.point.trial_id]), 14.0) for m in named], (-1, 2)
    )
    anchors = pixels([(mark.shown_x, mark.shown_y) for mark in named])
    centres = layout.place_labels(sizes, anchors, pixels(layout.obstacles(picture)), (0, 0, *size))
    begin, end = centres - sizes / 2, centres + sizes / 2
    assert (begin >= 0).all() and (end <= size).all()
    for first, second in itertools.combinations(range(len(named)), 2):
        assert (begin[first] >= end[second]).any() or (begin[second] >= end[first]).any()
    for point in pixels([(m.x, m.y) for m in picture.marks if m.point.on_front]):
        assert not ((begin < point) & (point < end)).all(axis=1).any()


@pytest.mark.parametrize("case", CASES)
def test_the_words_below_and_above_the_picture_are_short_enough_for_it(tmp_path, case):
    info, bars = read(tmp_path, CASES[case], planned=60, done=False)
    picture = layout.picture(info, bars)
    assert len(picture.caption) <= 6 and max(map(len, picture.caption)) <= 130
    assert max(len(picture.title), len(picture.xlabel), len(picture.ylabel)) <= 64
    assert any("of 60 trials" in line for line in picture.caption)
    drawing, labels = figures.draw(info, bars=bars)
    shown = [text.get_text() for text in drawing.texts]
    assert shown == [picture.title, "\n".join(picture.caption)]
    assert {label.get_text() for label in labels} == set(picture.labels.values())


@pytest.mark.parametrize("objectives", [("acc", "max_gap"), ("acc", "max_gap", "max_loss_gap")])
def test_long_names_of_attributes_and_their_provenance_stay_within_the_picture(
    tmp_path, objectives
):
    sources = dict.fromkeys(["gender", "speaking_style", "first_language"], "inferred (a_corpus)")
    long = {"objectives": list(objectives), "provenance": sources | {"gender": "annotated (b)"}}
    long |= {"directions": dict.fromkeys(objectives, "min") | {"acc": "max"}}
    long |= {"reference_point": dict.fromkeys(objectives, 1.0) | {"acc": 0.1}}
    config = {"objective": {"attribute": list(sources)}}
    info, _ = read(tmp_path, THREE, planned=9, with_predictions=False, config=config, **long)
    drawings = [figures.draw(info)[0], *([pairs.draw(info)] if len(objectives) > 2 else [])]
    for drawing in drawings:
        drawing.canvas.draw()
        axes = drawing.axes
        texts = [*drawing.texts, *(a.xaxis.label for a in axes), *(a.yaxis.label for a in axes)]
        boxes = [text.get_window_extent() for text in texts]
        assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
        assert all(box.x1 <= drawing.bbox.x1 and box.y1 <= drawing.bbox.y1 for box in boxes)
        for first, second in itertools.combinations(boxes, 2):
            assert not first.overlaps(second)


@pytest.mark.parametrize("case", CASES)
def test_every_trial_with_scores_is_visible_and_the_front_keeps_half_of_each_axis(tmp_path, case):
    info, bars = read(tmp_path, CASES[case])
    picture = layout.picture(info, bars)
    scored = [p for p in info.points if np.isfinite(p.values["acc"])]
    assert [mark.point.trial_id for mark in picture.marks] == [p.trial_id for p in scored]
    for mark in picture.marks:
        assert picture.xlim[0] <= mark.shown_x <= picture.xlim[1]
        assert picture.ylim[0] <= mark.shown_y <= picture.ylim[1]
        if mark.point in info.highlighted:
            assert mark.off == "" and (mark.shown_x, mark.shown_y) == (mark.x, mark.y)


def test_far_outliers_are_put_at_the_edge_and_do_not_squash_the_front():
    core, others = np.array([60.0, 66.0]), np.array([1.0, 58.0, 60.0, 66.0, 99.0])
    low, high = layout.limits(core, others, least=6.0, top=100.0)
    assert low < 58 and high > 66
    assert (66 - 60) / (high - low) > 0.4
    assert layout.limits(np.array([]), np.array([]), least=6.0, top=100.0) == (0.0, 6.0)


@pytest.mark.parametrize("directions", [("max", "min"), ("max", "max")])
def test_the_staircase_touches_every_point_of_the_front_and_no_point_lies_beyond_it(
    tmp_path, directions
):
    names = ("acc", "max_gap") if directions[1] == "min" else ("acc", "worst_group_w_f1")
    trials = [t | {"worst_group_w_f1": 0.9 - t["acc"] / 2} for t in many(4, 15)]
    info, _ = read(
        tmp_path,
        trials,
        with_predictions=False,
        objectives=list(names),
        directions=dict(zip(names, directions, strict=True)),
        reference_point=dict.fromkeys(names, 0.3),
    )
    x, y = layout.plane(info)
    steps = layout.stairs(info.front, (x, y))
    on_front = {(p.values[x] * 100, p.values[y] * 100) for p in info.front}
    assert len(on_front) >= 3 and on_front <= set(map(tuple, steps))
    for corner in set(map(tuple, steps)) - on_front:
        signs = np.array([-1 if directions[1] == "min" else 1, 1])
        assert any((np.array(point) * signs >= corner * signs).all() for point in on_front)


def test_error_bars_are_on_the_front_and_on_the_baseline_alone(tmp_path):
    info, bars = read(tmp_path, many(0) + DEGENERATE)
    with_bars = {m.point.trial_id for m in layout.picture(info, bars).marks if m.x_bar or m.y_bar}
    assert with_bars == {p.trial_id for p in info.highlighted}
    assert all(m.x_bar == m.y_bar == 0 for m in layout.picture(info).marks)


def test_the_caption_says_data_n_synthetic_selection_progress_and_what_bars_are(tmp_path):
    info, bars = read(tmp_path, THREE, planned=9, done=False)
    caption = " ".join(layout.picture(info, bars).caption)
    for part in (
        "Data: demo; 480 dev utterances of 24 speakers",
        "Synthetic speech, not human: demo",
        "best dev weighted F1",
        "Unfinished sweep: 3 of 9 trials",
        "one standard error",
        "no 95 % interval",
    ):
        assert part in caption, part
    real, _ = read(tmp_path / "real", THREE, data=["emodb=/some/where"], synthetic=[])
    caption = " ".join(layout.picture(real).caption)
    assert "ynthetic" not in caption and "Unfinished" not in caption and "/some" not in caption
    assert "standard error" not in caption


def test_the_picture_for_tensorboard_is_an_image(tmp_path):
    info, bars = read(tmp_path, THREE)
    image = figures.front_array(info, bars=bars)
    assert image.dtype == np.uint8 and image.shape == (620, 830, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    empty, _ = read(tmp_path / "none", RUNNING)
    assert figures.front_array(empty).shape == image.shape


@pytest.mark.parametrize("case", ["forty", "one", "all degenerate", "none finished"])
def test_every_file_is_written_at_every_stage_of_a_sweep(tmp_path, case):
    trials = CASES[case]
    records = write(tmp_path / "sweep", trials, planned=50, done=False)
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    assert folder == tmp_path / "plots" / "sweep"
    names = {"pareto.csv", "pareto.png", "report.html"}
    names |= {"report.json", "pareto.svg", "pareto.pdf", "front.tex"}
    names |= {"attainment.png"} if case in ("forty", "one") else set()
    names |= {"speakers.csv"} if case in ("forty", "one") else set()
    names |= {"families.png"} if case == "forty" else set()  # where two losses have usable trials
    assert {path.name for path in folder.iterdir()} == names
    info = front.info(records)
    table = pd.read_csv(folder / "pareto.csv")
    assert table["trial_id"].tolist() == [p.trial_id for p in info.points]
    assert table["front"].tolist() == [p.on_front for p in info.points]
    assert {"status", "degenerate", "acc", "max_gap", "w_f1", "worst_cell", "config.lr"} <= set(
        table
    )
    stored = pd.read_parquet(records.directory / "front.parquet")
    assert set(stored["trial_id"]) == {p.trial_id for p in info.front}
    summary = json.loads((records.directory / "summary.json").read_text())
    assert [point["trial_id"] for point in summary["front"]] == [p.trial_id for p in info.front]
    assert summary["hypervolume"] == pytest.approx(info.hypervolume)
    assert summary["reference_point"] == {"acc": 0.15, "max_gap": 0.3}
    assert summary["n_dev"] == 480 and summary["synthetic"] == ["demo"]
    assert sum(summary["by_status"].values()) == len(trials)
    assert set(summary["best_under"]) == {"0.1"}
    assert (summary["erm"] or {}).get("trial_id") == (info.erm.trial_id if info.erm else None)


def test_pages_hold_everything_and_fetch_nothing(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    for name in ("report.html",):
        text = (folder / name).read_text(encoding="utf-8")
        # The library that the page carries has addresses in its credits; it opens none by itself.
        text = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)
        assert len(text) > 1000
        for outside in ('src="http', "src='http", "<link", "@import", 'href="http'):
            assert outside not in text, (name, outside)
    page = (folder / "report.html").read_text(encoding="utf-8")
    for part in (
        "use the knee point t0001",
        "480 dev utterances by 24 speakers",
        "base64",
        "t0002",
        "With a gap of at most 10 points: t0001",
        "With a gap of at most 10 points at 95 % confidence: none of the front qualifies",
        "Shuffling gender over speakers needs 10 of a language",
    ):
        assert part in page, part
    order = [page.index(part) for part in ("<p>", "id='explorer'", "<table", "<img", "Caveats")]
    assert order == sorted(order)


def test_the_terminal_shows_the_front_the_baseline_and_the_choices(tmp_path, capsys):
    trials = [ERM | {"acc": 0.50}, *THREE[1:], *DEGENERATE]
    records = write(tmp_path / "sweep", trials, planned=8, done=False)
    assert __main__.main([str(records.directory), "--plots", str(tmp_path / "plots")]) == 0
    out = capsys.readouterr().out
    for part in (
        "5 of 8 trials complete (2 degenerate, 1 dominated, 2 front)",
        "(ERM, dominated)",
        "64.0 ± ",
        "With a gap of at most 10 points: t0001",
        "a perfectly fair model",
        "pareto.png",
        "one standard error",
    ):
        assert part in out, part
    assert max(map(len, out.splitlines()[:5])) <= 100


def test_a_broken_prediction_file_costs_its_bar_and_is_reported(tmp_path, capsys):
    records = write(tmp_path / "sweep", THREE)
    (records.storage / "predictions" / "t0001.parquet").write_bytes(b"junk")
    with open(records.directory / "trials.jsonl", "a") as file:
        file.write('{"trial_id": "t00')
    report.write(records.directory, tmp_path / "plots")
    out = capsys.readouterr().out
    assert "No bar for t0001" in out and "half-written line" in out


def test_configurations_of_mixed_types_are_written(tmp_path):
    trials = [
        ERM | {"config": {"targets": ["q_proj"], "p": None}},
        {"acc": 0.5, "max_gap": 0.05, "config": {"p": 2.0, "odd": 1}},
        {"acc": 0.5, "max_gap": 0.05, "config": {"p": 1, "odd": "word", "relative": True}},
    ]
    records = write(tmp_path / "sweep", trials)
    report.write(records.directory, tmp_path / "plots", quiet=True)
    assert len(pd.read_parquet(records.directory / "front.parquet")) == 3


def spoil(directory: Path, how: str) -> None:
    if how == "empty":
        directory.mkdir()
    elif how == "file":
        directory.write_text("")
    elif how != "absent":
        write(directory, [] if how == "no trial" else THREE, with_predictions=False)
    if how == "yaml":
        (directory / "sweep.yaml").write_bytes(b"\x00\xff: [")
    elif how == "keys":
        (directory / "sweep.yaml").write_text("config: {}\nobjectives: 3\n")
    elif how == "rows":
        (directory / "trials.jsonl").write_bytes(os.urandom(200))
    elif how == "row keys":
        (directory / "trials.jsonl").write_text('{"trial_id": "t0000", "epoch": 1}\n')
    elif how == "folder for rows":
        (directory / "trials.jsonl").unlink()
        (directory / "trials.jsonl").mkdir()


BAD = ["absent", "empty", "file", "no trial", "yaml", "keys", "rows", "row keys", "folder for rows"]


@pytest.mark.parametrize("how", BAD)
def test_a_folder_that_cannot_be_reported_is_refused_in_one_sentence(tmp_path, how):
    spoil(tmp_path / "sweep", how)
    with pytest.raises(UserError) as refused:
        report.write(tmp_path / "sweep", tmp_path / "plots", quiet=True)
    message = str(refused.value)
    assert str(tmp_path / "sweep") in message and "\n" not in message and message.endswith(".")
    assert not (tmp_path / "plots").exists()


def test_the_command_ends_with_status_2_and_one_line_and_loads_no_heavy_library(tmp_path):
    command = [sys.executable, "-m", "analysis", str(tmp_path / "absent")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    code = (
        "import sys, analysis.front, analysis.report; "
        "print([m for m in ('torch', 'ray', 'matplotlib') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[]"


def test_reading_leaves_the_records_as_they_were(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    before = {p.name: p.read_bytes() for p in records.directory.iterdir() if p.is_file()}
    report.write(records.directory, tmp_path / "plots", quiet=True)
    after = {p.name: p.read_bytes() for p in records.directory.iterdir() if p.is_file()}
    assert set(after) - set(before) == {"front.parquet", "summary.json"}
    assert all(after[name] == content for name, content in before.items())
    assert Records.open(records.directory).finished


def test_watching_writes_when_there_is_more_and_ends_with_the_sweep(tmp_path, capsys):
    records = write(tmp_path / "sweep", THREE[:2], planned=3, done=False)
    page, path = tmp_path / "plots/sweep/report.html", records.directory / "trials.jsonl"
    __main__.watch(records.directory, tmp_path / "plots", every=0.01, rounds=3)
    assert len(capsys.readouterr().out.splitlines()) == 1  # nothing new, nothing written
    first = page.read_text()
    row = json.loads(path.read_text().splitlines()[-1]) | {"trial_id": "t0002"}
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\n")
    records.mark_done()
    __main__.watch(records.directory, tmp_path / "plots", every=60)
    assert "3 trials complete" in capsys.readouterr().out and page.read_text() != first


def test_the_command_line_refuses_to_watch_without_pause(tmp_path):
    write(tmp_path / "sweep", THREE)
    with pytest.raises(UserError, match="seconds above 0"):
        __main__.main([str(tmp_path / "sweep"), "--watch", "0"])


def test_a_report_reads_the_rows_once(tmp_path, monkeypatch):
    records = write(tmp_path / "sweep", THREE)
    records.freeze()
    with open(records.directory / "trials.jsonl", "a") as file:
        file.write("{}\n")
    assert len(records.trials()) == 3 and not records.half_written
    assert len(Records.open(records.directory).trials()) == 3


def test_the_latex_table_has_every_row_and_escapes(tmp_path):
    info, bars = read(tmp_path, THREE)
    text = tables.to_latex(tables.display(info, bars))
    assert text.count(r"\\") == 1 + len(info.highlighted) and r"acc \%" in text
    assert text.startswith(r"\begin{tabular}{llr") and "_" not in text.replace(r"\_", "")


def test_the_nearest_to_the_front_come_in_layers(tmp_path):
    info, _ = read(tmp_path, many(0), with_predictions=False)
    nearest = info.best(20)
    assert {p.trial_id for p in info.front} == {p.trial_id for p in nearest[: len(info.front)]}
    assert len(nearest) == 20 and info.best(1000)[-1].eligible
