"""Train one configuration: a slot with one job, with the records, events and pictures of a sweep.

    python sweeps/train.py --preset small --data emodb=PATH --set objective.loss=minmaxgap \\
        --set objective.weight=linear --set objective.lambda_max=0.1
"""

from __future__ import annotations

from collections.abc import Sequence

from ermgap.config import Config
from ermgap.errors import command_line
from sweeps import cli, pareto


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    given = cli.parse(cli.options(__doc__.splitlines()[0], many=False), arguments)
    given.settings.append("sweep.trials=1")
    if given.resume:
        given.settings.pop()
    return pareto.carry_out(given, kind="train", require=require, wanted=single)


def require(config: Config, address: str | None) -> None:
    """UserError for an objective that is not registered, or for devices that are missing."""
    from ermgap import objective  # imports torch: only now
    from sweeps import driver

    objective.require(config.objective)
    driver.require_devices(config, address)


def single(config: Config, trials):
    """A searcher that proposes the configuration itself, once."""
    from sweeps import proposals

    return proposals.SingleSearcher(config, trials)


if __name__ == "__main__":
    command_line(main)
