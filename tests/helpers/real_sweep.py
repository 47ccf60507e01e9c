"""Real sweeps as processes, for tests that look at them from outside and break them.

    with RealSweep(folder, "pareto.py", "--smoke-test", "--out", "out") as sweep:
        sweep.until(lambda: sweep.last_epoch("t0000") >= 1)
        kill(*sweep.workers())
        assert sweep.ends() == 0

Only processes that descend from the command are ever looked at or ended, each by its own id: other
Ray sessions of the same user are left alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from ermgap.records import Records, Trial

ROOT = Path(__file__).resolve().parents[2]
WORKER = "RayTrainWorker"  # in the title of every process that trains
LIMIT_S = 240.0
SMOKE_TRIALS = 12


class RealSweep:
    """A command of `sweeps/` in a session of its own, and every process that it ever started.

    Args:
        folder: working directory; the output folder is `folder / "out"`.
        command: file name in sweeps/.
        arguments: of the command.
    """

    def __init__(self, folder: Path, command: str, *arguments: str) -> None:
        self.out = folder / "out"
        self.log = folder / "log.txt"
        self.family: dict[int, psutil.Process] = {}
        self.trainers: set[int] = set()
        self.closing = threading.Event()
        self.status: int | None = None
        self.outlived: list[str] = []
        with open(self.log, "ab") as log:
            self.start = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "sweeps" / command), *arguments],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT), "ERMGAP_TEST": str(folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.driver = psutil.Process(self.process.pid)
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> RealSweep:
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs, by process id."""
        self.look()
        self.closing.set()
        kill(*alive([self.driver, *self.family.values()]))
        self.process.wait()

    # What it says -------------------------------------------------------------------------------

    @property
    def said(self) -> str:
        """Everything printed by this command, both streams."""
        return self.log.read_bytes()[self.start :].decode(errors="replace")

    def rows(self) -> list[dict]:
        """The committed rows of the folder."""
        return rows(self.out)

    def last_epoch(self, trial_id: str) -> int:
        """The last committed epoch of a trial; 0 before the first."""
        return max((r["epoch"] for r in self.rows() if r["trial_id"] == trial_id), default=0)

    # How it goes --------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition; fails with the output if the command ends first or takes long."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, f"it ended too early:\n{self.said}"
            assert time.monotonic() < end, f"waited {LIMIT_S:.0f} s in vain:\n{self.said}"
            time.sleep(0.02)

    def ends(self) -> int:
        """Wait for the end; returns the exit status."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {LIMIT_S:.0f} s:\n{self.said}") from None

    def interrupt(self) -> None:
        """Ctrl-C: the signal goes to the whole group, as a terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def crash(self) -> None:
        """The driver dies at once; its Ray session then dies by itself or is ended here by id."""
        self.look()
        kill(self.driver)
        self.process.wait()
        gone(self.family.values(), seconds=3)
        kill(*alive(self.family.values()))

    def workers(self) -> list[psutil.Process]:
        """The processes that train now."""
        self.look()
        return [process for process in alive(self.family.values()) if WORKER in title(process)]

    def left_over(self, seconds: float = 20) -> list[str]:
        """Titles of the processes that this sweep started and that outlive it by `seconds`."""
        return [title(process) for process in gone(self.family.values(), seconds=seconds)]

    def look(self) -> None:
        """Note every process below the driver, which forgets them when it dies."""
        try:
            for process in self.driver.children(recursive=True):
                self.family.setdefault(process.pid, process)
                if WORKER in title(process):
                    self.trainers.add(process.pid)
        except psutil.NoSuchProcess:
            pass

    def _watch(self) -> None:
        while not self.closing.wait(0.25) and self.process.poll() is None:
            self.look()


def options(*, plugin: str, settings: Iterable[str], epochs: int) -> list[str]:
    """Options that add a plugin of tests/plugins and settings to a command line.

    Of the named trials there are ERM and the paper's alone.
    """
    plugins = f"plugins=[{ROOT / 'tests' / 'plugins' / plugin}]"
    every = (plugins, f"train.epochs={epochs}", "sweep.third_trial={}")
    return [word for setting in (*every, *settings) for word in ("--set", setting)]


def rows(folder: Path) -> list[dict]:
    """The rows of `trials.jsonl`; a last line that is being written is left out."""
    path = folder / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def rows_of(every: Iterable[dict], trial_id: str) -> list[dict]:
    """The rows of trained epochs of one trial (the first row only says that it was offered)."""
    return [row for row in every if row["trial_id"] == trial_id and "dev" in row]


def title(process: psutil.Process) -> str:
    """The command line of a process; Ray writes there what a worker does."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that run (a zombie has ended; a reused id is another process)."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in list(processes) if runs(process)]


def gone(processes: Iterable[psutil.Process], *, seconds: float) -> list[psutil.Process]:
    """Wait until all have ended; returns those that have not."""
    end = time.monotonic() + seconds
    while (left := alive(processes)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def kill(*processes: psutil.Process) -> None:
    """SIGKILL, by process id."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass


class Ended:
    """What a sweep left that came to its end: status, words, rows, trials by their loss."""

    def __init__(self, sweep: RealSweep, *, status: int) -> None:
        self.status, self.said, self.out = status, sweep.said, sweep.out
        self.rows = sweep.rows()
        trials = Records.open(sweep.out).trials()
        self.trials: dict[str, Trial] = {trial.hyperparameters["loss"]: trial for trial in trials}
        self.left_over = sweep.left_over()


def smoke_sweep(folder: Path) -> RealSweep:
    """The sweep that test_smoke.py and test_slots.py look at: `--smoke-test` with 12 trials.

    `folder / "out"` is a finished sweep already, so the results lie in `folder / "out-2"`.
    """
    earlier = folder / "out"
    earlier.mkdir()
    (earlier / "sweep.yaml").write_text("config: {}\n")
    (earlier / "DONE").touch()
    with RealSweep(
        folder, "pareto.py", "--smoke-test", "--trials", str(SMOKE_TRIALS), "--out", "out"
    ) as sweep:
        sweep.out = folder / "out-2"
        sweep.status, sweep.outlived = sweep.ends(), sweep.left_over()
    return sweep
