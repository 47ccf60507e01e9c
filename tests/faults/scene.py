"""A small sweep that something happens to, and what is left of it afterwards.

    scene = Scene(folder, random.Random(3))
    with scene.sweep() as run:
        scene.wait_for_its_moment(run)
        kill(*run.workers())
        scene.ends(run)
    print(scene.verdict())

`lost` counts trials that had ended and whose last row is gone or another one; `again` is the most
committed epochs of one trial that were trained a second time; `failed` counts failed trials.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from real_sweep import RealSweep, options

from ermgap.records import ENDED, Records

TRIALS, EPOCHS = 4, 4
SETTINGS = options(
    plugin="mishaps.py",
    settings=("train.batch=8", "train.patience=9", "sweep.slots=2"),
    epochs=EPOCHS,
)


class Scene:
    """One sweep of a fault's row in the table.

    Args:
        folder: empty; the sweep lies in `folder / "out"`.
        chance: draws the moment and whatever else is random.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance, self.out = folder, chance, folder / "out"
        self.before: list[dict] = []
        self.said: list[str] = []
        self.resumed = 0
        self.struck = time.monotonic()
        self.more: dict[str, object] = {}  # figures of the fault's own

    def sweep(self, *more: str, trials: int = TRIALS) -> RealSweep:
        """Start the sweep, or go on with it."""
        if (self.out / "sweep.yaml").exists():
            self.resumed += 1
            return RealSweep(self.folder, "pareto.py", "--resume", "out", *more)
        new = ("--smoke-test", "--trials", str(trials), "--out", "out", *SETTINGS)
        return RealSweep(self.folder, "pareto.py", *new, *more)

    def wait_for_its_moment(self, run: RealSweep, *, after: int = 1, within: float = 8.0) -> None:
        """Until `after` epochs are committed and a random while more; notes the rows of then."""
        run.until(lambda: sum("dev" in row for row in committed(self.out)) >= after)
        time.sleep(self.chance.uniform(0, within))
        assert run.process.poll() is None, f"it had ended before its moment:\n{run.said}"
        self.note()

    def note(self) -> None:
        """The fault strikes now: what has ended by now must not be lost."""
        self.before, self.struck = committed(self.out), time.monotonic()

    def ask_for(self, mishap: str) -> None:
        """Let tests/plugins/mishaps.py do it in some step that comes."""
        (self.folder / mishap).touch()

    def ends(self, run: RealSweep, *, well: bool = True) -> int:
        """Wait for the end; a status other than 0 is a failure of the scene if `well`."""
        status = run.ends()
        self.tell(run)
        assert "Traceback" not in run.said, run.said
        assert not well or status == 0, run.said
        return status

    def tell(self, run: RealSweep) -> None:
        """Keep the line in which the command says why it stopped."""
        lines = [line for line in run.said.splitlines() if line.startswith(("error:", "stopp"))]
        self.said += lines[-1:]

    def resume(self, *more: str) -> None:
        """Go on until the end, which has to be a good one."""
        with self.sweep(*more) as run:
            self.ends(run)
            assert run.left_over() == []

    def verdict(self) -> dict:
        """What the records tell of the whole story; fails if the sweep is not complete."""
        after, records = committed(self.out), Records.open(self.out)
        assert records.finished and not [t for t in records.trials() if not t.ended]
        final = {row["trial_id"]: row for row in after if row["status"] in ENDED}
        had = {row["trial_id"]: row for row in self.before if row["status"] in ENDED}
        trained = Counter((row["trial_id"], row["epoch"]) for row in after if "dev" in row)
        repeated: Counter = Counter()
        for (trial_id, _), times in trained.items():
            repeated[trial_id] += times - 1
        return {
            "how": f"after --resume ({self.resumed})" if self.resumed else "by itself",
            "said": self.said[0] if self.said else "",
            "ended_before": len(had),
            "lost": sum(final.get(name) != row for name, row in had.items()),
            "again": max(repeated.values(), default=0),
            "failed": sum(row["status"] == "failed" for row in final.values()),
            "trials": len(final),
            "seconds": round(time.monotonic() - self.struck, 1),
        } | self.more


def committed(folder: Path) -> list[dict]:
    """The rows of `trials.jsonl`; half-written lines are left out."""
    path = folder / "trials.jsonl"
    found = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return found


@contextmanager
def environment(**values: str):
    """Environment variables of what is started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
