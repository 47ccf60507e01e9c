"""Which loss a proposal gets, and on which trunk it branches.

ERM gets its share of the trials, every other loss equally many. With `sweep.trunks` the ERM trials
come first, and every other trial has the optimiser and the adapter of one of the best of them: with
a schedule that begins later it branches from that trial (branches.py), and it is compared with it
at equal settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ermgap.config import Config
from ermgap.records import COMPLETE
from sweeps.search import space


class Shares:
    """Number of trials of each loss in a sweep, and what the next proposal is given.

    Left to the sampler, half of a short sweep's first draws would be ERM.

    Args:
        config: of the sweep.

    Attributes:
        proposed: number of trials by loss, of all that were proposed, however they ended.
        trunks: accuracy and hyperparameters of every ERM trial that has ended well, best first.
    """

    def __init__(self, config: Config) -> None:
        searched = space.distributions(config)
        self.losses = searched["loss"].choices if "loss" in searched else ()
        self.loss, self.sweep = config.objective.loss, config.sweep
        self.proposed: Counter[str] = Counter()
        self.trunks: list[tuple[float, dict]] = []
        self.made: list[dict] = []
        self.shared = {  # the searched hyperparameters that a branch has of its trunk
            name: distribution
            for name, distribution in searched.items()
            if not space.SPACE[name].key.startswith("objective.")
        }
        first = space.named_points(config)[:1] if self.sweep.trunks else []
        self.first = [point for point in first if self._serves(point)]

    def _serves(self, hyperparameters: Mapping) -> bool:
        """Whether others may have the settings of an ERM trial: a range may exclude the first's."""
        return all(space.contains(d, hyperparameters[name]) for name, d in self.shared.items())

    def count(self, hyperparameters: Mapping) -> None:
        """A trial is proposed."""
        self.proposed[hyperparameters.get("loss", self.loss)] += 1
        self.made.append(dict(hyperparameters))

    def learn(self, hyperparameters: Mapping, status: str, measured: Mapping) -> None:
        """A trial has ended; `measured` holds its dev scores."""
        erm = hyperparameters.get("loss", self.loss) == "erm"
        if self.sweep.trunks and erm and status in COMPLETE and self._serves(hyperparameters):
            self.trunks.append((float(measured["acc"]), dict(hyperparameters)))
            self.trunks.sort(key=lambda trunk: -trunk[0])

    def fixed(self, number: int) -> dict:
        """The hyperparameters that the sweep's `number`-th proposal is given: loss, and trunk's."""
        given = self._loss()
        if not self.sweep.trunks or given.get("loss", self.loss) == "erm":
            return given
        best = [trunk for _, trunk in self.trunks[: self.sweep.trunks]]
        if not (best := best or self.first):  # which may be running yet
            return given
        trunk = best[number % len(best)]
        full = given | {name: trunk[name] for name in self.shared}
        # A loss without hyperparameters of its own would be trained again as it was.
        return given if full in self.made else full

    def _loss(self) -> dict[str, str]:
        """The loss of the next proposal; nothing where the sweep does not choose between losses.

        ERM while it has less than its share, so that the baseline is tuned too; else the loss of
        which there are fewest, in turn where there are several.
        """
        if len(self.losses) < 2:
            return {}
        others = [loss for loss in self.losses if loss != "erm"]
        total = self.proposed.total()
        due = self.proposed["erm"] < (
            max(self.sweep.trunks, self.sweep.erm_share * self.sweep.trials)
            if self.sweep.trunks
            else self.sweep.erm_share * (total + 1)
        )
        if "erm" in self.losses and (due or not others):
            return {"loss": "erm"}
        turn = total % len(others)
        return {"loss": min(others[turn:] + others[:turn], key=self.proposed.__getitem__)}
