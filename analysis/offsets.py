"""A baseline without training: an offset per emotion on the log-probabilities of the ERM trial.

    line = offsets.line(info, records)         # a row a weight, or None
    print(offsets.sentence(info, line))

The prediction is argmax(log p + b): the same b for all sides, so that nobody's gender is asked
for when it is used. A path of b is fitted to `(1 - weight) accuracy - weight max_gap` on one half
of the dev speakers and judged on the other, both ways, pooled, and the scores of several halvings
are averaged: one halving is mostly luck. Such group-blind rules are what LinearPost (Xian and Zhao
2024, arXiv 2405.04025) fits by a linear program; the K offsets alone are searched for directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.front import FrontInfo, Point
from analysis.statistics.speaker_sums import largest_gap
from analysis.statistics.uncertainty import classes_of, dev_predictions
from analysis.statistics.units import ordered, units_of
from ermgap import metrics
from ermgap.config import GENDER
from ermgap.errors import UserError
from ermgap.metrics import Compared, Margins
from ermgap.records import Records, is_degenerate

WEIGHTS = np.linspace(0, 1, 21)  # of max_gap, against accuracy
HALVINGS = 5
DRAWS = 200  # random offsets that a search may begin at
SPREADS = (0.5, 1.5)  # their standard deviations, half of them each, in nats
STEPS = (1.0, 0.5, 0.25, 0.1, 0.05)  # nats, by which one offset at a time is moved
SCORES = ("acc", "w_f1", "max_gap", "worst_group_w_f1")


@dataclass(frozen=True, eq=False)
class LabelScores:
    """The scores and true labels of n utterances, which offsets are fitted to and judged on.

    Attributes:
        logp: [n, K], in nats.
        group: [n], (S + 1) x cell + side.
        label: [n], the true one.
        compared: the sides, classes and cells that gaps are of.
    """

    logp: np.ndarray
    group: np.ndarray
    label: np.ndarray
    compared: Compared

    def __getitem__(self, rows: np.ndarray) -> LabelScores:
        """Those of some utterances, bool [n]."""
        kept = (part[rows] for part in (self.logp, self.group, self.label))
        return LabelScores(*kept, self.compared)

    def predict(self, offsets: np.ndarray) -> np.ndarray:
        """Predicted classes [M, n] with offsets [M, K]."""
        return (self.logp + offsets[:, None]).argmax(-1)

    def accuracy_and_gap(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy and max_gap, each [M], with offsets [M, K]."""
        prediction, (cells, sides, k) = self.predict(offsets), self.compared.classes.shape
        hit, shape = prediction == self.label, (len(offsets), cells, sides + 1, k)
        true = np.broadcast_to(self.group * k + self.label, hit.shape)
        first = np.arange(len(offsets))[:, None] * np.prod(shape[1:])
        places = (first + true, (first + true)[hit], first + self.group * k + prediction)
        counts = (np.bincount(place.ravel(), minlength=np.prod(shape)) for place in places)
        known = Margins(*(count.reshape(shape)[:, :, :-1].astype(float) for count in counts))
        used = self.compared
        rates = metrics.rates(known, classes=used.classes, sides=used.sides, cells=used.counted)
        return hit.mean(-1), largest_gap(metrics.differences(rates))


def fit(scores: LabelScores, *, seed: int = 0) -> np.ndarray:
    """The best offsets that are known for each of WEIGHTS, [weights, K].

    A search begins at the best of no offsets, random ones and those of earlier weights, and moves
    one offset at a time as long as that improves. So the accuracy at weight 0 is no less than
    without offsets. A max_gap that is undefined counts as 0.
    """
    k = scores.logp.shape[1]
    spread = np.repeat(SPREADS, DRAWS // len(SPREADS))[:, None]
    drawn = np.random.default_rng(seed).normal(size=(DRAWS, k)) * spread
    known = np.concatenate([np.zeros((1, k)), drawn])
    goals = _goals(scores, known)
    moves = np.concatenate([np.eye(k), -np.eye(k)])
    fitted = []
    for weight in WEIGHTS:
        price = np.array([1 - weight, weight])
        best = int(np.argmax(goals @ price))
        at, goal = known[best], goals[best]
        for step in STEPS:
            while True:
                near = at + moves * step
                reached = _goals(scores, near)
                best = int(np.argmax(reached @ price))
                if reached[best] @ price <= goal @ price + 1e-12:
                    break
                at, goal = near[best], reached[best]
        fitted.append(at)
        known, goals = np.concatenate([known, [at]]), np.concatenate([goals, [goal]])
    return np.array(fitted)


def line(info: FrontInfo, records: Records) -> pd.DataFrame | None:
    """One row a weight, fractions; None without an ERM trial or its log-probabilities on dev.

    Columns: trial_id (of ERM), weight, acc, w_f1, max_gap, worst_group_w_f1 (judged on the other
    half, means over halvings), fitted_acc, fitted_max_gap (on the half that they were fitted to)
    and degenerate.
    """
    erm = most_accurate_erm(info)
    table = dev_predictions(records, erm.trial_id) if erm is not None else None
    if table is None:
        return None
    try:
        rows = judged(table, **classes_of(records))
    except UserError:  # a prediction that is no label, say: `evidence` has which and why
        return None
    if rows is None:
        return None
    poor = [
        is_degenerate(acc=acc, w_f1=w_f1, majority_rate=info.majority_rate, floor=info.floor)
        for acc, w_f1 in rows[["acc", "w_f1"]].to_numpy()
    ]
    rows.insert(0, "trial_id", erm.trial_id)
    return rows.assign(degenerate=poor)


def most_accurate_erm(info: FrontInfo) -> Point | None:
    """The eligible ERM trial of the best accuracy."""
    candidates = [point for point in info.points if point.eligible and point.is_erm]
    return max(candidates, key=lambda point: point.values["acc"], default=None)


def judged(
    table: pd.DataFrame,
    *,
    labels: list[str],
    attribute: Sequence[str] = (GENDER,),
    **support: int | None,
) -> pd.DataFrame | None:
    """The scores of fitted offsets, a row a weight, as in `line`; None without log-probabilities.

    `attribute` and `support` are as for `metrics.evaluate`.
    Raises UserError for predictions that cannot be read.
    """
    columns = [f"logp_{label}" for label in labels]
    if not set(columns) <= set(table) or not np.isfinite(table[columns].to_numpy(float)).all():
        return None
    table, coded = ordered(table, labels, attribute)
    scores = LabelScores(
        table[columns].to_numpy(float),
        (len(coded.sides) + 1) * coded.cell + coded.side,
        coded.label,
        Compared.of(
            metrics.confusions(coded)[0],
            **support,
            speakers=metrics.speakers_of_sides(table, coded),
        ),
    )
    units, unit = units_of(table, attribute)
    drawn = []
    for seed in range(HALVINGS):
        first = in_first_half(units, seed=seed)[unit]
        predictions, fitted = cross_fitted(scores, first, seed=seed)
        named = np.array(labels)[predictions]
        judged = [
            metrics.evaluate(
                table.assign(prediction=row), labels=labels, attribute=attribute, **support
            )
            for row in named
        ]
        drawn.append(np.column_stack([pd.DataFrame(judged)[list(SCORES)], fitted]))
    rows = pd.DataFrame(np.mean(drawn, 0), columns=[*SCORES, "fitted_acc", "fitted_max_gap"])
    rows.insert(0, "weight", WEIGHTS)
    return rows


def cross_fitted(
    scores: LabelScores, first: np.ndarray, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions [weights, n] by offsets of the other half, and how well these fitted there.

    The latter are accuracy and max_gap [weights, 2], means of both halves.

    Args:
        first: bool [n], the utterances of one half.
    """
    predictions, fitted = np.empty((len(WEIGHTS), len(first)), int), []
    for half in (first, ~first):
        offsets = fit(scores[half], seed=seed)
        fitted.append(np.stack(scores[half].accuracy_and_gap(offsets), -1))
        predictions[:, ~half] = scores[~half].predict(offsets)
    return predictions, np.mean(fitted, 0)


def in_first_half(units: pd.DataFrame, *, seed: int = 0) -> np.ndarray:
    """Which of `units_of` the predictions are in the first half, bool [U].

    Of each language and side half of the speakers are, as evenly in utterances as they allow; a
    speaker who is alone is cut by utterance.
    """
    first, sizes = np.zeros(len(units), bool), units["size"].to_numpy()
    random, surplus = np.random.default_rng(seed), 0  # of the first half, in utterances
    for rows in units.groupby("stratum", sort=True).indices.values():
        shuffled = random.permutation(rows)
        own = 0
        for unit in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            first[unit] = (own, surplus) <= (0, 0)
            step = sizes[unit] if first[unit] else -sizes[unit]
            own, surplus = own + step, surplus + step
    return first


def sentence(info: FrontInfo, line: pd.DataFrame) -> str:
    """What a trained point must beat, in one sentence."""
    usable = line[~line["degenerate"]]
    start = (
        f"What a trained point must beat: one offset per emotion on the scores of "
        f"{line['trial_id'].iloc[0]} (ERM), without any training"
    )
    if usable.empty:
        return f"{start}, is near a constant predictor for every trade-off, so nothing."
    first, last = usable.iloc[0], usable.iloc[-1]
    beaten = [point for point in info.front if _is_beaten(point, usable)]
    return (
        f"{start}, fitted on half of the dev speakers and judged on the other half, goes from "
        f"accuracy {100 * first['acc']:.1f} % with a gap of {100 * first['max_gap']:.1f} points to "
        f"{100 * last['acc']:.1f} % with {100 * last['max_gap']:.1f}; it beats "
        f"{len(beaten) or 'none'} of the front's {len(info.front)} points."
    )


def _is_beaten(point: Point, usable: pd.DataFrame) -> bool:
    """Whether some trade-off is as accurate and as fair as a point of the front."""
    acc, gap = usable["acc"] >= point.values["acc"], usable["max_gap"] <= point.values["max_gap"]
    return bool((acc & gap).any())


def _goals(scores: LabelScores, offsets: np.ndarray) -> np.ndarray:
    """Accuracy and negative max_gap, [M, 2]."""
    acc, gap = scores.accuracy_and_gap(offsets)
    return np.stack([acc, -np.nan_to_num(gap)], -1)
