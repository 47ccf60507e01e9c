"""Which configuration to use: rules with names, each of which says why, or that nothing qualifies.

    for name, rule in RULES.items(): print(name, rule(info, evidence).sentence)
A rule is a function from `front.FrontInfo` and, where there is any, `statistics.Evidence` to a
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
GAP_LIMIT = 0.10  # a fraction
ACCURACY_LOSS = 0.02  # against ERM, a fraction


@dataclass(frozen=True)
class Choice:
    """What a rule chose: a trial id, or None and then the `nearest` trial that misses the rule."""

    rule: str
    trial_id: str | None
    sentence: str
    nearest: str | None = None


def scores(point: Point) -> str:
    """Accuracy and gap of a point as text, in percent and percentage points."""
    accuracy, gap = METRICS["acc"].text(point.values["acc"]), point.values["max_gap"]
    if not np.isfinite(gap):
        return f"accuracy {accuracy} % and no defined gap"
    return f"accuracy {accuracy} % and a gap of {METRICS['max_gap'].text(gap)} points"


def knee(info: FrontInfo, evidence: Evidence | None = None) -> Choice:
    """The point of the front that lies furthest beyond the chord of its extremes.

    The front is scaled to [0, 1] in each objective, 1 being best, so that with two objectives the
    extremes are (0, 1) and (1, 0); the distance to the line through them is (u1 + u2 - 1)/sqrt(2)
    (Das 1999, "On characterizing the knee of the Pareto curve based on normal-boundary
    intersection"). With m objectives the plane through the m unit vectors takes the line's place.
    """
    unit = _scaled_to_unit(info)
    if len(np.unique(unit, axis=0)) < 3:
        return Choice("knee", None, "There is no knee: the front has fewer than 3 distinct points.")
    distance = (unit.sum(1) - 1) / np.sqrt(len(info.objectives))
    best = int(np.argmax(distance))
    if distance[best] <= 1e-9:
        return Choice("knee", None, "There is no knee: no point lies beyond the extremes' chord.")
    point = info.front[best]
    return Choice("knee", point.trial_id, f"The knee is {point.trial_id}: {scores(point)}.")


def _scaled_to_unit(info: FrontInfo) -> np.ndarray:
    """The front's objectives [n, m], each scaled to [0, 1] over the front, 1 being best."""
    values = np.array([[p.values[name] for name in info.objectives] for p in info.front])
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in info.directions])
    gains = values.reshape(-1, len(signs)) * signs
    if not len(gains):
        return gains
    low, high = gains.min(0), gains.max(0)
    return np.where(high > low, (gains - low) / np.where(high > low, high - low, 1.0), 1.0)


def best_objective(
    info: FrontInfo, evidence: Evidence | None = None, *, rule: str, fairness: bool
) -> Choice:
    """The point of the front that is best in its first objective of accuracy, or of `fairness`.

    Ties go to the best in the other objectives, then to the earlier trial.
    """
    names = [name for name, metric in METRICS.items() if metric.fairness == fairness]
    objective = next((name for name in info.objectives if name in names), None)
    if objective is None:
        return Choice(rule, None, f"No {rule} point: none of {', '.join(names)} is an objective.")
    return _first(info, [objective, *info.objectives], rule=rule)


def best_worst_group(info: FrontInfo, evidence: Evidence | None = None) -> Choice:
    """The point of the front whose worst group has the highest W-F1."""
    choice = _first(info, ["worst_group_w_f1", *info.objectives], rule="best worst group")
    point = info.find(choice.trial_id)
    if point is None or not np.isfinite(score := point.values["worst_group_w_f1"]):
        sentence = EMPTY if point is None else "No worst group is defined on the front."
        return Choice(choice.rule, None, sentence)
    score = METRICS["worst_group_w_f1"].text(score)
    sentence = f"The worst group does best in {point.trial_id}: W-F1 {score} %, {scores(point)}."
    return Choice(choice.rule, point.trial_id, sentence)


def _first(info: FrontInfo, names: Sequence[str], *, rule: str) -> Choice:
    """The point of the front that is best by the first of the metrics `names` that differs."""
    if not info.front:
        return Choice(rule, None, EMPTY)

    def order(point: Point) -> tuple:
        losses = [point.values[n] * (-1 if METRICS[n].direction == "max" else 1) for n in names]
        return (*np.nan_to_num(losses, nan=np.inf), point.trial_id)

    best = min(info.front, key=order)
    return Choice(rule, best.trial_id, f"The {rule} is {best.trial_id}: {scores(best)}.")


def near_erm(info: FrontInfo, evidence: Evidence | None = None, *, loss: float) -> Choice:
    """The smallest max_gap among eligible points whose accuracy is at most `loss` under ERM's."""
    rule = f"fairest within {100 * loss:g} of ERM"
    if info.erm is None:
        return Choice(rule, None, "No ERM baseline has finished to stay near to.")
    least = info.erm.values["acc"] - loss
    near = [p for p in _with_gap(info.candidates) if p.values["acc"] >= least - 1e-12]
    if not near:
        return Choice(rule, None, f"No configuration with a gap is within {100 * loss:g} of ERM.")
    best = min(near, key=_by_gap)
    start = f"The fairest within {100 * loss:g} % of ERM's accuracy (absolute) is"
    if best is info.erm:
        return Choice(rule, best.trial_id, f"{start} ERM itself ({best.trial_id}).")
    return Choice(rule, best.trial_id, f"{start} {best.trial_id}: {scores(best)}.")


def gap_at_most(info: FrontInfo, evidence: Evidence | None = None, *, max_gap: float) -> Choice:
    """The most accurate eligible point whose max_gap (fraction) is at most `max_gap`.

    Ties go to the smaller gap, then to the earlier trial. If none qualifies, `nearest` is the point
    of the smallest gap and the sentence says so.
    """
    rule = f"gap at most {100 * max_gap:g}"
    usable = _with_gap(info.candidates)
    if not usable:
        return Choice(rule, None, "No configuration qualifies: none is finished and usable yet.")
    limit = f"a gap of at most {100 * max_gap:g} points"
    if within := [p for p in usable if p.values["max_gap"] <= max_gap]:
        best = min(within, key=_by_accuracy)
        return Choice(rule, best.trial_id, f"With {limit}: {best.trial_id}, {scores(best)}.")
    least = min(usable, key=_by_gap)
    sentence = (
        f"No configuration has {limit}; "
        f"the least violating is {least.trial_id} with {scores(least)}."
    )
    return Choice(rule, None, sentence, nearest=least.trial_id)


def gap_surely_at_most(
    info: FrontInfo, evidence: Evidence | None = None, *, max_gap: float
) -> Choice:
    """The most accurate point of the front whose 95 % bound of max_gap is at most `max_gap`."""
    return _backed(
        info, evidence,
        rule=f"gap surely at most {100 * max_gap:g}",
        condition=f"With a gap of at most {100 * max_gap:g} points at 95 % confidence",
        excess=lambda point_evidence: point_evidence.gap.at_most - max_gap,
    )  # fmt: skip


def surely_fairer(info: FrontInfo, evidence: Evidence | None = None) -> Choice:
    """The most accurate point of the front whose gap is below ERM's with 95 % confidence.

    The gap in the cell that was named before the sweep where one was, else the largest.
    """
    name, where = ("cell_gap", f" in {info.cell}") if info.cell else ("max_gap", "")

    def excess(known: PointEvidence) -> float:
        change = (known.change or {}).get(name)
        return change.high if change else np.nan

    return _backed(
        info, evidence,
        rule="surely fairer than ERM",
        condition=f"With a gap{where} that is surely below ERM's (95 % confidence, on the same "
                  "speakers)",
        excess=excess,
    )  # fmt: skip


def like_fair_models(info: FrontInfo, evidence: Evidence | None = None) -> Choice:
    """The most accurate point of the front whose gap lies in the 95 % band of fair models."""
    return _backed(
        info, evidence,
        rule="gap within 95 % of fair models'",
        condition="With a gap that is within 95 % of fair models'",
        excess=lambda point_evidence: point_evidence.gap.measured - point_evidence.band.high,
    )  # fmt: skip


def _backed(
    info: FrontInfo,
    evidence: Evidence | None,
    *,
    rule: str,
    condition: str,
    excess: Callable[[PointEvidence], float],
) -> Choice:
    """The most accurate point whose `excess` is at most 0; `nearest` has the least excess."""
    known = [
        (by, point)
        for point in info.front
        if evidence and point.trial_id in evidence
        if np.isfinite(by := excess(evidence[point.trial_id]))
    ]
    if not known:
        reason = f"unknown without predictions of two speakers of each {info.attribute.group}"
        return Choice(rule, None, f"{condition}: {reason}.")
    if within := [point for by, point in known if by <= 0]:
        best = min(within, key=_by_accuracy)
        return Choice(rule, best.trial_id, f"{condition}: {best.trial_id}, {scores(best)}.")
    by, least = min(known, key=lambda pair: (pair[0], pair[1].trial_id))
    return Choice(
        rule, None,
        f"{condition}: none of the front qualifies; the least violating is {least.trial_id}, "
        f"{100 * by:.1f} points above, with {scores(least)}.",
        nearest=least.trial_id,
    )  # fmt: skip


def _with_gap(points: Sequence[Point]) -> list[Point]:
    return [p for p in points if p.eligible and np.isfinite(p.values["max_gap"])]


def _by_accuracy(point: Point) -> tuple[float, float, str]:
    return (-point.values["acc"], point.values["max_gap"], point.trial_id)


def _by_gap(point: Point) -> tuple[float, float, str]:
    return (point.values["max_gap"], -point.values["acc"], point.trial_id)


RULES: dict[str, Callable[..., Choice]] = {
    "knee": knee,
    "most accurate": partial(best_objective, rule="most accurate", fairness=False),
    "fairest": partial(best_objective, rule="fairest", fairness=True),
    "best worst group": best_worst_group,
    f"fairest within {100 * ACCURACY_LOSS:g} of ERM": partial(near_erm, loss=ACCURACY_LOSS),
    f"gap at most {100 * GAP_LIMIT:g}": partial(gap_at_most, max_gap=GAP_LIMIT),
    f"gap surely at most {100 * GAP_LIMIT:g}": partial(gap_surely_at_most, max_gap=GAP_LIMIT),
    "gap within 95 % of fair models'": like_fair_models,
}
# What a terminal shows of them.
BRIEF = [name for name in RULES if name != "best worst group" and "surely" not in name]
# Of a sweep with a dial, or with a cell that was named before it.
SURE_RULES = {"surely fairer than ERM": surely_fairer}


def rules(info: FrontInfo) -> dict[str, Callable[..., Choice]]:
    """The rules that a sweep's candidates are chosen by, by name."""
    return RULES | (SURE_RULES if info.dial or info.cell else {})
