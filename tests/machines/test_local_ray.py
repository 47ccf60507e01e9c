"""Ray that does not start is one sentence with its remedy, and leaves no sweep behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ermgap.errors import UserError
from sweeps import pareto
from sweeps.scheduler.machines import local_ray, machine
from sweeps.setup import command_line, folders

LONG = "slurm_jobdir_of_a_user_with_a_long_name/1355700/tmp.node0016"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch, tmp_path):
    """A short temporary folder."""
    monkeypatch.delenv("TMPDIR", raising=False)
    short = Path("/tmp") / f"e{os.getpid()}"
    short.mkdir(exist_ok=True)
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    yield
    subprocess.run(["rm", "-r", str(short)], check=True)


def starts(*outcomes: Exception | None) -> list[str]:
    """What a start says whose tries end like this; the tries are counted."""
    left = list(outcomes)

    def init() -> None:
        outcome = left.pop(0)
        if outcome is not None:
            raise outcome

    try:
        local_ray.start(init)
    except UserError as mistake:
        assert not left
        return [str(mistake)]
    assert not left
    return []


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_named_with_what_to_set(
    monkeypatch, tmp_path, variable
):
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv(variable, str(tmp_path / LONG))
    with pytest.raises(UserError, match=rf"\({variable}\): .*too long.*RAY_TMPDIR=/tmp"):
        local_ray.require_folder()
    assert not (tmp_path / LONG).exists()


def test_the_longest_folder_that_ray_takes_is_taken():
    from ray._private.utils import validate_socket_filepath

    session = f"ray/session_2026-11-28_09-02-25_412155_{os.getpid()}/sockets/plasma_store"
    longest = local_ray.SOCKET - len(session) - 1
    validate_socket_filepath(f"/{'x' * (longest - 1)}/{session}")
    with pytest.raises(OSError, match="cannot exceed"):
        validate_socket_filepath(f"/{'x' * longest}/{session}")


def test_a_byte_counts_and_not_a_letter(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "ß" * 20)
    with pytest.raises(UserError, match="too long"):
        local_ray.require_folder()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("", "no absolute path"),
        ("here", "no absolute path"),
        ("/proc/nowhere", "No such file or directory"),
        ("/dev/null", "Not a directory"),
    ],
)
def test_a_temporary_folder_that_cannot_be_written_is_refused(monkeypatch, place, words):
    monkeypatch.setenv("RAY_TMPDIR", place)
    with pytest.raises(UserError, match=f"{words}.*set RAY_TMPDIR"):
        local_ray.require_folder()


def test_a_full_temporary_folder_is_refused(monkeypatch):
    def refuse(*given, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(local_ray.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match="No space left on device; make room"):
        local_ray.require_folder()
    monkeypatch.undo()
    usage = type("Usage", (), {"free": 5e6})
    monkeypatch.setattr(local_ray.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="5 MB are free there"):
        local_ray.require_folder()


LATE = [
    Exception("The current node timed out during startup. This could happen because ..."),
    RuntimeError("Timed out waiting for file /tmp/ray/session_x/gcs_server_port"),
    TimeoutError("Timed out after 30 seconds while waiting for node to startup."),
]


@pytest.mark.parametrize("problem", LATE)
def test_a_start_that_times_out_is_tried_once_more(problem):
    assert starts(problem, None) == []
    [said] = starts(problem, problem)
    assert "did not start in time, twice" in said and "try again when less runs" in said


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", str(Path.home() / ".ray")), "set HOME"),
        (PermissionError(13, "Permission denied", "/tmp/ray/session_x"), "set RAY_TMPDIR"),
        (ValueError("the amount of memory on this node is less than 5%\nmore"), "less than 5%"),
        (RuntimeError(""), "RuntimeError"),
    ],
)
def test_anything_else_is_one_sentence_at_once(problem, words):
    [said] = starts(problem)
    assert words in said and "\n" not in said and said.endswith(".")


def test_what_came_up_of_a_ray_that_did_not_start_is_ended():
    session = f"session_2026-11-28_09-02-25_412155_{os.getpid()}"
    ours, other = (
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", name])
        for name in (f"--session-name={session}", "--session-name=none")
    )
    try:
        assert starts(LATE[0], None) == []
        assert ours.wait(20) == -9 and other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_a_failed_start_leaves_no_folder_and_changes_none(monkeypatch, tmp_path, capsys):
    def fail(address: str | None) -> None:
        raise UserError("Ray does not start.")

    monkeypatch.setattr(machine, "begin", lambda address: None)
    monkeypatch.setattr("sweeps.scheduler.driver.begin", lambda address: None)
    out = tmp_path / "out"
    monkeypatch.setattr(machine, "join_ray", fail)
    with pytest.raises(UserError, match="does not start"):
        pareto.main(["--smoke-test", "--out", str(out)])
    assert not out.exists()
    given = command_line.parse(
        command_line.options("", many=True), ["--smoke-test", "--out", str(out)]
    )
    folders.prepare(given, kind="sweep", check=lambda *_: None)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="does not start"):
        pareto.main(["--resume", str(out), "--trials", "9"])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_real_start_in_a_folder_too_long_is_one_sentence_and_status_2(root, tmp_path):
    run = subprocess.run(
        [sys.executable, "sweeps/pareto.py", "--smoke-test", "--out", str(tmp_path / "out")],
        cwd=root,
        env=os.environ | {"RAY_TMPDIR": str(tmp_path / LONG), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("error: Ray cannot use") and run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
