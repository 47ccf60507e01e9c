"""Processes that die, hang or are told to go; each function is a row of the fault table."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import psutil
from real_sweep import kill
from scene import Scene, committed, environment

CGROUP = Path("/sys/fs/cgroup/memory")
ROOM = 400_000_000  # bytes that a hungry worker may still take


def worker_killed(scene: Scene) -> None:
    """SIGKILL to a worker in training"""
    with scene.sweep() as run:
        scene.wait_for_its_moment(run)
        kill(scene.chance.choice(run.workers()))
        scene.ends(run)


def driver_killed(scene: Scene) -> None:
    """SIGKILL to the driver, and with it to all of Ray"""
    with scene.sweep() as run:
        scene.wait_for_its_moment(run)
        run.crash()
        scene.note()
    scene.resume()


def spot_notice(scene: Scene) -> None:
    """SIGTERM to the driver: two minutes until the machine is taken back"""
    with scene.sweep() as run:
        scene.wait_for_its_moment(run)
        os.kill(run.process.pid, signal.SIGTERM)
        assert scene.ends(run, well=False) in (130, 143), run.said
        took = time.monotonic() - scene.struck
        assert took < 120, took
        scene.more["seconds_to_stop"] = round(took, 1)
        scene.before = committed(scene.out)
    scene.resume()


def hung_worker(scene: Scene) -> None:
    """a worker that makes no step any more (watchdog: 8 s here, 30 min by default)"""
    with environment(ERMGAP_PATIENCE_S="8"), scene.sweep() as run:
        scene.wait_for_its_moment(run)
        scene.ask_for("hang")
        scene.ends(run)
    assert not (scene.folder / "hang").exists()


def out_of_memory(scene: Scene) -> None:
    """a trial that takes memory until the kernel, or the limit, ends it"""
    with scene.sweep() as run:
        scene.wait_for_its_moment(run)
        scene.ask_for("hunger")
        run.until(lambda: (scene.folder / "hungry").exists())
        pid = int((scene.folder / "hungry").read_text() or 0) or run.workers()[0].pid
        group = _limit(pid)
        try:
            scene.ends(run)
        finally:
            if group is not None:
                group.rmdir()
        scene.more["limit"] = "cgroup" if group else "address space"


def not_finite(scene: Scene) -> None:
    """a loss that becomes NaN"""
    with scene.sweep() as run:
        scene.wait_for_its_moment(run, within=5.0)
        scene.ask_for("nan")
        scene.ends(run)
    assert not (scene.folder / "nan").exists()


def _limit(pid: int) -> Path | None:
    """Let a process take ROOM bytes more: by a cgroup, as a container would, or by its limit."""
    group = CGROUP / f"ermgap-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(ROOM))
        (group / "cgroup.procs").write_text(str(pid))
        return group
    except OSError:
        taken = psutil.Process(pid).memory_info().vms + ROOM
        resource.prlimit(pid, resource.RLIMIT_AS, (taken, taken))
        return None
