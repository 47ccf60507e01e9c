"""Searchers of Ray Tune that do not search: named points, one configuration, a slow start."""

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


class LimitedStart(Stateless):
    """Passes a searcher's proposals on, at first no more at a time than there are slots.

    The process of a Tune trial that could only wait would slow the start of those that train.

    Args:
        searcher: makes the proposals.
        slots: proposals at a time until `started` is set.
    """

    def __init__(self, searcher: Searcher, *, slots: int) -> None:
        super().__init__()
        self.source, self.slots = searcher, slots
        self.live, self.started = 0, False

    def suggest(self, trial_id: str) -> dict | str | None:
        """The searcher's next proposal; None: not now."""
        if not self.started and self.live >= self.slots:
            return None
        proposal = self.source.suggest(trial_id)
        self.live += proposal not in (Searcher.FINISHED, None)
        return proposal

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Pass the broker's outcome on, or that Tune's trial itself failed."""
        self.live -= 1
        outcomes = (result or {}).get("outcomes")
        self.source.on_trial_complete(trial_id, outcomes[0] if outcomes else None, error)


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
