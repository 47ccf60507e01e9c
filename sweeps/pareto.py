"""Sweep fairness-weight schedules: accuracy against the largest gap of groups, as a Pareto front.

    python sweeps/pareto.py                                  # the demo: two CPU cores, minutes
    python sweeps/pareto.py --preset small --data emodb=PATH --data ravdess=PATH --trials 16
    python sweeps/pareto.py --resume results/demo            # after a crash, or with more --trials
    python sweeps/pareto.py --dry-run                        # counts only
    python sweeps/pareto.py --resume results/demo --confirm 5    # the front over seeds, and on test

Writes a folder of records (ermgap/records/sweep_records.py lists its files) with predictions,
adapters and TensorBoard events, and the pictures under analysis/plots/.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # not the folder of the command, which would shadow others' modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ermgap.errors import command_line
from sweeps.running import run_sweep
from sweeps.setup import command_line as cli


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    given = cli.parse(cli.options(__doc__.splitlines()[0], many=True), arguments)
    return run_sweep.run(given, kind="sweep", require=run_sweep.require)


if __name__ == "__main__":
    command_line(main)
