"""The line that a person watches: who trains what, alone or together."""

from __future__ import annotations

import pytest
from broker_story import create

from analysis.front import front
from ermgap.records import Records
from sweeps.recording import seen
from sweeps.recording.progress import Progress


def line(folder, **status) -> str:
    silent = {"running": {}, "held": {}, "ended": {}, "reasons": {}, "notes": {}, "queued": []}
    return Progress(Records.open(folder), trials=10, epochs=6)._now(silent | status)


def test_the_members_of_a_gang_share_their_epoch_and_slots_are_told_apart(tmp_path):
    folder = create(tmp_path / "sweep")
    said = line(
        folder,
        running={"t0002": 3, "t0003": 3, "t0004": 2, "t0005": 5},
        held={"slot-0": ["t0002", "t0003", "t0004"], "slot-1": ["t0005"]},
        ended={"t0000": "finished", "t0001": "failed"},
    )
    assert "2/10 trials" in said and "1 failed" in said
    assert "t0002+t0003 epoch 3/6, t0004 epoch 2/6, t0005 epoch 5/6" in said


def test_before_anything_trains_it_says_what_the_slots_prepare(tmp_path):
    folder = create(tmp_path / "sweep")
    said = line(folder, notes={"slot-0": "audio features 16/48", "slot-1": "ready"})
    assert "slot-0: audio features 16/48" in said and "slot-1" not in said


def row(number: int, epoch: int, status: str) -> dict:
    scores = {"epoch": epoch, "acc": 0.4 + number / 100, "w_f1": 0.5, "max_gap": 0.1 + number / 100}
    config = {"loss": "erm" if number == 0 else "minmaxgap"}
    return {"trial_id": f"t{number:04d}", "attempt": 1, "epoch": epoch, "status": status,
            "config": config, "selected": scores, "dev": {"worst_cell": "de/speech"}}  # fmt: skip


def test_each_row_is_read_once_however_many_trials_end(tmp_path, monkeypatch, capsys):
    records = Records.open(create(tmp_path / "sweep"))
    records.append(row(0, 1, "running"))
    path, read, tables = records.directory / "trials.jsonl", [], []
    whole, table = seen.parse_rows, Records.table
    monkeypatch.setattr(seen, "parse_rows", lambda new: (read.append(len(new)), whole(new))[1])
    monkeypatch.setattr(Records, "table", lambda self: (tables.append(1), table(self))[1])
    monkeypatch.setattr(Records, "rows", lambda self: pytest.fail("all rows are read again"))
    watch = Progress(records, trials=10, epochs=2)
    status = {"running": {}, "held": {}, "ended": {}, "reasons": {}, "notes": {}, "queued": []}
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
    assert len(said) == 10 and said[-1].startswith("t0009 finished   acc 49.0")
    assert said[-1].endswith(f"front {len(info.front)}, hypervolume {info.hypervolume:.3f}")


def test_a_line_in_the_making_waits_and_a_row_that_the_disk_took_back_is_forgotten(tmp_path):
    records = Records.open(create(tmp_path / "sweep"))
    path, live = records.directory / "trials.jsonl", seen.Seen(records)
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
