"""Start Ray on this machine; where it does not start, one sentence says why and what helps."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ermgap.errors import UserError, first_line

ROOM_MB = 64  # Ray's logs and sockets; its objects lie in /dev/shm
SOCKET = 103 if sys.platform == "darwin" else 107  # bytes of a socket's path, at most
SHORTER = "set RAY_TMPDIR to a short path on a disk of this machine, such as RAY_TMPDIR=/tmp"


def start(init: Callable[[], object]) -> None:
    """Call `init`, a `ray.init` of a new Ray; once more where it timed out on a busy machine.

    Raises:
        UserError: it does not start; what is in the way and what to do.
    """
    require_folder()
    for last in (False, True):
        try:
            init()
            return
        except Exception as problem:  # Ray raises bare ones
            _clear_away()
            late = "timed out" in str(problem).lower()
            if last or not late:
                raise UserError(_sentence(problem, late)) from problem


def require_folder() -> None:
    """UserError for a temporary folder that does not hold Ray's sockets and logs."""
    named = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    place = os.environ[named] if named else "/tmp"
    what = f"Ray cannot use the temporary folder {place!r}{f' ({named})' if named else ''}: "
    if not os.path.isabs(place):
        raise UserError(f"{what}it is no absolute path; {SHORTER}.")
    session = f"session_0000-00-00_00-00-00_000000_{os.getpid()}"
    length = len(os.fsencode(os.path.join(place, "ray", session, "sockets", "plasma_store")))
    if length > SOCKET:
        raise UserError(
            f"{what}it is {length - SOCKET} characters too long for the paths of sockets; "
            f"{SHORTER}."
        )
    folder = Path(place) / "ray"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(bytes(65536))
        free = shutil.disk_usage(folder).free / 1e6
    except OSError as problem:
        raise UserError(f"{what}{problem.strerror}; make room there, or {SHORTER}.") from problem
    if free < ROOM_MB:
        raise UserError(f"{what}{free:.0f} MB are free there; make room, or {SHORTER}.")


def _sentence(problem: Exception, late: bool) -> str:
    """The message to a user where Ray did not start."""
    if late:
        return (
            f"Ray did not start in time, twice ({first_line(problem)}); this machine is busy or "
            "short of memory: try again when less runs on it."
        )
    if isinstance(problem, OSError) and problem.filename:
        home = str(problem.filename).startswith(str(Path.home()))
        remedy = "set HOME to a folder that can be written" if home else SHORTER
        return f"Ray does not start ({problem.filename}: {problem.strerror}); {remedy}."
    return (
        f"Ray does not start on this machine ({first_line(problem)}); its logs are in "
        f"{os.environ.get('RAY_TMPDIR') or os.environ.get('TMPDIR') or '/tmp'}"
        "/ray/session_latest/logs."
    )


def _clear_away() -> None:
    """End what came up of a Ray that did not start; it would slow the next try."""
    import psutil
    import ray

    ray.shutdown()
    for child in psutil.Process().children():
        try:  # each is given the folder of its session, which ends in this process's id
            arguments = " ".join(child.cmdline())
            if "session_" in arguments and f"_{os.getpid()}" in arguments:
                child.kill()
        except psutil.Error:
            continue
