"""Searchers of Ray Tune that do not search: named points, one configuration, gangs of proposals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ray.tune.search import Searcher

from ermgap.records import Trial
from sweeps.search import order


class Stateless(Searcher):
    """A searcher that Tune need not save: the records are its state."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""


class Together(Stateless):
    """Several proposals in one Tune trial: a gang costs one process then, not one a member.

    Args:
        one: proposes each; `interrupted` is its own.
        gang: proposals in a Tune trial.
        trials: proposals in all.
        slots: Tune trials to begin with. More come when `ahead` is set: the process of one that
            could only wait would slow the start of those that train.
    """

    def __init__(self, one: Searcher, *, gang: int, trials: int, slots: int | None = None) -> None:
        super().__init__()
        self.one, self.gang, self.left, self.slots = one, gang, trials, slots
        self.live, self.ahead = 0, slots is None

    def suggest(self, trial_id: str) -> dict | str | None:
        """`{"proposals": [...]}`, up to a gang of them; None: not now."""
        if not self.ahead and self.live >= self.slots:
            return None
        proposals, proposal = [], Searcher.FINISHED
        while len(proposals) < min(self.gang, self.left):
            proposal = self.one.suggest(f"{trial_id}-{len(proposals)}")
            if proposal in (Searcher.FINISHED, None):
                break
            proposals.append(proposal)
        if not proposals:
            return proposal
        self.left -= len(proposals)
        self.live += 1
        return {"proposals": proposals}

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Pass each outcome on; all have failed where Tune's trial itself did."""
        self.live -= 1
        outcomes = (result or {}).get("outcomes", [])
        for number in range(self.gang):
            outcome = outcomes[number] if number < len(outcomes) else None
            self.one.on_trial_complete(f"{trial_id}-{number}", outcome, error)


class PointsSearcher(Stateless):
    """Proposes named points in their order, and no other; the k-th is the trial `t000k`.

    Args:
        points: hyperparameters of each.
        trials: the sweep's trials so far; those that have ended are not proposed again.
    """

    def __init__(self, points: Iterable[Mapping], trials: Sequence[Trial] = ()) -> None:
        super().__init__()
        self.interrupted = False
        ended = {trial.trial_id for trial in trials if trial.ended}
        self.remaining = [
            {"trial_id": order.trial_id(number), "hyperparameters": dict(point)}
            for number, point in enumerate(points)
            if order.trial_id(number) not in ended
        ]

    def suggest(self, trial_id: str) -> dict | str:
        """The next point, then no more."""
        if self.interrupted or not self.remaining:
            return Searcher.FINISHED
        return self.remaining.pop(0)

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Nothing to learn."""
