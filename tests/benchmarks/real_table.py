"""The table of runs over speaker folds and seeds, from the sums over speakers in their rows.

A system's metric is its mean over seeds, each of all held-out utterances together. Intervals of
paired differences to ERM are Student's over speakers, with the jackknife's standard error or the
bootstrap's where that is larger; the largest gap's have the bounds of analysis.statistics.paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics import SpeakerSums, paired
from analysis.statistics.jackknife import jackknife
from analysis.statistics.speaker_sums import largest_gap
from ermgap import metrics
from ermgap.config import GENDER, GENDERS, MELD_LABELS
from ermgap.metrics import Compared, Margins

BASELINE = "ERM"
MIN_SUPPORT = 5
RESAMPLES = 1000
COLUMNS = {
    "acc": "accuracy",
    "worst_group": "worst group's W-F1",
    "max_gap": "largest gap",
    "avg_gap": "AVG gap",
}


def speaker_counts(predictions: pd.DataFrame) -> dict[str, list]:
    """By `language/gender/speaker`: true utterances, hits and predictions of each label."""
    sums = {}
    for speaker, part in predictions.groupby(["language", "gender", "speaker"]):
        hits = part[part["label"] == part["prediction"]]
        sums["/".join(speaker)] = [
            [int((column == label).sum()) for label in MELD_LABELS]
            for column in (part["label"], hits["label"], part["prediction"])
        ]
    return sums


def sums_of(rows: Sequence[Mapping], *, folds: int) -> SpeakerSums:
    """The sums of every system (name, seed) that has all of its folds.

    A speaker that is held out more than once counts in the first of these folds.
    """
    held_out: dict[tuple, dict] = {}
    done: dict[tuple, int] = {}
    for row in sorted(rows, key=lambda row: row["fold"]):
        key = row["name"], row["seed"]
        held_out[key] = row["speakers"] | held_out.get(key, {})
        done[key] = done.get(key, 0) + 1
    complete = {key: held_out[key] for key, n in done.items() if n == folds}
    speakers = sorted(next(iter(complete.values())))
    units = pd.DataFrame([name.split("/")[:2] for name in speakers], columns=["language", "side"])
    languages = sorted(units["language"].unique())
    cell = units["language"].map(languages.index).to_numpy()
    counts = {}
    for key, sums in complete.items():
        counts[key] = np.zeros((len(units), len(languages), len(MELD_LABELS), 3))
        counts[key][np.arange(len(units)), cell] = [np.transpose(sums[name]) for name in speakers]
    support = next(iter(counts.values()))[..., 0]
    both = np.stack([support[(units["side"] == g).to_numpy()].sum(0) for g in GENDERS], 1)
    return SpeakerSums(
        labels=MELD_LABELS,
        cells=tuple(f"{language}/speech" for language in languages),
        sides=GENDERS,
        attribute=(GENDER,),
        units=units.assign(
            stratum=units.groupby(["language", "side"]).ngroup(),
            speaker=np.arange(len(units)),
            is_lone=False,
            size=support.sum((1, 2)),
        ),
        counts=counts,
        confusions={},
        compared=Compared.of(Margins(both, both, both), min_support=MIN_SUPPORT),
    )


def values(sums: SpeakerSums, weights: np.ndarray, keys: Sequence[tuple]) -> np.ndarray:
    """COLUMNS of a system's seeds `keys`, their means, [resamples, columns]."""
    seeds = []
    for key in keys:
        margins = sums.margins(weights, key)
        pooled = Margins(*(part.sum(-3) for part in margins))
        whole = Margins(*(part.sum(-2) for part in pooled))
        measured = Margins(*(part.sum(1) for part in sums.margins(sums.measured_weights, key)))
        of_pooled = Compared.of(measured, min_support=MIN_SUPPORT)
        rates = metrics.rates(pooled, classes=of_pooled.classes, sides=of_pooled.sides)
        seeds.append(
            [
                metrics.accuracy(whole),
                metrics.weighted_f1(margins).min((-2, -1)),
                largest_gap(metrics.differences(sums.rates_of_margins(margins))),
                metrics.gap_sizes(metrics.differences(rates))["avg"],
            ]
        )
    return np.mean(seeds, 0).T


class Paired:
    """Differences of a system to the baseline over the seeds that both have.

    Attributes, each [columns] in fractions: difference; se, half: its standard error, and half of
    its 95 % interval.
    """

    def __init__(self, sums: SpeakerSums, name, weights: np.ndarray, *, baseline=BASELINE) -> None:
        seeds = seeds_of(sums, name, baseline)
        measured, without, drawn = (
            values(sums, w, [(name, seed) for seed in seeds])
            - values(sums, w, [(baseline, seed) for seed in seeds])
            for w in (sums.measured_weights, sums.without_each(), weights)
        )
        share = np.repeat(sums.units[["size"]] / sums.units["size"].sum(), len(COLUMNS), axis=1)
        self.difference = measured[0]
        se, df = jackknife(sums, measured[0], without, np.asarray(share))
        self.se = np.maximum(se, drawn.std(0, ddof=1))
        self.half = stats.t.ppf(0.975, df) * self.se

    def shown(self) -> list[str]:
        """Each difference and its interval, in points."""
        both = zip(self.difference, self.half, strict=True)
        return [f"{100 * value:+.1f} ± {100 * half:.1f}" for value, half in both]


def largest_gap_difference(
    sums: SpeakerSums, name: str, weights: np.ndarray
) -> paired.PairedDifference:
    """That of the largest gap to ERM, over the seeds that both have."""
    seeds = seeds_of(sums, name)
    mine, theirs = (
        paired.mixture(
            [1 / len(seeds)] * len(seeds),
            [paired.scores(sums, (of, seed), weights) for seed in seeds],
        )
        for of in (name, BASELINE)
    )
    return paired.difference(sums, mine, theirs)["max_gap"]


def seeds_of(sums: SpeakerSums, name, baseline=BASELINE) -> list[int]:
    """The seeds that a system and the baseline have."""
    return [seed for of, seed in sums.counts if of == name and (baseline, seed) in sums.counts]


def table(rows: Sequence[Mapping], systems: Sequence[str], *, folds: int) -> str:
    """Markdown: per system the means over seeds, then the paired differences to ERM."""
    sums = sums_of(rows, folds=folds)
    weights = sums.draws(RESAMPLES, np.random.default_rng(0))
    n = len(sums.units)
    less = [f"{name} less ERM's" for name in COLUMNS.values()]
    heads = ["seeds", *COLUMNS.values(), *less, "speakers needed", "losses pushed up"]
    lines = ["| system | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    level = []
    for name in systems:
        if not (seeds := seeds_of(sums, name)):
            continue
        measured = values(sums, sums.measured_weights, [(name, seed) for seed in seeds])[0]
        raised = [r["raised_share"] for r in rows if r["name"] == name and r["seed"] in seeds]
        cells = [str(len(seeds)), *(f"{100 * value:.1f}" for value in measured)]
        if name == BASELINE:
            cells += [""] * (len(COLUMNS) + 1)
        else:
            change = Paired(sums, name, weights)
            gap = largest_gap_difference(sums, name, weights)
            shown, needed = change.shown(), paired.speakers_needed(gap, n)
            shown[list(COLUMNS).index("max_gap")] = (
                f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
            )
            cells += [*shown, "no fall" if needed is None else f"{needed:,}"]
            gain = dict(zip(COLUMNS, change.difference, strict=True))
            if gain["max_gap"] < 0 and gain["worst_group"] < 0:
                level.append(name)
        lines.append(f"| {name} | " + " | ".join([*cells, f"{100 * np.mean(raised):.1f}"]) + " |")
    note = (
        f"Percent and points; EmoDB and RAVDESS, {folds} speaker folds, the last epoch, "
        f"{int(sums.units['size'].sum()):,} utterances of {n} speakers, each judged by a model "
        "that never heard it; means over seeds. Differences are paired, with 95 % intervals over "
        "speakers; of the largest gap, which errors raise, the bounds allow for that bias. AVG "
        "gap: of both languages together. *Speakers needed*: for the largest gap's upper bound to "
        "be under zero, if the fall stays and errors shrink as 1/sqrt(n). *Losses pushed up*: "
        "share of the utterances whose losses a step raised. Levelling down, a smaller gap with a "
        "worse worst group: "
        f"{'; '.join(level) or 'none'}."
    )
    return "\n".join([*lines, "", note, ""])
