"""What a person watches: a table on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from broker_story import create
from rich.console import Console

from analysis.front import front
from ermgap.records import Records
from sweeps.recording import live_records
from sweeps.recording.progress import Progress

QUIET = {"running": {}, "ended": {}, "notes": {}}


def on_terminal(width: int, height: int = 30) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None,
        _environ={"TERM": "xterm"},
    )  # fmt: skip


def screen(watch: Progress, status: dict) -> list[str]:
    """The lines that an update draws, without the codes that move the cursor."""
    output = watch.console.file
    output.seek(0)
    output.truncate()
    watch.update(QUIET | status)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    watch.finish()  # or what is printed goes to this console
    return [line.rsplit("\r", 1)[-1].rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_trials_in_aligned_columns_and_marks_the_front(tmp_path, width):
    records = Records.open(create(tmp_path / "sweep"))
    watch = Progress(records, trials=10, epochs=6, console=on_terminal(width))
    statuses = ["finished", "failed", "stopped", "running", "running"]
    for number, status in enumerate(statuses):
        ended = row(number, 2, status) | {"reason": "out of memory" if number == 1 else None}
        records.append(ended | {"selected": ended["selected"] if number != 4 else {}})
    ended = {f"t{i:04d}": status for i, status in enumerate(statuses) if status != "running"}
    lines = screen(watch, {"running": {"t0003": 3}, "ended": ended})
    assert all(len(line) <= width for line in lines)
    assert "t0001 failed: out of memory" in lines
    (head,) = [line for line in lines if "trial" in line and "status" in line]
    rows = {match[0]: line for line in lines if (match := re.search(r"t\d{4}(?= )", line))
            and "failed:" not in line}  # fmt: skip
    assert sorted(rows) == ["t0000", "t0001", "t0002", "t0003", "t0004"]
    place = head.index("status")
    assert rows["t0000"][place:].startswith("finished") and rows["t0000"].startswith("*")
    assert rows["t0003"][place:].startswith("running") and "3/6" in rows["t0003"]
    assert rows["t0004"][place:].startswith("waiting") and not rows["t0003"].startswith("*")
    right = head.index("max gap points") + len("max gap points")
    assert rows["t0002"][:right].endswith("12.0") and rows["t0003"][:right].endswith("13.0")
    place = head.index("fairness weight")
    assert rows["t0003"][place:].startswith("0.0224 exponential")
    assert ("lr=0.003" in rows["t0003"]) is (width >= 100)
    assert "* on the front (1 trials)" in "".join(lines)
    assert "3/10 trials · 1 failed" in lines[-1] and "left" in lines[-1]


def test_a_long_sweep_fits_the_terminal_and_its_end_lists_all_trials(tmp_path):
    records = Records.open(create(tmp_path / "sweep"))
    for number in range(40):
        records.append(row(number, 2, "finished"))
    watch = Progress(records, trials=41, epochs=2, console=on_terminal(80, 20))
    lines = screen(watch, {})
    assert len(lines) <= 20 and any("more ended" in line for line in lines)
    watch.finish()  # once is enough
    assert watch.console.file.getvalue().count("t0001") == 1  # had not been among those drawn


def test_before_anything_trains_it_says_what_the_slots_prepare(tmp_path):
    records = Records.open(create(tmp_path / "sweep"))
    notes = {"slot-0": "audio features 16/48", "slot-1": "ready"}
    lines = screen(
        Progress(records, trials=10, epochs=6, console=on_terminal(80)), {"notes": notes}
    )
    assert lines[-1] == "slot-0: audio features 16/48" and "0/10 trials" in lines[-2]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_pseudo_terminal_is_redrawn_and_left_with_a_cursor(tmp_path, columns):
    records = Records.open(create(tmp_path / "sweep"))
    (tmp_path / "row.json").write_text(json.dumps(row(0, 2, "finished")))
    code = """
import json, sys
from pathlib import Path
from ermgap.records import Records
from sweeps.recording.progress import Progress
records = Records.open(sys.argv[1])
watch = Progress(records, trials=4, epochs=2)
records.append(json.loads(Path(sys.argv[2]).read_text()))
for epoch in (1, 2):
    watch.update({"running": {"t0001": epoch}, "ended": {"t0000": "finished"}, "notes": {}})
print("a line of another", flush=True)
watch.finish()
print("stopping", flush=True)
"""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(records.directory), str(tmp_path / "row.json")],
        stdin=side,
        stdout=side,
        stderr=side,
        env=environment,
    )
    os.close(side)
    output = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal, on Linux
        while part := os.read(main, 65536):
            output += part
    os.close(main)
    assert process.wait(60) == 0
    shown = output.decode()
    assert "1/4 trials" in shown and "a line of another" in shown
    assert "\x1b[1A\x1b[2K" in shown  # the table is drawn over itself
    assert shown.rstrip().endswith("stopping")
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert max(len(line.rstrip()) for line in re.split(r"[\r\n]+", text)) <= columns
    assert ("other hyperparameters" in text) is (columns >= 100)


def row(number: int, epoch: int, status: str) -> dict:
    scores = {"epoch": epoch, "acc": 0.4 + number / 100, "w_f1": 0.5, "max_gap": 0.1 + number / 100}
    config = {"loss": "erm" if number == 0 else "minmaxgap", "lr": 0.003}
    config |= {"schedule": "exponential", "lambda_max": 0.0224} if number else {}
    return {"trial_id": f"t{number:04d}", "attempt": 1, "epoch": epoch, "status": status,
            "config": config, "selected": scores, "dev": {"worst_cell": "de/speech"}}  # fmt: skip


def test_each_row_is_read_once_however_many_trials_end(tmp_path, monkeypatch, capsys):
    records = Records.open(create(tmp_path / "sweep"))
    records.append(row(0, 1, "running"))
    path, read, tables = records.directory / "trials.jsonl", [], []
    whole, table = live_records.parse_rows, Records.table
    monkeypatch.setattr(
        live_records, "parse_rows", lambda new: (read.append(len(new)), whole(new))[1]
    )
    monkeypatch.setattr(Records, "table", lambda self: (tables.append(1), table(self))[1])
    monkeypatch.setattr(Records, "rows", lambda self: pytest.fail("all rows are read again"))
    watch = Progress(records, trials=10, epochs=2)
    status = {"running": {}, "ended": {}, "notes": {}}
    for number in range(10):
        records.append(row(number, 1, "running"))
        records.append(row(number, 2, "finished"))
        status["ended"][f"t{number:04d}"] = "finished"
        watch.update(status)
        watch.update(status)
    assert sum(read) == path.stat().st_size and len(tables) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("t0")]
    monkeypatch.undo()
    info = front.info(Records.open(records.directory))
    assert len(said) == 10
    line = "t0009 finished epoch 2 acc 49.0 % max gap 19.0 points minmaxgap 0.0224 exponential"
    assert said[-1] == line + ", on the front" * info.find("t0009").on_front


def test_a_line_in_the_making_waits_and_a_row_that_the_disk_took_back_is_forgotten(tmp_path):
    records = Records.open(create(tmp_path / "sweep"))
    path, live = records.directory / "trials.jsonl", live_records.LiveRecords(records)
    live.catch_up()
    records.append(row(0, 1, "running"))
    with open(path, "ab") as file:
        file.write(b'{"trial_id": "t0001"')
    live.catch_up()
    assert list(live.known) == ["t0000"] and not live.half_written
    records.append(row(2, 1, "running"))
    live.catch_up()
    assert list(live.known) == ["t0000", "t0002"] and live.half_written
    path.write_bytes(b"")
    records.append(row(3, 1, "running") | {"reason": "longer than the first one was" * 30})
    live.catch_up()
    assert list(live.known) == ["t0003"]
