"""Train one configuration, with the records, events and pictures of a sweep.

    python sweeps/train.py --preset small --data emodb=PATH --set objective.loss=minmaxgap \\
        --set objective.schedule=linear --set objective.lambda_max=0.1
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # not the folder of the command, which would shadow others' modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ermgap.config import Config
from ermgap.errors import command_line
from ermgap.records import Trial
from sweeps.running import run_sweep
from sweeps.setup import command_line as cli


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    given = cli.parse(cli.options(__doc__.splitlines()[0], many=False), arguments)
    if not given.resume:
        given.settings.append("sweep.trials=1")
    return run_sweep.run(given, kind="train", require=require, make_searcher=single)


def require(config: Config, address: str | None) -> None:
    """UserError for an objective or a device that does not exist."""
    from ermgap import objective  # imports torch: only now
    from sweeps.scheduler import driver

    objective.check_registered(config.objective)
    driver.require_devices(config, address)


def single(config: Config, trials: Sequence[Trial] = ()):
    """A searcher that proposes the configuration itself, once."""
    from sweeps.search import proposals

    point = {"loss": config.objective.loss, "schedule": config.objective.schedule}
    return proposals.PointsSearcher([point], trials)


if __name__ == "__main__":
    command_line(main)
