"""Sweep fairness-weight schedules: accuracy against the largest gender gap, as a Pareto front.

    python sweeps/pareto.py                                  # the demo: two CPU cores, minutes
    python sweeps/pareto.py --preset small --data emodb=PATH --data ravdess=PATH --trials 16
    python sweeps/pareto.py --resume results/demo            # after a crash, or with more --trials
    python sweeps/pareto.py --dry-run                        # counts only

Writes a folder of records (ermgap/records.py lists its files) with predictions, adapters and
TensorBoard events, and the pictures under analysis/plots/.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ermgap.config import Config
from ermgap.errors import command_line
from sweeps import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    given = cli.parse(cli.options(__doc__.splitlines()[0], many=True), arguments)
    prepared = cli.prepare(given, kind="sweep", check=lambda config: require(config, given))
    if prepared is None:
        return 0
    from sweeps import driver

    session = driver.run(prepared.config, prepared.records, address=given.address)
    return finish(prepared, interrupted=session.interrupted)


def require(config: Config, given: argparse.Namespace) -> None:
    """UserError for a space that cannot be searched, or for devices that do not carry it."""
    from sweeps import driver

    if not given.dry_run:
        driver.begin(given.address)
    from sweeps import search  # imports Optuna and torch: only now

    search.require_space(config)
    driver.require_devices(config, given.address)


def finish(prepared: cli.Prepared, *, interrupted: bool, command: str = "pareto") -> int:
    """Front, pictures and report; then `DONE`, unless something is left to run."""
    from analysis import report

    records, folder = prepared.records, prepared.records.directory
    records.consolidate()
    report.write(folder)
    ended = sum(trial.ended for trial in records.trials())
    if interrupted or ended < prepared.config.sweep.trials:
        print(f"stopped; go on with: python sweeps/{command}.py --resume {folder}")
        return 130 if interrupted else 1
    records.mark_done()
    print(f"watch: tensorboard --logdir {Path(folder) / 'tb'}")
    return 0


if __name__ == "__main__":
    command_line(main)
