"""Bound of the gap, null band and difference to ERM of each point that a report compares.

    evidence = collect(info, records)          # of the front and ERM; by trial id
    evidence["t0004"].gap.at_most, evidence["t0004"].change["max_gap"].below

Only dev predictions are needed. Points whose predictions are missing, unreadable or not of the same
utterances as the others' have none; `Evidence.missing` of the whole says which and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from analysis.front import FrontInfo, Point, choose
from analysis.statistics import intervals, null_band, paired
from analysis.statistics.speaker_sums import SpeakerSums
from analysis.statistics.uncertainty import speaker_sums
from ermgap import metrics
from ermgap.config import METRICS
from ermgap.records import Records

RESAMPLES = 2000


@dataclass(frozen=True)
class PointEvidence:
    """How sure one point's gap is, in fractions.

    Attributes:
        gap: its largest gap, measured, corrected and bounded.
        band: what fair models of its accuracy show.
        change: acc, w_f1 and max_gap less those of ERM, paired, and cell_gap where a cell was
            named before the sweep; None for ERM itself or without it.
        cell, accuracies: where the largest gap is, and the accuracy of each side there.
    """

    gap: intervals.MaxGapInterval
    band: null_band.Band
    change: dict[str, paired.PairedDifference] | None
    cell: str | None
    accuracies: dict[str, float]

    @property
    def is_gap(self) -> bool:
        """Whether its gap is larger than 95 % of fair models would show."""
        return bool(self.gap.measured > self.band.high)

    @property
    def fell(self) -> bool:
        """Whether the gap is below ERM's with 95 % confidence: the upper bound of the change is."""
        return self.change is not None and bool(self.change["max_gap"].high < 0)

    @property
    def in_cell(self) -> paired.PairedDifference | None:
        """The change of the gap in the named cell, where it has an interval."""
        change = (self.change or {}).get("cell_gap")
        return change if change and np.isfinite(change.high) else None


class Evidence(dict[str, PointEvidence]):
    """Evidence of each point by trial id; `missing` gives the reason for points without it.

    `erm_cell` is ERM's average gap in the cell that was named before the sweep and the number of
    speakers there, or None.
    """

    def __init__(
        self,
        points: Mapping[str, PointEvidence],
        missing: Mapping[str, str],
        permutations: Sequence[null_band.Permutation] = (),
        erm_cell: tuple[float, int] | None = None,
    ):
        super().__init__(points)
        self.missing, self.permutations = missing, permutations
        self.erm_cell = erm_cell

    def plain(self) -> dict[str, object]:
        """For summary.json: values by trial id, the missing, and ERM's permutation tests."""
        named = {"erm_cell_gap": self.erm_cell[0]} if self.erm_cell else {}
        return {
            "points": {name: asdict(point) for name, point in self.items()},
            "missing": self.missing,
            "permutations_of_erm": [asdict(test) for test in self.permutations],
            **named,
        }


def collect(
    info: FrontInfo,
    records: Records,
    *,
    changes: Mapping[str, dict[str, paired.PairedDifference]] | None = None,
    seed: int = 0,
) -> Evidence:
    """The evidence of the front's points and of ERM.

    Args:
        changes: differences to ERM by id, in place of those of a point's own predictions.
    """
    names = [point.trial_id for point in info.highlighted]
    erm = info.erm.trial_id if info.erm is not None else None
    # The utterances are those of the first: of ERM, with which all others are compared.
    sums, missing = speaker_sums(records, sorted(names, key=lambda name: name != erm))
    if sums is None:
        return Evidence({}, missing)
    weights = sums.draws(RESAMPLES, np.random.default_rng(seed))
    known = dict(changes or {})
    if erm in sums.counts:
        for name in sums.counts.keys() - {erm} - known.keys():
            known[name] = paired.paired_differences(sums, name, erm, weights)
    points = {
        name: PointEvidence(
            intervals.max_gap_interval(sums, name, weights),
            null_band.fair(sums, name, seed=seed),
            known.get(name) if name != erm else None,
            *worst_cell(sums, name),
        )
        for name in names
        if name in sums.counts
    }
    if erm not in sums.counts:
        return Evidence(points, missing)
    tests = null_band.permuted(sums, erm, seed=seed)
    if sums.named is None:
        return Evidence(points, missing, tests)
    speakers = int((sums.share[:, sums.named, -1] > 0).sum())
    gap = float(sums.named_gap(sums.observed(erm)))
    return Evidence(points, missing, tests, (gap, speakers))


def signed_gaps(info: FrontInfo, records: Records) -> dict[str, list[dict]]:
    """Every signed gap of the front's points and of ERM with its interval, by trial id."""
    gaps = {}
    for point in info.highlighted:
        sums, _ = speaker_sums(records, [point.trial_id])
        if sums is not None:
            table = intervals.signed_gaps(sums.with_all_cells(), point.trial_id)
            gaps[point.trial_id] = table.to_dict("records")
    return gaps


def worst_cell(sums: SpeakerSums, system: str) -> tuple[str | None, dict[str, float]]:
    """The cell of the largest gap, and the accuracy of each side that is compared there."""
    gaps = metrics.gap_sizes(sums.observed(system))["avg"]
    if not np.isfinite(gaps).any():
        return None, {}
    cell = int(np.nanargmax(gaps))
    rates = sums.rates(sums.measured_weights, system)[0, cell, :, -1].tolist()
    sides = zip(sums.sides, rates, strict=True)
    return sums.cells[cell], {side: rate for side, rate in sides if np.isfinite(rate)}


def sentence(info: FrontInfo, evidence: Evidence) -> str:
    """How sure the front's gaps are, in one plain sentence, or two where a cell is named."""
    front = [evidence[point.trial_id] for point in info.front if point.trial_id in evidence]
    if named := _in_named_cell(info, evidence):
        return " ".join(filter(None, [named, _briefly(front)]))
    bounded = [point for point in front if np.isfinite(point.band.high)]
    if not bounded:
        return ("Whether any of these gaps is more than chance is unknown: that needs the "
                "predictions, and a language with two dev speakers of one side.")  # fmt: skip
    band = float(np.median([point.band.high for point in bounded]))
    speakers = f" by {info.speakers} speakers" if info.speakers else ""
    start = (
        f"Scores are on {info.sweep.get('n_dev', '?')} dev utterances{speakers}, where a perfectly "
        f"fair model of the same accuracy would show a gap of up to {100 * band:.1f} points by "
        f"chance (95 %): {_count(bounded, 'is_gap')} of the front's {len(bounded)} points "
        "show more than that"
    )
    compared = [point for point in front if point.change is not None]
    if not compared:
        return f"{start}."
    if not any(np.isfinite(point.change["max_gap"].high) for point in compared):
        return (f"{start}; whether any lowered ERM's gap is unknown where one speaker has all "
                "dev utterances of a side.")  # fmt: skip
    return (
        f"{start}, and of {len(compared)} compared with ERM {_count(compared, 'fell')} surely "
        f"lowered its gap (95 % confidence, on the same speakers){_clearest(info, evidence)}."
    )


def _in_named_cell(info: FrontInfo, evidence: Evidence) -> str:
    """Which point surely lowered the gap in the named cell, and what else that changed.

    Empty where no point of the front can be compared with ERM there.
    """
    compared = [p for p in info.front if p.trial_id in evidence and evidence[p.trial_id].in_cell]
    if not info.cell or not compared:
        return ""
    fell = [p for p in compared if evidence[p.trial_id].in_cell.high < 0]
    gap, speakers = evidence.erm_cell
    start = (
        f"In {info.cell}, the cell named before the sweep, {len(fell) or 'none'} of "
        f"{len(compared)} points surely lowered ERM's gap of {100 * gap:.1f} points (95 % "
        f"confidence, on the same {speakers} speakers)"
    )
    if not fell:
        least = min(compared, key=lambda point: evidence[point.trial_id].in_cell.value)
        change = evidence[least.trial_id].in_cell
        if change.value >= 0:
            return f"{start}: none of them measured a smaller one."
        return f"{start}: the largest fall is {change.text()} points, of {least.trial_id}."
    best = max(fell, key=lambda point: point.values["acc"])
    known, score = evidence[best.trial_id], METRICS["worst_group_w_f1"].text
    worst = [score(point.values["worst_group_w_f1"]) for point in (info.erm, best)]
    return (
        f"{start}. The most accurate of them, {best.trial_id}, changed it by "
        f"{known.in_cell.text()} points, accuracy by {known.change['acc'].text()} to "
        f"{METRICS['acc'].text(best.values['acc'])} %, and the worst group's W-F1 from {worst[0]} "
        f"to {worst[1]} %."
    )


def _briefly(front: Sequence[PointEvidence]) -> str:
    """How sure the largest gaps are, beside what is said of the named cell."""
    bounded = [point for point in front if np.isfinite(point.band.high)]
    compared = [p for p in front if p.change and np.isfinite(p.change["max_gap"].high)]
    if not bounded:
        return ""
    said = (
        f"The largest gap over cells is more than 95 % of perfectly fair models show in "
        f"{_count(bounded, 'is_gap')} of the front's {len(bounded)} points"
    )
    fell = f", and surely below ERM's in {_count(compared, 'fell')}" if compared else ""
    return f"{said}{fell}."


def _clearest(info: FrontInfo, evidence: Evidence) -> str:
    """The most accurate point whose gap surely fell, or how many speakers the clearest fall needs.

    The end of a sentence; empty where the number of speakers is not known.
    """
    fell = [p for p in info.front if p.trial_id in evidence and evidence[p.trial_id].fell]
    if fell:
        best = max(fell, key=lambda point: point.values["acc"])
        return f": the most accurate such point is {best.trial_id}, {choose.scores(best)}"
    if not info.speakers:
        return ""
    needed = {}
    for point in info.front:
        change = evidence[point.trial_id].change if point.trial_id in evidence else None
        if change and (n := paired.speakers_needed(change["max_gap"], info.speakers)):
            needed[point.trial_id] = n
    if not needed:
        return ": none of them measured a smaller one"
    name = min(needed, key=needed.get)
    fall = -100 * evidence[name].change["max_gap"].value
    return (
        f": the clearest fall, {fall:.1f} points at {name}, would take about "
        f"{float(f'{needed[name]:.2g}'):,.0f} speakers like these, if it is as large as measured"
    )


def _count(points: list[PointEvidence], name: str) -> str:
    return str(sum(getattr(point, name) for point in points) or "none")


def levelled(info: FrontInfo, point: Point) -> bool:
    """Whether a point's smaller gap comes with a worse worst group than ERM's: levelling down."""
    erm = info.erm
    if erm is None or point is erm:
        return False
    fairer = point.values["max_gap"] < erm.values["max_gap"]
    return bool(fairer and point.values["worst_group_w_f1"] < erm.values["worst_group_w_f1"])
