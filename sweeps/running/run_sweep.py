"""From the parsed options of a command to its report: what `pareto` and `train` have in common.

status = carry_out(given, kind="sweep", require=require)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ermgap.config import Config
from ermgap.errors import in_shell
from sweeps.setup import folders

if TYPE_CHECKING:
    from sweeps.recording.timing import Session


def carry_out(
    given: argparse.Namespace, *, kind: str, require: Callable, wanted: Callable | None = None
) -> int:
    """From the parsed options to the report; returns the exit status.

    Args:
        given: the options.
        kind: of the folder, sweep or train.
        require: raises UserError for what (config, address) cannot carry.
        wanted: see `driver.run`.
    """
    from sweeps.scheduler import driver
    from sweeps.scoring import confirm

    seeds = getattr(given, "confirm", None)

    def check(config: Config) -> None:
        confirm.require(seeds, config)
        if not given.resume:
            require(config, given.address)

    def ready(config: Config, folder: Path, storage: str | None) -> None:
        driver.make_ready(config, given.address, folder, storage, left=config.sweep.trials)

    if not given.dry_run:
        driver.begin(given.address)
    prepared = folders.prepare(given, kind=kind, check=check, ready=ready)
    if prepared is None:
        return 0
    config, records, address = prepared.config, prepared.records, given.address
    session = driver.run(config, records, address=address, wanted=wanted, leave=not seeds)
    status = finish(prepared, session, command="pareto" if kind == "sweep" else kind)
    if status or not seeds:
        return status
    return confirm.run(records, config, seeds=seeds, address=address)


def require(config: Config, address: str | None) -> None:
    """UserError for a space that cannot be searched, or for devices that do not carry it."""
    from sweeps.scheduler import driver
    from sweeps.search import searcher  # imports Optuna and torch: only now

    searcher.require_space(config)
    driver.require_devices(config, address)


def finish(prepared: folders.Prepared, session: Session, *, command: str) -> int:
    """Front, pictures, report and where the time went; `DONE`, unless something is left to run."""
    from analysis import report
    from ermgap.records import bucket_mirror
    from sweeps.recording import timing
    from sweeps.scoring import tables
    from sweeps.search import journal, stopping

    records, folder = prepared.records, prepared.records.directory
    if session.interrupted and not any("dev" in row for row in records.rows()):  # no report of it
        print(f"stopped; go on with: python sweeps/{command}.py --resume {in_shell(folder)}")
        return 130
    records.consolidate()
    stopping.write_hindsight(records, prepared.config)
    report.write(folder)
    journal.write(records, prepared.config)
    if prepared.config.sweep.points:
        tables.tell_points(prepared.config, records)
    timing.tell(records, session)
    ended = sum(trial.ended for trial in records.trials())
    if session.interrupted or ended < prepared.config.sweep.trials:
        print(f"stopped; go on with: python sweeps/{command}.py --resume {in_shell(folder)}")
        return 130 if session.interrupted else 1
    bucket_mirror.seal(records)
    print(f"watch: tensorboard --logdir {in_shell(folder / 'tb')}")
    print(f"       optuna-dashboard {in_shell(folder / journal.FILE)}")
    return 0
