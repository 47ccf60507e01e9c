"""What a person watches while a sweep runs: trials done, running, failed; the front; time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from analysis.front import front
from ermgap.config import METRICS
from ermgap.records import Records, Trial
from sweeps.recording.seen import Seen

QUIET_S = 30.0  # between two lines where the terminal cannot be overwritten


class Progress:
    """Prints one line that changes (on a terminal), and a lasting line for each trial that ends.

    Args:
        records: of the sweep.
        trials: how many the sweep has in all.
        epochs: the budget of each.
    """

    def __init__(self, records: Records, *, trials: int, epochs: int) -> None:
        self.seen, self.trials, self.epochs = Seen(records), trials, epochs
        self.seen.catch_up()
        self.before = {trial.trial_id for trial in self.seen.trials() if trial.ended}
        self.told: set[str] = set()
        self.first_epoch: float | None = None
        self.spoke = 0.0
        self.line = ""

    def update(self, status: Mapping) -> None:
        """Show the broker's status."""
        if new := [trial_id for trial_id in status["ended"] if trial_id not in self.told]:
            self.seen.catch_up()  # of what is new: all rows of a long sweep are hundreds of MB
            info = front.info(self.seen)
            trials = {trial.trial_id: trial for trial in self.seen.trials()}
            for trial_id in new:
                self._say(self._ended(trials[trial_id], info))
            self.told.update(new)
        line = self._now(status)
        if sys.stdout.isatty():
            print(f"\r\033[K{line}", end="", flush=True)
        elif line != self.line and time.monotonic() - self.spoke > QUIET_S:
            self._say(line)
        self.line = line

    def finish(self) -> None:
        """Leave the cursor on a fresh line."""
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)

    def _say(self, line: str) -> None:
        self.spoke = time.monotonic()
        print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)

    def _ended(self, trial: Trial, info: front.FrontInfo) -> str:
        head = f"{trial.trial_id} {trial.status:<10}"
        if trial.status == "failed":
            return f"{head} {trial.reason}"
        numbers = "  ".join(
            show(name, trial.selected.get(name)) for name in ("acc", "w_f1", "max_gap")
        )
        points = len(info.front)
        return (
            f"{head} {numbers}  {_words(trial.hyperparameters)}  | front {points}, hypervolume "
            f"{info.hypervolume:.3f}"
        )

    def _now(self, status: Mapping) -> str:
        ended = list(status["ended"].values())
        done = len(self.before) + len(ended)
        failed = ended.count("failed")
        running = ", ".join(self._group(group, status) for group in status["held"].values())
        parts = [f"{done}/{self.trials} trials", f"{failed} failed" if failed else "", running]
        if not status["running"]:
            parts += [
                f"{slot}: {note}" for slot, note in status["notes"].items() if note != "ready"
            ]
        return " · ".join(part for part in [*parts, self._left(status, done)] if part)

    def _group(self, names: Sequence[str], status: Mapping) -> str:
        """A slot's configurations, by epoch: a gang in its reports may be at two."""
        epochs: dict[int, list[str]] = {}
        for name in names:
            epochs.setdefault(status["running"][name], []).append(name)
        return ", ".join(f"{'+'.join(n)} epoch {e}/{self.epochs}" for e, n in epochs.items())

    def _left(self, status: Mapping, done: int) -> str:
        epochs = len(status["ended"]) * self.epochs + sum(status["running"].values())
        if self.first_epoch is None and status["running"]:
            self.first_epoch = time.monotonic()
        if not epochs or self.first_epoch is None:
            return ""
        each = (time.monotonic() - self.first_epoch) / epochs
        left = ((self.trials - done) * self.epochs - sum(status["running"].values())) * each
        return (
            f"about {left / 60:.0f} min left" if left > 90 else f"about {max(left, 0):.0f} s left"
        )


def show(name: str, value: float | None) -> str:
    """A metric's name and value, as a person reads it."""
    return f"{name} {'undefined' if value is None else METRICS[name].text(value)}"


def _words(hyperparameters: Mapping) -> str:
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in hyperparameters.items()
    )
