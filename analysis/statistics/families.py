"""Fronts by loss: does one family of configurations reach what the others do not?

    compared = families(info, records)       # a Family per loss with usable trials
    print(sentences(compared, info))

Each family's front is of its own trials alone. A hypervolume grows with the number of trials, and a
search gives more of them to what does well; so it is also given for as many trials as the rarest
family has, drawn at random. The standard error is over dev speakers resampled within language and
side, the same for all families (`analysis.statistics.speaker_sums`); which trials there are, and
their seeds, is not resampled.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.front import FrontInfo, Point, front
from analysis.statistics import uncertainty
from ermgap.config import losses
from ermgap.records import Records

RESAMPLES = 400
MOST = 60  # trials nearest to a family's front, of which its resampled front is made


@dataclass(frozen=True, eq=False)
class Family:
    """The usable trials of one loss.

    Attributes:
        loss, title: its name in hyperparameters and in pictures.
        points: all usable trials. front: those that no other of the family beats.
        hypervolume: normalised, as `FrontInfo.hypervolume`.
        even: mean hypervolume of `n_even` of the trials, drawn at random without replacement.
        drawn: the hypervolume on each resample of the speakers, [RESAMPLES]; NaN without
            predictions.
    """

    loss: str
    title: str
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    hypervolume: float
    even: float
    n_even: int
    drawn: np.ndarray

    @property
    def se(self) -> float:
        """Standard error of the hypervolume over speakers."""
        return float(self.drawn.std(ddof=1))

    @property
    def measured(self) -> str:
        """The hypervolume with its standard error, where it has one."""
        return f"{self.hypervolume:.3f}{_pm(self.se)}"


def families(info: FrontInfo, records: Records) -> list[Family]:
    """Every loss that has usable trials, in the order of `ermgap.config.losses`, then by name.

    Empty where fewer than two have some: there is nothing to compare.
    """
    present = {str(p.hyperparameters.get("loss")) for p in info.points if p.eligible}
    built_in = [loss for loss in losses.LOSSES if loss in present]
    order = [*built_in, *sorted(present - set(built_in))]
    if len(order) < 2:
        return []
    members: dict[str, list[Point]] = {loss: [] for loss in order}
    for point in info.points:
        if point.eligible:
            members[str(point.hyperparameters.get("loss"))].append(point)
    fewest = min(map(len, members.values()))
    return [_family(loss, points, info, records, fewest) for loss, points in members.items()]


def outside(family: Family, others: list[Family], info: FrontInfo) -> int:
    """How many points of `family`'s front no point of any of the `others` beats or equals."""
    mine = info.scores(family.front)
    theirs = info.scores([point for other in others for point in other.front])
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in info.directions])
    covered = ((theirs * signs)[None] >= (mine * signs)[:, None]).all(-1).any(1)
    return int((~covered).sum())


def sentences(compared: list[Family], info: FrontInfo) -> list[str]:
    """Each family's hypervolume beside its best rival's, with the difference and its error."""
    lines = []
    for family in compared:
        rivals = [other for other in compared if other is not family]
        best = max(rivals, key=lambda other: other.hypervolume)
        change = f"{family.hypervolume - best.hypervolume:+.3f}".replace("-", "−")
        error = float((family.drawn - best.drawn).std(ddof=1))
        n, even = len(family.points), ""
        if n > family.n_even:
            even = f" ({family.even:.3f} for {family.n_even} of them, at random)"
        lines.append(
            f"{family.title}: {n} trial{'s' * (n != 1)}, hypervolume {family.measured}{even}, "
            f"{change}{_pm(error)} against {best.title}, the best of the others; "
            f"{outside(family, rivals, info)} of its {len(family.front)} front points lie "
            "outside all other fronts."
        )
    return lines


def _pm(error: float) -> str:
    return f" ± {error:.3f}" if np.isfinite(error) else ""


def _family(
    loss: str, points: Sequence[Point], info: FrontInfo, records: Records, n_even: int
) -> Family:
    values = info.scores(points)
    kept = front.non_dominated(values, directions=info.directions)
    rng = np.random.default_rng(0)
    few = (rng.choice(len(values), n_even, replace=False) for _ in range(RESAMPLES))
    return Family(
        loss,
        losses.LOSSES[loss].title if loss in losses.LOSSES else loss,
        tuple(points),
        tuple(itertools.compress(points, kept)),
        info.volume(values),
        float(np.mean([info.volume(values[rows]) for rows in few])),
        n_even,
        _drawn(replace(info, points=tuple(points)).best(MOST), info, records),
    )


def _drawn(points: Sequence[Point], info: FrontInfo, records: Records) -> np.ndarray:
    """Hypervolume of these trials' front on each resample, [RESAMPLES]."""
    if set(info.objectives) != {"acc", "max_gap"}:
        return np.full(RESAMPLES, np.nan)
    sums, missing = uncertainty.speaker_sums(records, [point.trial_id for point in points])
    if sums is None or missing:  # volumes without their errors are better than none
        return np.full(RESAMPLES, np.nan)
    values = sums.objectives(info.objectives, resamples=RESAMPLES)
    return np.array([info.volume(value) for value in values])
