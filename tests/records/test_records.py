"""Records: a row is on disk or not, readers never see half a file, attempts become one trial."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import math
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ermgap.errors import UserError
from ermgap.records import Records, to_json, write_atomically


def row(trial_id: str = "t0000", epoch: int = 1, *, attempt: int = 1, **values) -> dict:
    fixed = {"trial_id": trial_id, "attempt": attempt, "epoch": epoch, "status": "running"}
    return fixed | {"reason": None, "config": {"loss": "erm", "lr": 0.003}, "selected": {}} | values


def epochs(records: Records) -> list[int]:
    return [committed["epoch"] for committed in records.rows()]


@pytest.fixture
def records(tmp_path) -> Records:
    table = pd.DataFrame({"utterance_id": ["a", "b"], "gender": ["female", "male"]})
    return Records.create(tmp_path / "sweep", sweep={"config": {}, "trials": 3}, table=table)


def log(records: Records) -> Path:
    return records.directory / "trials.jsonl"


class Synced:
    """What was put on disk by fsync, in order."""

    def __init__(self, monkeypatch) -> None:
        self.paths: list[Path] = []
        self.sizes: list[int] = []
        monkeypatch.setattr(os, "fsync", self._note)

    def _note(self, handle: int) -> None:
        self.paths.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        self.sizes.append(os.fstat(handle).st_size)

    def sizes_of(self, path: Path) -> list[int]:
        pairs = zip(self.paths, self.sizes, strict=True)
        return [size for synced, size in pairs if synced == path]


def test_a_file_that_is_replaced_is_on_disk_and_so_are_its_name_and_its_new_folders(
    tmp_path, monkeypatch
):
    synced = Synced(monkeypatch)
    path = tmp_path / "new" / "newer" / "file.json"
    write_atomically(path, lambda temporary: temporary.write_text("{}"))
    *_, content, name = synced.paths
    assert content.parent == path.parent and content != path and name == path.parent
    assert {tmp_path, tmp_path / "new"} <= set(synced.paths)
    synced.paths.clear()
    write_atomically(path, lambda temporary: temporary.write_text("[]"))
    assert synced.paths[-1] == path.parent and len(synced.paths) == 2


def test_a_file_system_without_fsync_of_folders_is_written_all_the_same(tmp_path, monkeypatch):
    real = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    write_atomically(tmp_path / "a" / "b", lambda temporary: temporary.write_text("x"))
    assert (tmp_path / "a" / "b").read_text() == "x"


def test_a_committed_row_survives_the_death_of_its_writer(records):
    code = (
        "import os, signal, sys; from ermgap.records import Records\n"
        "records = Records.open(sys.argv[1])\n"
        "for epoch in range(5):\n"
        "    row = dict(trial_id='t', epoch=epoch, attempt=1, status='running', config={})\n"
        "    records.append(row)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code, str(records.directory)], cwd=root)
    assert killed.returncode == -9
    assert epochs(records) == list(range(5))


def test_rows_are_synced_before_append_returns_and_come_back_in_order(records, monkeypatch):
    synced = Synced(monkeypatch)
    sizes = []
    for epoch in range(1, 6):
        records.append(row(epoch=epoch, text="grün, \n 日本語"))
        sizes.append(log(records).stat().st_size)
    assert synced.sizes_of(log(records)) == sizes
    assert synced.paths.index(records.directory) == 1  # the name of the new file, once
    assert synced.paths.count(records.directory) == 1
    assert records.rows() == [row(epoch=epoch, text="grün, \n 日本語") for epoch in range(1, 6)]
    assert not records.half_written


def test_a_last_row_cut_at_any_byte_is_left_out_reported_and_never_swallows_the_next(records):
    records.append(row(epoch=1))
    kept = log(records).read_bytes()
    records.append(row(epoch=2, text="ü"))
    whole = log(records).read_bytes()
    for cut in range(len(kept), len(whole) + 1):
        log(records).write_bytes(whole[:cut])
        half_written = len(kept) < cut < len(whole) - 1
        expected = [1] if cut < len(whole) - 1 else [1, 2]  # only the newline may be missing
        assert epochs(records) == expected
        assert records.half_written == half_written
        records.append(row(epoch=3))
        assert epochs(records) == [*expected, 3]
        assert records.half_written == half_written


@pytest.mark.parametrize(
    "line", [b"\x00\x00\x00", b"[]", b'"trial_id"', b"3", b"{}", b'{"trial_id": "t9"}', b"\xff\xfe"]
)
def test_a_line_that_is_no_row_is_left_out_and_reported(records, line):
    records.append(row())
    with open(log(records), "ab") as file:
        file.write(line + b"\n")
    records.append(row(epoch=2))
    assert epochs(records) == [1, 2] and records.half_written
    assert [trial.epoch for trial in records.trials()] == [2]


def test_numpy_values_come_back_as_plain_ones_and_what_is_not_finite_as_null(records):
    records.append(
        row(
            flag=np.bool_(True),
            count=np.int64(3),
            half=np.float32(0.5),
            exact=np.float64(0.1),
            losses={"de/speech/female": float("nan"), "x": np.float64("inf"), "y": -math.inf},
            nested=[np.float32("nan"), (1, np.int8(2))],
        )
    )
    values = records.rows()[0]
    assert (values["flag"], values["count"], values["half"], values["exact"]) == (True, 3, 0.5, 0.1)
    assert values["losses"] == {"de/speech/female": None, "x": None, "y": None}
    assert values["nested"] == [None, [1, 2]]
    assert b"NaN" not in log(records).read_bytes() and b"Infinity" not in log(records).read_bytes()


def test_a_row_that_cannot_be_written_leaves_no_trace(records):
    records.append(row())
    before = log(records).read_bytes()
    with pytest.raises(TypeError):
        records.append(row(epoch=2, thing=object()))
    assert log(records).read_bytes() == before


def test_readers_see_only_whole_rows_in_order_while_one_appends(records):
    wrong, ended = [], threading.Event()

    def read() -> None:
        reader = Records.open(records.directory)
        while not ended.is_set():
            read_now = epochs(reader)
            if read_now != list(range(len(read_now))):
                wrong.append(read_now)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for epoch in range(150):
        records.append(row(epoch=epoch, filling="x" * 3000))
    ended.set()
    for reader in readers:
        reader.join()
    assert wrong == [] and len(records.rows()) == 150


def test_a_later_attempt_replaces_the_epochs_it_did_again_and_all_after_them(records):
    records.append(row("t0000", 0, attempt=0))
    records.append(row("t0001", 0, attempt=0))
    for epoch in (1, 2, 3):
        records.append(row("t0000", epoch, selected={"acc": epoch / 10}))
    records.append(row("t0000", 2, attempt=2, selected={"acc": 0.9}))
    first, second = records.trials()
    assert (first.trial_id, first.epoch, first.attempt) == ("t0000", 2, 2)
    assert [(r["epoch"], r["attempt"]) for r in first.rows] == [(0, 0), (1, 1), (2, 2)]
    assert first.selected == {"acc": 0.9} and not first.ended
    assert (second.trial_id, second.epoch, second.status) == ("t0001", 0, "running")


@pytest.mark.parametrize("status", ["finished", "stopped", "failed", "degenerate"])
def test_the_last_row_decides_how_a_trial_ended(records, status):
    records.append(row(epoch=1))
    records.append(row(epoch=2, status=status, reason="so"))
    (trial,) = records.trials()
    assert (trial.status, trial.reason, trial.ended) == (status, "so", True)


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "front.txt"
    write_atomically(path, lambda temporary: temporary.write_text("old"))

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_atomically(path, half)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_whole_and_synced(tmp_path, monkeypatch):
    path = tmp_path / "front.txt"
    path.write_text("old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(path.read_text()))

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append(path.read_text())

    write_atomically(path, write)
    assert seen[:2] == ["old", "old"] and path.read_text() == "new"


def test_the_consolidated_table_equals_the_rows(records):
    records.append(row("t0000", 0, attempt=0))
    for epoch in (1, 2):
        records.append(
            row(epoch=epoch, dev={"acc": 0.5, "gaps": {"de/speech": {"avg": np.nan, "n": 7}}})
        )
    config = {"loss": "minmaxgap", "schedule": "linear", "p": 2.0, "lora_r": 8, "relative": True}
    records.append(row("t0001", 1, status="failed", reason="nan", config=config))
    records.consolidate()
    flat = pd.read_parquet(records.directory / "trials.parquet")
    rows = [committed for trial in records.trials() for committed in trial.rows]
    assert len(flat) == len(rows)
    for committed, (_, line) in zip(rows, flat.iterrows(), strict=True):
        expected = {key: value for key, value in flatten(committed) if value is not None}
        assert {key: value for key, value in line.items() if not pd.isna(value)} == expected


def flatten(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_a_column_of_mixed_kinds_is_text_and_its_gaps_stay_gaps(records):
    for number, value in enumerate([1, "two", None]):
        records.append(row(f"t{number:04d}", 1, config={"thing": value}))
    records.consolidate()
    things = pd.read_parquet(records.directory / "trials.parquet")["config.thing"]
    assert things[:2].to_list() == ["1", "two"] and pd.isna(things[2])


def test_nothing_to_consolidate_writes_nothing(records):
    records.consolidate()
    assert records.trials() == [] and not (records.directory / "trials.parquet").exists()


def test_the_done_marker_can_be_set_and_taken_back(records):
    assert not records.finished
    records.mark_done()
    assert Records.open(records.directory).finished
    records.clear_done()
    records.clear_done()
    assert not records.finished


def test_the_description_of_a_sweep_is_replaced_whole_and_comes_back(records):
    sweep = {"config": {"train": {"lr": np.float64(0.1)}}, "labels": ("ä", "b"), "trials": 5}
    records.write_sweep(sweep)
    expected = {"config": {"train": {"lr": 0.1}}, "labels": ["ä", "b"], "trials": 5}
    assert Records.open(records.directory).sweep == expected
    assert json.loads(to_json({"x": float("nan"), "y": np.int64(2)})) == {"x": None, "y": 2}


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("sweep.yaml", None, "no sweep.yaml"),
        ("sweep.yaml", b"config: [", "sweep.yaml"),
        ("sweep.yaml", b"\xff\xfe", "sweep.yaml"),
        ("sweep.yaml", b"- a", "sweep.yaml"),
        ("sweep.yaml", b"", "sweep.yaml"),
        ("sweep.yaml", b"config: 2020-13-45", "sweep.yaml"),
        ("sweep.yaml", b"trials: 3", "config"),
    ],
)
def test_a_folder_that_is_no_sweep_gives_one_sentence(records, name, content, phrase):
    path = records.directory / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        Records.open(records.directory)
    assert phrase in str(refused.value) and str(records.directory) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and then nothing"])
def test_a_table_of_utterances_that_cannot_be_read_gives_one_sentence(records, content):
    path = records.directory / "table.parquet"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match="table.parquet") as refused:
        records.table()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["nowhere", "file", "file/inside"])
def test_a_path_that_is_no_folder_gives_one_sentence(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not a folder"):
        Records.open(tmp_path / name)


def test_a_sweep_is_never_written_over(records):
    with pytest.raises(UserError, match="--resume"):
        Records.create(records.directory, sweep={"config": {}}, table=pd.DataFrame())


def test_a_folder_that_cannot_be_made_gives_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        Records.create(tmp_path / "file" / "sweep", sweep={"config": {}}, table=pd.DataFrame())


def test_predictions_and_checkpoints_are_looked_for_in_the_storage(records, tmp_path):
    assert records.storage == records.directory and records.predictions("t0000") is None
    records.write_sweep(records.sweep | {"storage": str(tmp_path / "far")})
    kept = tmp_path / "far" / "checkpoints" / "t0001" / "x"
    gone = tmp_path / "far" / "checkpoints" / "t0000" / "x"
    for path in (kept, gone):
        write_atomically(path, lambda temporary: temporary.write_text("x"))
    records.forget_checkpoints("t0000")
    assert kept.exists() and not gone.parent.exists()


def test_predictions_that_were_fetched_beside_the_records_are_read_without_the_storage(records):
    records.write_sweep(records.sweep | {"storage": "/mnt/nowhere/here"})
    (records.directory / "predictions").mkdir()
    table = pd.DataFrame({"prediction": ["joy"]})
    table.to_parquet(records.directory / "predictions" / "t0000.parquet")
    pd.testing.assert_frame_equal(records.predictions("t0000"), table)


def test_a_folder_is_run_by_one_process_at_a_time(records):
    records.lock()
    other = Records.open(records.directory)
    with pytest.raises(UserError, match="another process"):
        other.lock()
    del records, other


def test_a_file_system_without_locks_claims_nothing_and_refuses_nobody(records, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    records.lock()
    Records.open(records.directory).lock()


def test_a_lock_ends_with_its_owner(records):
    first = Records.open(records.directory)
    first.lock()
    del first
    gc.collect()
    Records.open(records.directory).lock()


def test_a_row_that_does_not_fit_on_the_disk_leaves_nothing_of_itself(records):
    records.append(row("t0000", 1))
    path = records.directory / "trials.jsonl"
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        for _ in range(3):
            with pytest.raises(OSError):
                records.append(row("t0000", 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    records.append(row("t0000", 2))
    assert epochs(records) == [1, 2] and not records.half_written
