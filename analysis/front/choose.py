"""Which configuration to use: rules with names, each of which says why, or that nothing qualifies.

    for name, rule in RULES.items(): print(name, rule(info, found).sentence)
A rule is a function from `front.FrontInfo` and, where there is any, `evidence.Evidence` to a
`Choice`; adding one is one line in RULES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from analysis.front.front import FrontInfo, Point
from ermgap.config import METRICS

if TYPE_CHECKING:
    from analysis.statistics import Evidence, PointEvidence

EMPTY = "The front is empty: no finished trial is usable yet."
GAP_LIMITS = (0.05, 0.10, 0.15)  # fractions
LOSSES = (0.01, 0.02, 0.05)  # of accuracy against ERM, fractions


@dataclass(frozen=True)
class Choice:
    """What a rule chose: a trial id, or None and then the `nearest` trial that misses the rule."""

    rule: str
    trial_id: str | None
    sentence: str
    nearest: str | None = None


def scores(point: Point) -> str:
    """Accuracy and gap of a point in words, in percent and percentage points."""
    acc, gap = 100 * point.values["acc"], 100 * point.values["max_gap"]
    gap_text = f"a gap of {gap:.1f} points" if np.isfinite(gap) else "no defined gap"
    return f"accuracy {acc:.1f} % and {gap_text}"


def knee(info: FrontInfo, found: Evidence | None = None) -> Choice:
    """The point of the front that lies furthest beyond the chord of its extremes.

    The front is scaled to [0, 1] in each objective, 1 being best, so that with two objectives the
    extremes are (0, 1) and (1, 0); the distance to the line through them is (u1 + u2 - 1)/sqrt(2)
    (Das 1999, "On characterizing the knee of the Pareto curve based on normal-boundary
    intersection"). With m objectives the plane through the m unit vectors takes the line's place.
    """
    front, unit = info.front, _unit(info)
    if len(np.unique(unit, axis=0)) < 3:
        return Choice("knee", None, "There is no knee: the front has fewer than 3 distinct points.")
    distance = (unit.sum(1) - 1) / np.sqrt(len(info.objectives))
    best = int(np.argmax(distance))
    if distance[best] <= 1e-9:
        return Choice("knee", None, "There is no knee: no point lies beyond the extremes' chord.")
    chosen = front[best]
    return Choice("knee", chosen.trial_id, f"The knee is {chosen.trial_id}: {scores(chosen)}.")


def utopia(info: FrontInfo, found: Evidence | None = None) -> Choice:
    """The point of the front nearest to the best of each objective, each scaled to [0, 1]."""
    rule = "nearest to utopia"
    if not info.front:
        return Choice(rule, None, EMPTY)
    best = info.front[int(np.argmin(np.linalg.norm(1 - _unit(info), axis=1)))]
    return Choice(rule, best.trial_id, f"The point {rule} is {best.trial_id}: {scores(best)}.")


def hurwicz(info: FrontInfo, found: Evidence | None = None, *, hope: float = 0.5) -> Choice:
    """The point of the front with the largest hope * best + (1 - hope) * worst scaled objective.

    Hurwicz's criterion (1951) over objectives: 0 looks at what a point is worst at, 1 at its best.
    """
    rule = f"Hurwicz {hope:g}"
    if not info.front:
        return Choice(rule, None, EMPTY)
    unit = _unit(info)
    best = info.front[int(np.argmax(hope * unit.max(1) + (1 - hope) * unit.min(1)))]
    return Choice(
        rule, best.trial_id,
        f"Weighing each point's best and worst objective alike ({rule}): {best.trial_id}, "
        f"{scores(best)}.",
    )  # fmt: skip


def near_erm(info: FrontInfo, found: Evidence | None = None, *, loss: float) -> Choice:
    """The smallest max_gap among eligible points whose accuracy is at most `loss` under ERM's."""
    rule = f"fairest within {100 * loss:g} of ERM"
    if info.erm is None:
        return Choice(rule, None, "No ERM baseline has finished to stay near to.")
    least = info.erm.values["acc"] - loss
    near = [p for p in info.points if p.eligible and p.values["acc"] >= least - 1e-12
            and np.isfinite(p.values["max_gap"])]  # fmt: skip
    if not near:
        return Choice(rule, None, f"No configuration with a gap is within {100 * loss:g} of ERM.")
    best = min(near, key=lambda p: (p.values["max_gap"], *_by_accuracy(p)))
    words = f"The fairest within {100 * loss:g} % of ERM's accuracy (absolute) is"
    if best is info.erm:
        return Choice(rule, best.trial_id, f"{words} ERM itself ({best.trial_id}).")
    return Choice(rule, best.trial_id, f"{words} {best.trial_id}: {scores(best)}.")


def surely_under(info: FrontInfo, found: Evidence | None = None, *, max_gap: float) -> Choice:
    """The most accurate point of the front whose 95 % bound of max_gap is at most `max_gap`."""
    return _backed(
        info, found,
        rule=f"gap surely at most {100 * max_gap:g}",
        words=f"With a gap of at most {100 * max_gap:g} points at 95 % confidence",
        limit=lambda one: one.gap.at_most - max_gap,
    )  # fmt: skip


def like_fair(info: FrontInfo, found: Evidence | None = None, *, point: str) -> Choice:
    """The most accurate point of the front whose gap a fair model would show, too.

    Args:
        point: `median` or `high`, the 50 or the 95 % point of its null band.
    """
    share = {"median": 50, "high": 95}[point]
    return _backed(
        info, found,
        rule=f"gap within {share} % of fair models'",
        words=f"With a gap that is within {share} % of fair models'",
        limit=lambda one: one.gap.measured - getattr(one.band, point),
    )  # fmt: skip


def _backed(
    info: FrontInfo,
    found: Evidence | None,
    *,
    rule: str,
    words: str,
    limit: Callable[[PointEvidence], float],
) -> Choice:
    """The most accurate point whose `limit` is at most 0; else the one that misses it by least."""
    known = [(limit(found[p.trial_id]), p) for p in info.front if found and p.trial_id in found]
    known = [(by, point) for by, point in known if np.isfinite(by)]
    if not known:
        return Choice(rule, None, f"{words}: cannot be told without predictions of two speakers "
                      "of each gender and language.")  # fmt: skip
    within = [point for by, point in known if by <= 0]
    if within:
        best = min(within, key=_by_accuracy)
        return Choice(rule, best.trial_id, f"{words}: {best.trial_id}, {scores(best)}.")
    by, least = min(known, key=lambda one: (one[0], one[1].trial_id))
    return Choice(
        rule, None,
        f"{words}: none of the front qualifies; the least violating is {least.trial_id}, "
        f"{100 * by:.1f} points above, with {scores(least)}.",
        nearest=least.trial_id,
    )  # fmt: skip


def best_under(points: Sequence[Point], *, max_gap: float) -> Choice:
    """The most accurate eligible point whose max_gap (fraction) is at most `max_gap`.

    Ties go to the smaller gap, then to the earlier trial. If none qualifies, `nearest` is the point
    of the smallest gap and the sentence says so.
    """
    rule = f"gap at most {100 * max_gap:g}"
    usable = [p for p in points if p.eligible and np.isfinite(p.values["max_gap"])]
    if not usable:
        return Choice(rule, None, "No configuration qualifies: none is finished and usable yet.")
    within = [p for p in usable if p.values["max_gap"] <= max_gap]
    if within:
        best = min(within, key=_by_accuracy)
        sentence = (
            f"With a gap of at most {100 * max_gap:g} points: {best.trial_id}, {scores(best)}."
        )
        return Choice(rule, best.trial_id, sentence)
    least = min(usable, key=lambda p: (p.values["max_gap"], *_by_accuracy(p)))
    sentence = (
        f"No configuration has a gap of at most {100 * max_gap:g} points; "
        f"the least violating is {least.trial_id} with {scores(least)}."
    )
    return Choice(rule, None, sentence, nearest=least.trial_id)


def extreme(info: FrontInfo, *, objective: str, rule: str) -> Choice:
    """The point of the front that is best in one objective; ties go to the best in the next one."""
    front = info.front
    if not front:
        return Choice(rule, None, EMPTY)
    names = [objective, *(name for name in info.objectives if name != objective)]
    signs = dict(zip(info.objectives, info.directions, strict=True))
    order = {name: -1.0 if signs[name] == "max" else 1.0 for name in names}
    best = min(front, key=lambda p: tuple(order[n] * p.values[n] for n in names) + (p.trial_id,))
    return Choice(rule, best.trial_id, f"The {rule} is {best.trial_id}: {scores(best)}.")


def _unit(info: FrontInfo) -> np.ndarray:
    """The front's objectives [n, m], each scaled to [0, 1] over the front, 1 being best."""
    values = np.array([[p.values[name] for name in info.objectives] for p in info.front])
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in info.directions])
    gains = values.reshape(-1, len(signs)) * signs
    if not len(gains):
        return gains
    low, high = gains.min(0), gains.max(0)
    return np.where(high > low, (gains - low) / np.where(high > low, high - low, 1.0), 1.0)


def _most_accurate(info: FrontInfo, found: Evidence | None = None) -> Choice:
    return _best_of(info, rule="most accurate", fairness=False)


def _fairest(info: FrontInfo, found: Evidence | None = None) -> Choice:
    return _best_of(info, rule="fairest", fairness=True)


def _best_of(info: FrontInfo, *, rule: str, fairness: bool) -> Choice:
    names = [name for name, metric in METRICS.items() if metric.fairness == fairness]
    objective = next((name for name in info.objectives if name in names), None)
    if objective is None:
        return Choice(rule, None, f"No {rule} point: none of {', '.join(names)} is an objective.")
    return extreme(info, objective=objective, rule=rule)


def _under(info: FrontInfo, found: Evidence | None = None, *, max_gap: float) -> Choice:
    return best_under(info.points, max_gap=max_gap)


def _by_accuracy(point: Point) -> tuple[float, float, str]:
    return (-point.values["acc"], point.values["max_gap"], point.trial_id)


RULES: dict[str, Callable[..., Choice]] = {
    "knee": knee,
    "nearest to utopia": utopia,
    "Hurwicz 0.5": hurwicz,
    "most accurate": _most_accurate,
    "fairest": _fairest,
    **{f"fairest within {100 * x:g} of ERM": partial(near_erm, loss=x) for x in LOSSES},
    **{f"gap at most {100 * x:g}": partial(_under, max_gap=x) for x in GAP_LIMITS},
    **{f"gap surely at most {100 * x:g}": partial(surely_under, max_gap=x) for x in GAP_LIMITS},
    "gap within 50 % of fair models'": partial(like_fair, point="median"),
    "gap within 95 % of fair models'": partial(like_fair, point="high"),
}
BRIEF = ("knee", "most accurate", "fairest", "fairest within 2 of ERM", "gap at most 10",
         "gap within 95 % of fair models'")  # fmt: skip  # what a terminal shows of them
