"""Which loss a proposal gets: ERM its share of the trials, every other loss equally many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ermgap.config import Config
from sweeps.search import space


class Shares:
    """Number of trials of each loss in a sweep, and the loss of the next proposal.

    Left to the sampler, half of a short sweep's first draws would be ERM.

    Args:
        config: of the sweep.

    Attributes:
        proposed: number of trials by loss, of all that were proposed, however they ended.
    """

    def __init__(self, config: Config) -> None:
        searched = space.distributions(config).get("loss")
        self.losses = () if searched is None else searched.choices
        self.loss, self.erm_share = config.objective.loss, config.sweep.erm_share
        self.proposed: Counter[str] = Counter()

    def count(self, hyperparameters: Mapping) -> None:
        """A trial is proposed."""
        self.proposed[hyperparameters.get("loss", self.loss)] += 1

    def fixed(self) -> dict[str, str]:
        """The loss of the next proposal; nothing where the sweep does not choose between losses.

        ERM while it has less than its share, so that the baseline is tuned too; else the loss of
        which there are fewest, in turn where there are several.
        """
        if len(self.losses) < 2:
            return {}
        others = [loss for loss in self.losses if loss != "erm"]
        total = self.proposed.total()
        due = self.proposed["erm"] < self.erm_share * (total + 1)
        if "erm" in self.losses and (due or not others):
            return {"loss": "erm"}
        turn = total % len(others)
        return {"loss": min(others[turn:] + others[:turn], key=self.proposed.__getitem__)}
