"""What a person sees of a running sweep: a table that is redrawn in place, or lines in a log.

watch = Progress(records, trials=12, epochs=10)
watch.update(status)      # the broker's, again and again
watch.finish()            # before anything else is printed
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from analysis.front import front
from ermgap.config import METRICS
from sweeps.recording.live_records import LiveRecords

if TYPE_CHECKING:
    from ermgap.records import Records, Trial

QUIET_S = 30.0  # between two lines of a log without an event
WIDE = 100  # columns of a terminal from which on all hyperparameters are shown
FRAME = 7  # lines of the table that are no trial: heading, bar, notes
SCORES = {"acc": "acc", "max_gap": "max gap"}  # those shown, with their headings
STYLES = {"running": "cyan", "failed": "red", "stopped": "dim", "degenerate": "dim"}


class Progress:
    """Shows a table on a terminal; elsewhere prints a line for each trial that ends.

    Args:
        records: of the sweep.
        trials: how many the sweep has in all.
        epochs: the budget of each.
        console: where to show it; by default standard output.
    """

    def __init__(
        self, records: Records, *, trials: int, epochs: int, console: Console | None = None
    ) -> None:
        self.records, self.trials, self.epochs = LiveRecords(records), trials, epochs
        self.console = console or Console(force_terminal=sys.stdout.isatty(), highlight=False)
        self.records.catch_up()
        self.ended_before = sum(trial.ended for trial in self.records.trials())
        self.info = front.info(self.records)
        self.shown: set[str] = set()  # trials that ended since, and were shown
        self.first_epoch: float | None = None  # since when epochs are timed
        self.printed = 0.0
        self.line = ""
        self.live: Live | None = None

    def update(self, status: Mapping) -> None:
        """Show the broker's status."""
        if new := [trial_id for trial_id in status["ended"] if trial_id not in self.shown]:
            self.records.catch_up()  # of what is new: all rows of a long sweep are hundreds of MB
            self.info = front.info(self.records)
            self.shown.update(new)
        if self.console.is_interactive:
            self._redraw(status, new)
        else:
            self._print_lines(status, new)

    def finish(self) -> None:
        """Leave the whole table on the terminal, and the cursor below it."""
        if self.live is None:
            return
        live, self.live = self.live, None
        with suppress(OSError):  # a terminal that was closed
            live.stop()
            if trials := self.records.trials():
                ordered = sorted(trials, key=lambda trial: trial.trial_id)
                self.console.print(self._table(ordered))

    def _redraw(self, status: Mapping, new: Iterable[str]) -> None:
        self.records.catch_up()
        if self.live is None:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()
            self.console.show_cursor(True)  # whatever ends this process leaves a cursor
        trials = {trial.trial_id: trial for trial in self.records.trials()}
        for trial_id in new:
            if (trial := trials[trial_id]).status == "failed":
                self.console.print(Text(f"{trial_id} failed: {trial.reason}", style="red"))
        bar = Table.grid(padding=(0, 1))
        total = self.trials * self.epochs
        bar.add_row(
            ProgressBar(total=total, completed=total - self._epochs_to_go(status), width=24),
            self._counts(status),
        )
        shown = self._fitting(trials, set(status["running"]))
        omitted = f"{len(trials) - len(shown)} more ended" if len(trials) > len(shown) else ""
        lines = [bar, *map(Text, filter(None, [omitted, *self._preparing(status)]))]
        table = self._table(shown, status["running"])
        self.live.update(Group(table, *lines) if shown else Group(*lines), refresh=True)

    def _fitting(self, trials: Mapping[str, Trial], running: set[str]) -> list[Trial]:
        """As many trials as the terminal has lines for: those running, the front, the newest."""
        first = running | {point.trial_id for point in self.info.front}
        order = sorted(trials, key=lambda trial_id: (trial_id in first, trial_id), reverse=True)
        kept = order[: max(self.console.height - FRAME, len(running), 3)]
        return [trials[trial_id] for trial_id in sorted(kept)]

    def _table(self, trials: Iterable[Trial], running: Mapping[str, int] | None = None) -> Table:
        """A row a trial; those of `running` have its epoch, those on the front a star."""
        wide = self.console.width >= WIDE
        table = Table(
            box=None,
            expand=wide,
            padding=(0, 1, 0, 0),
            caption=f"* on the front ({len(self.info.front)} trials), "
            f"hypervolume {self.info.hypervolume:.3f}",
            caption_justify="left",
        )
        numbers = ["epoch", *(f"{title} {METRICS[name].unit}" for name, title in SCORES.items())]
        for name in ("", "trial", "loss", "fairness weight", *numbers, "status"):
            right = name in numbers
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        if wide:
            table.add_column("other hyperparameters", no_wrap=True, ratio=1)
        on_front = {point.trial_id for point in self.info.front}
        for trial in trials:
            status = trial.status
            if not trial.ended and trial.trial_id not in (running or ()):
                status = "unfinished" if running is None else "waiting"
            epoch = (running or {}).get(trial.trial_id, trial.epoch)
            scores = [_score(trial, name) for name in SCORES]
            others = [f"{name}={_plain(value)}" for name, value in trial.hyperparameters.items()
                      if name not in ("loss", "lambda_max", "schedule")]  # fmt: skip
            cells = ["*" if trial.trial_id in on_front else "", trial.trial_id, *_loss(trial)]
            cells += [f"{epoch}/{self.epochs}", *scores, status]
            cells += [" ".join(others)] if wide else []
            style = "bold" if trial.trial_id in on_front else STYLES.get(status)
            table.add_row(*map(Text, cells), style=style)
        return table

    def _print_lines(self, status: Mapping, new: Iterable[str]) -> None:
        trials = {trial.trial_id: trial for trial in self.records.trials()} if new else {}
        lines = [self._ended(trials[trial_id]) for trial_id in new]
        running = [
            f"{name} epoch {n}/{self.epochs}" for name, n in sorted(status["running"].items())
        ]
        line = " · ".join([self._counts(status), *running, *self._preparing(status)])
        if not lines and line != self.line and time.monotonic() - self.printed > QUIET_S:
            lines = [line]
        self.line = line
        if lines:
            self.printed = time.monotonic()
            print(*lines, sep="\n", flush=True)

    def _ended(self, trial: Trial) -> str:
        head = f"{trial.trial_id} {trial.status} epoch {trial.epoch}"
        if trial.status == "failed":
            return f"{head}: {trial.reason}"
        scores = " ".join(
            f"{title} {_score(trial, name)} {METRICS[name].unit}" for name, title in SCORES.items()
        )
        on_front = any(point.trial_id == trial.trial_id for point in self.info.front)
        loss = " ".join(part for part in _loss(trial) if part != "-")
        return f"{head} {scores} {loss}" + ", on the front" * on_front

    def _preparing(self, status: Mapping) -> list[str]:
        """What the worker groups do before anything trains."""
        notes = {} if status["running"] else status["notes"]
        return [f"{slot}: {note}" for slot, note in notes.items() if note != "ready"]

    def _counts(self, status: Mapping) -> str:
        failed = list(status["ended"].values()).count("failed")
        done = self.ended_before + len(status["ended"])
        parts = [f"{done}/{self.trials} trials", f"{failed} failed" if failed else ""]
        return " · ".join(filter(None, [*parts, self._time_left(status)]))

    def _epochs_to_go(self, status: Mapping) -> int:
        trials = self.trials - self.ended_before - len(status["ended"])
        return trials * self.epochs - sum(status["running"].values())

    def _time_left(self, status: Mapping) -> str:
        epochs = len(status["ended"]) * self.epochs + sum(status["running"].values())
        if self.first_epoch is None and status["running"]:
            self.first_epoch = time.monotonic()
        if not epochs or self.first_epoch is None:
            return ""
        seconds_each = (time.monotonic() - self.first_epoch) / epochs
        seconds = max(self._epochs_to_go(status), 0) * seconds_each
        return f"about {f'{seconds / 60:.0f} min' if seconds > 90 else f'{seconds:.0f} s'} left"


def _score(trial: Trial, name: str) -> str:
    """A metric at the selected epoch without its unit; "-" where it is undefined."""
    value = trial.selected.get(name)
    return "-" if value is None or math.isnan(value) else METRICS[name].text(value)


def _loss(trial: Trial) -> tuple[str, str]:
    """The loss, and its fairness weight with the schedule."""
    given = trial.hyperparameters
    weight = (_plain(given[name]) for name in ("lambda_max", "schedule") if name in given)
    return str(given.get("loss", "-")), " ".join(weight) or "-"


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
