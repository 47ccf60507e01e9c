"""A sweep from the options of its command to its report: what `pareto` and `train` share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ermgap.config import Config
from ermgap.errors import UserError, first_line, in_shell
from sweeps.setup import folders

if TYPE_CHECKING:  # pandas: half a second
    import pandas as pd

    from ermgap.records import Records
    from sweeps.recording.timing import Session


def run(
    given: argparse.Namespace,
    *,
    kind: str,
    require: Callable,
    make_searcher: Callable | None = None,
) -> int:
    """Run a sweep from the parsed options to its report; returns the exit status.

    Args:
        given: the options.
        kind: of the folder, sweep or train.
        require: raises UserError where (config, address) cannot run.
        make_searcher: see `driver.run`.
    """
    from sweeps.scheduler import driver
    from sweeps.scoring import confirm

    def check(config: Config, utterances: pd.DataFrame) -> None:
        confirm.require(given.confirm, given.folds, config, utterances, folder=given.resume)
        if not given.resume:
            require(config, given.address)

    def ready(config: Config, folder: Path, storage: str | None) -> None:
        driver.make_ready(config, given.address, folder, storage, trials=config.sweep.trials)

    if not given.dry_run:
        driver.begin(given.address)
    prepared = folders.prepare(given, kind=kind, check=check, ready=ready)
    if prepared is None:
        return 0
    (config, records), address = prepared, given.address
    session = driver.run(
        config, records, address=address, make_searcher=make_searcher, leave=not given.confirm
    )
    if kind == "sweep":
        make_dial(config, records, session, address=address)
    status = finish(config, records, session, command="pareto" if kind == "sweep" else kind)
    if status or not given.confirm:
        return status
    return confirm.run(records, config, seeds=given.confirm, folds=given.folds, address=address)


def require(config: Config, address: str | None) -> None:
    """UserError for a space that cannot be searched, or for devices that do not suffice."""
    from sweeps.scheduler import driver
    from sweeps.search import searcher  # imports Optuna and torch: only now

    searcher.require_space(config)
    driver.require_devices(config, address)


def make_dial(config: Config, records: Records, session: Session, *, address: str | None) -> None:
    """Make the dial of a sweep of which every trial has ended; it hinders no report.

    Ctrl-C leaves the sweep to `--resume`, which goes on with the dial.
    """
    from sweeps.scoring import dial

    begun = time.monotonic()
    ended = sum(trial.ended for trial in records.trials())
    unfinished = session.interrupted or ended < config.sweep.trials
    if unfinished or not config.sweep.dial or config.sweep.points:
        return
    try:
        lines = dial.affordable(records, dial.default_lines(records))
        if not lines:
            print("no dial: it needs an ERM and a fairness trial that can be compared")
        dial.require(records, lines)
        dial.make(records, config, lines, address=address)
    except (UserError, RuntimeError) as problem:  # the latter of torch, for want of memory
        print(f"no dial: {first_line(problem)}")
    except KeyboardInterrupt:
        session.interrupted = True
    session.dial = time.monotonic() - begun


def finish(config: Config, records: Records, session: Session, *, command: str) -> int:
    """Write front, report and where the time went, and `DONE` if all trials have ended."""
    from analysis import report
    from ermgap.records import bucket_mirror, file_names
    from sweeps.recording import timing
    from sweeps.scoring import tables
    from sweeps.search import journal, stopping

    folder = records.directory
    stopped = f"stopped; continue with: python sweeps/{command}.py --resume {in_shell(folder)}"
    if session.interrupted and not any("dev" in row for row in records.rows()):  # no report of it
        print(stopped)
        return 130
    records.consolidate()
    stopping.write_hindsight(records, config)
    report.write(folder)
    journal.write(records, config)
    if config.sweep.points:
        tables.write_points(config, records)
    timing.tell(records, session)
    ended = sum(trial.ended for trial in records.trials())
    if session.interrupted or ended < config.sweep.trials:
        print(stopped)
        return 130 if session.interrupted else 1
    bucket_mirror.mark_done(records)
    print(f"watch: tensorboard --logdir {in_shell(folder / 'tb')}")
    print(f"       optuna-dashboard {in_shell(folder / file_names.STUDY)}")
    return 0
