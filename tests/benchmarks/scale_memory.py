"""What each process of a sweep keeps in memory: a real smoke test, looked at twice a second.

For bench_scale.py. PSS shares mapped files and copied pages among the processes that map them, so
that sums are right; private memory (USS) is what one process more costs. The largest PSS of each
process counts, and of several of a kind their median.
"""

from __future__ import annotations

import collections
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "Tune trial": r"ray::ImplicitFunc|ray::serve",
    "controller of a slot": r"ray::TrainController",
    "worker of a slot": r"ray::(_?RayTrainWorker|RayTrainWorker)",
    "broker": r"ray::Broker",
    "driver": r"pareto\.py",
    "gcs_server": r"gcs_server",
    "raylet": r"raylet/raylet",
    "idle worker": r"ray::IDLE",
}


def measure(*, trials: int = 6) -> dict:
    """PSS and USS in MB by kind of process, and how many of each were seen."""
    seen: dict[tuple[str, int], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "sweeps" / "pareto.py"), "--smoke-test"]
        command += ["--trials", str(trials), "--set", "sweep.slots=2", "--out", "out"]
        sweep = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while sweep.poll() is None:
            look(sweep.pid, seen)
            time.sleep(0.5)
        if sweep.returncode:
            raise RuntimeError(f"the smoke test ended with {sweep.returncode}")
    by_kind: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    for (kind, _), found in seen.items():
        by_kind[kind].append(found)
    return {
        kind: {
            "processes": len(found),
            "pss_mb": round(statistics.median(pss for pss, _ in found)),
            "uss_mb": round(statistics.median(uss for _, uss in found)),
        }
        for kind, found in sorted(by_kind.items())
    }


def look(pid: int, seen: dict[tuple[str, int], tuple[float, float]]) -> None:
    """Raise the largest memory of each process of the tree under `pid`."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        try:
            line, full = " ".join(process.cmdline()), process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
        kind = next((kind for kind, like in KINDS.items() if re.search(like, line)), "other")
        key, now = (kind, process.pid), (full.pss / 1e6, full.uss / 1e6)
        seen[key] = max(seen.get(key, (0.0, 0.0)), now)


class Peak:
    """The most threads and open files of this process, looked at five times a second."""

    def __init__(self) -> None:
        self.threads = self.files = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """No more looking."""
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.over.wait(0.2):
            self.threads = max(self.threads, threading.active_count())
            self.files = max(self.files, len(os.listdir("/proc/self/fd")))


if __name__ == "__main__":
    import json

    print(json.dumps(measure(), indent=1))
