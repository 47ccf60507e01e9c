"""How sure a dial is: bands of its smoothed curves, paired over speakers, and its barriers.

    dial = read(front.info(records), records)
    dial.info.front                              # with positions of the dial
    dial.bands["t0000-t0007"].to_lower[3]["max_gap"].high

A point of a smoothed curve is a weighted sum of what its positions score, so its difference to the
lower end has the errors of that sum (`paired.mixture`): what is hard for all positions cancels.

A *barrier* is where two trainings do not lie in one valley (Frankle et al. 2020, arXiv 1912.05671):
between the ends, accuracy falls below that of the worse end by more than two paired standard
errors. Its positions are not chosen. `changes` of the whole are the differences to ERM, by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from analysis.front import FrontInfo, choose, dial
from analysis.statistics import paired
from analysis.statistics.evidence import RESAMPLES
from analysis.statistics.paired import PairedDifference, Scores
from analysis.statistics.speaker_sums import SpeakerSums
from analysis.statistics.uncertainty import speaker_sums
from ermgap.records import Records

BARRIER = 2.0  # paired standard errors

Differences = dict[str, PairedDifference]


@dataclass(frozen=True, eq=False)
class Band:
    """What the predictions of a line's positions say, a list entry or row a position.

    Attributes:
        to_lower, to_erm: of the smoothed curve less the lower end, and less ERM (empty without).
        cell: where the lower end's largest gap is.
        sides: those that are compared there, S of them.
        recall: mean recall of each of them there over the classes that count, [n, S].
        barrier: by which accuracy at a position in a barrier is below the worse end's, by id.
    """

    to_lower: list[Differences]
    to_erm: list[Differences]
    cell: str | None
    sides: tuple[str, ...]
    recall: np.ndarray
    barrier: dict[str, float]


@dataclass(frozen=True, eq=False)
class Dial:
    """A sweep with its dial: `info` has the positions, `bands` what is known of a line, by name."""

    info: FrontInfo
    lines: list[dial.Line] = field(default_factory=list)
    bands: dict[str, Band] = field(default_factory=dict)

    @property
    def changes(self) -> dict[str, Differences]:
        """Differences to ERM of the smoothed curves, by the id of a position."""
        return {
            name: change
            for line in self.lines
            if line.name in self.bands
            for name, change in zip(line.ids, self.bands[line.name].to_erm, strict=False)
            if name != line.lower and name != line.upper
        }

    def best_position(self, line: dial.Line) -> int | None:
        """Where to turn a line to, as an index into its positions; None where accuracy only falls.

        The smallest gap of the smoothed curve among positions whose accuracy is at most
        ACCURACY_LOSS below the lower end's, without those in a barrier.
        """
        least = line.measured["acc"][line.ids.index(line.lower)] - choose.ACCURACY_LOSS
        usable = [
            number
            for number in np.flatnonzero(~line.barred & (line.positions > 0))
            if line.smoothed["acc"][number] >= least
        ]
        gap = line.smoothed["max_gap"]
        return min(usable, key=lambda number: gap[number], default=None)

    def plain(self) -> dict[str, object]:
        """For summary.json: each line's positions, curves, differences and barrier."""
        return {"dial": [self._plain(line) for line in self.lines]} if self.lines else {}

    def _plain(self, line: dial.Line) -> dict[str, object]:
        best, band = self.best_position(line), self.bands.get(line.name)
        described = {
            "lower": line.lower,
            "upper": line.upper,
            "positions": line.positions.tolist(),
            "ids": line.ids,
            "measured": {name: values.tolist() for name, values in line.measured.items()},
            "smoothed": {name: values.tolist() for name, values in line.smoothed.items()},
            "best": None if best is None else line.ids[best],
        }
        if band is None:
            return described
        return described | {
            "cell": band.cell,
            "sides": list(band.sides),
            "recall": band.recall.tolist(),
            "less_lower": [_plain(change) for change in band.to_lower],
            "less_erm": [_plain(change) for change in band.to_erm],
            "barrier": band.barrier,
        }


def _plain(change: Differences) -> dict[str, dict[str, float]]:
    return {name: asdict(metric) for name, metric in change.items()}


def read(info: FrontInfo, records: Records, *, seed: int = 0) -> Dial:
    """The dial of a sweep; without dial.jsonl just `info`."""
    lines = dial.read(info, records)
    if not lines:
        return Dial(info)
    lines, bands = _with_bands(info, lines, records, seed)
    return Dial(dial.with_dial(info, lines, records.rule(records.trials())), lines, bands)


def _with_bands(
    info: FrontInfo, lines: Sequence[dial.Line], records: Records, seed: int
) -> tuple[list[dial.Line], dict[str, Band]]:
    """The lines with their barriers, and the bands of those whose predictions are all there.

    Predictions of other utterances than ERM's are none.
    """
    erm = info.erm.trial_id if info.erm is not None else None
    names = dict.fromkeys([erm, *(name for line in lines for name in line.ids)])
    sums, _ = speaker_sums(records, filter(None, names))
    known = set() if sums is None else set(sums.counts)
    whole = {line.name for line in lines if known.issuperset(line.ids)}
    if not whole:
        return list(lines), {}
    weights = sums.draws(RESAMPLES, np.random.default_rng(seed))
    used = {name for line in lines if line.name in whole for name in line.ids} | ({erm} & known)
    scores = {name: paired.scores(sums, name, weights) for name in sorted(used)}
    judged, bands = [], {}
    for line in lines:
        if line.name in whole:
            barrier = _barrier(line, sums, scores)
            line = replace(line, barred=np.isin(line.ids, list(barrier)))
            bands[line.name] = _band(line, sums, scores, scores.get(erm), barrier)
        judged.append(line)
    return judged, bands


def _band(
    line: dial.Line,
    sums: SpeakerSums,
    scores: dict[str, Scores],
    erm: Scores | None,
    barrier: dict[str, float],
) -> Band:
    mine = [scores[name] for name in line.ids]
    smooth = [paired.mixture(weights, mine) for weights in line.smoother]
    lower = scores[line.lower]
    (cell,) = lower.cells
    rates = np.stack([sums.rates(sums.measured_weights, name)[0, cell] for name in line.ids])
    sides, k = np.flatnonzero(sums.compared.sides[cell]), len(sums.labels)
    recall = [rates[:, side, :k][:, sums.compared.classes[cell, side]] for side in sides]
    return Band(
        to_lower=[paired.difference(sums, point, lower) for point in smooth],
        to_erm=[paired.difference(sums, point, erm) for point in smooth] if erm else [],
        cell=sums.cells[cell],
        sides=tuple(sums.sides[side] for side in sides),
        recall=np.stack([r.mean(-1) if r.size else np.full(len(r), np.nan) for r in recall], -1),
        barrier=barrier,
    )


def _barrier(line: dial.Line, sums: SpeakerSums, scores: dict[str, Scores]) -> dict[str, float]:
    """By how much accuracy is below the worse end's, by the id of each position in a barrier."""
    worse = min((scores[line.lower], scores[line.upper]), key=lambda end: end.whole["acc"])
    depths = {}
    for position, name in zip(line.positions, line.ids, strict=True):
        if dial.ENDS[0] < position < dial.ENDS[1]:
            change = paired.difference(sums, scores[name], worse)["acc"]
            if change.value < -BARRIER * change.se:
                depths[name] = -change.value
    return depths
