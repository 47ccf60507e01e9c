"""Which configuration to use: rules with names, each of which says why, or that nothing qualifies.

    for name, rule in RULES.items(): print(name, rule(info).sentence)
A rule is a function from `front.FrontInfo` to a `Choice`; adding one is one line in RULES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from analysis.front import FrontInfo, Point

GAP_LIMITS = (0.05, 0.10, 0.15)  # fractions
ACCURACIES = ("acc", "w_f1")
FAIRNESSES = ("max_gap", "worst_group_w_f1", "max_loss_gap")


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


def knee(info: FrontInfo) -> Choice:
    """The point of the front that lies furthest beyond the chord of its extremes.

    The front is scaled to [0, 1] in each objective, 1 being best, so that with two objectives the
    extremes are (0, 1) and (1, 0); the distance to the line through them is (u1 + u2 - 1)/sqrt(2)
    (Das 1999, "On characterizing the knee of the Pareto curve based on normal-boundary
    intersection"). With m objectives the plane through the m unit vectors takes the line's place.
    """
    front = info.front
    values = np.array([[p.values[name] for name in info.objectives] for p in front])
    if len(np.unique(values, axis=0)) < 3:
        return Choice("knee", None, "There is no knee: the front has fewer than 3 distinct points.")
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in info.directions])
    gains = values * signs
    low, high = gains.min(0), gains.max(0)
    unit = (gains - low) / np.where(high > low, high - low, 1.0)
    distance = (unit.sum(1) - 1) / np.sqrt(len(signs))
    best = int(np.argmax(distance))
    if distance[best] <= 1e-9:
        return Choice("knee", None, "There is no knee: no point lies beyond the extremes' chord.")
    chosen = front[best]
    return Choice("knee", chosen.trial_id, f"The knee is {chosen.trial_id}: {scores(chosen)}.")


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
        return Choice(rule, None, "The front is empty: no finished trial is usable yet.")
    names = [objective, *(name for name in info.objectives if name != objective)]
    signs = dict(zip(info.objectives, info.directions, strict=True))
    order = {name: -1.0 if signs[name] == "max" else 1.0 for name in names}
    best = min(front, key=lambda p: tuple(order[n] * p.values[n] for n in names) + (p.trial_id,))
    return Choice(rule, best.trial_id, f"The {rule} is {best.trial_id}: {scores(best)}.")


def _most_accurate(info: FrontInfo) -> Choice:
    return _best_of(info, ACCURACIES, rule="most accurate")


def _fairest(info: FrontInfo) -> Choice:
    return _best_of(info, FAIRNESSES, rule="fairest")


def _best_of(info: FrontInfo, names: Sequence[str], *, rule: str) -> Choice:
    objective = next((name for name in info.objectives if name in names), None)
    if objective is None:
        return Choice(rule, None, f"No {rule} point: none of {', '.join(names)} is an objective.")
    return extreme(info, objective=objective, rule=rule)


def _under(info: FrontInfo, *, max_gap: float) -> Choice:
    return best_under(info.points, max_gap=max_gap)


def _by_accuracy(point: Point) -> tuple[float, float, str]:
    return (-point.values["acc"], point.values["max_gap"], point.trial_id)


RULES: dict[str, Callable[[FrontInfo], Choice]] = {
    "knee": knee,
    "most accurate": _most_accurate,
    "fairest": _fairest,
    **{f"gap at most {100 * x:g}": partial(_under, max_gap=x) for x in GAP_LIMITS},
}
