"""The paper's table (arXiv 2603.21050) for any systems, from their per-utterance predictions.

    made = table({"ERM": erm, "MinMaxGAP": other}, labels=labels, baseline="ERM")
    print(formats.to_text(made))              # and CSV, LaTeX, HTML, Markdown

A block is a cell (`de/speech`) or `overall/<modality>`, which pools a modality's utterances. All
values are fractions; what is undefined is NaN. A standard error is over speakers resampled within
language and gender (`analysis.statistics.speaker_sums`); every system sees the same resamples, so
that a difference to the baseline is a paired one. It is no 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics import SpeakerSums
from analysis.statistics.uncertainty import spread
from ermgap import metrics
from ermgap.config import GAP_TITLES
from ermgap.errors import UserError
from ermgap.metrics import OVERALL, Margins
from ermgap.records import FLOOR_SHARE, is_degenerate

SCORES = ("w_f1", "acc", *(f"{name}_gap" for name in GAP_TITLES))  # the columns
COMPARED = ("avg_gap", "acc", "w_f1")  # with the baseline, on each overall block
_ORIGIN = ("split", "fold", "language", "gender", "speaker")
_COUNTS = ("n", "n_female", "n_male", "classes", "unparsable")


@dataclass(frozen=True, eq=False)
class BenchmarkTable:
    """What every format shows.

    Attributes:
        rows: one row per block and system: block, language, modality, system, SCORES and each with
            `_se`, n, n_female, n_male, classes (that entered the TPR and FPR gaps), unparsable,
            degenerate, and, with a baseline, `delta_<name>` and `_se` for COMPARED (NaN in cells).
        systems: one row per system: system, max_gap (largest AVG gap over cells), max_gap_se,
            worst_cell, n (cells that count for it), cells (all), degenerate.
        baseline: the system that the others are compared with, or None.
        facts: for the notes below the table: min_support, cell_support, uncounted (by system, the
            cells that do not count for max_gap with their numbers), splits and synthetic (names),
            folds, speakers (least number in a language and gender).
    """

    rows: pd.DataFrame
    systems: pd.DataFrame
    baseline: str | None
    facts: dict[str, object]


@dataclass(frozen=True, eq=False)
class _Modality:
    """One system in one modality; the resampled arrays have a leading axis of resamples."""

    blocks: tuple[str, ...]  # the cells, then overall
    scores: dict[str, np.ndarray]  # of SCORES, [blocks]
    drawn: dict[str, np.ndarray]  # the same, [resamples, blocks]
    counts: np.ndarray  # [blocks, 2, K, K + 1]
    classes: np.ndarray  # [blocks] that entered the TPR and FPR gaps
    who: pd.DataFrame  # identity of the utterances


def table(
    systems: Mapping[str, pd.DataFrame],
    *,
    labels: Sequence[str],
    min_support: int = 1,
    cell_support: int | None = None,
    baseline: str | None = None,
    synthetic: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> BenchmarkTable:
    """Compute the table.

    Args:
        systems: by name, predictions: utterance_id, language, modality, gender, speaker, label,
            prediction (another word than a label counts as wrong), and, for the notes, `split`.
            Modalities may be mixed; out-of-fold predictions of several folds (a column `fold`) are
            pooled.
        labels: the K class names.
        min_support: a class enters the TPR and FPR gaps of a block when each gender has at least so
            many true utterances of it there (the paper's table: 1).
        cell_support: a cell counts for max_gap when each gender has at least so many utterances
            there (None: twice min_support); see `ermgap.metrics.counted_cells`.
        baseline: name of the system that the others are compared with.
        synthetic: names of corpora that are not human speech.
        resamples, seed: of the standard errors.

    A row is degenerate when its accuracy is not above always giving the block's commonest label,
    when its W-F1 is under half the baseline's, or when its system is so in the whole modality.
    Raises UserError for no system, an unknown baseline, a table that cannot be read, or an
    utterance that is predicted twice.
    """
    _check(systems, baseline)
    options = {"labels": labels, "min_support": min_support, "resamples": resamples, "seed": seed}
    measured = {name: _by_modality(predictions, **options) for name, predictions in systems.items()}
    support = {"min_support": min_support, "cell_support": cell_support}
    counting = {name: _counting(parts, **support) for name, parts in measured.items()}
    rows = _filled(pd.concat([_rows(*item) for item in measured.items()]), list(systems))
    rows["degenerate"] = _degenerate(rows, baseline)
    if baseline is not None:
        rows = rows.merge(_differences(measured, baseline), on=["system", "block"], how="left")
    poor = set(rows["system"][rows["degenerate"] & (rows["language"] == OVERALL)])
    return BenchmarkTable(
        rows=rows.drop(columns="majority_rate"),
        systems=pd.DataFrame(
            [_largest(name, parts, counting[name]) for name, parts in measured.items()]
        ).assign(degenerate=[name in poor for name in measured]),
        baseline=baseline,
        facts={
            "min_support": min_support,
            "cell_support": metrics.minimum_per_side(**support),
            "uncounted": {n: _uncounted(measured[n], there) for n, there in counting.items()},
            "synthetic": tuple(synthetic),
            **_facts(systems),
        },
    )


def _check(systems: Mapping[str, pd.DataFrame], baseline: str | None) -> None:
    if baseline not in (None, *systems):
        there = ", ".join(systems)
        raise UserError(f"the baseline {baseline!r} is none of the systems; choose from {there}.")
    if not systems:
        raise UserError("the table has no system; give the predictions of one at least.")
    for name, predictions in systems.items():
        needed = ("utterance_id", "language", "modality", "gender", "speaker")
        if missing := [column for column in needed if column not in predictions]:
            raise UserError(f"the predictions of {name} lack the column(s) {', '.join(missing)}.")
        if predictions.empty:
            raise UserError(f"the predictions of {name} are empty; leave the system out.")
        twice = predictions.duplicated(["utterance_id", "modality"])
        if twice.any():
            raise UserError(
                f"the predictions of {name} hold the utterance "
                f"{predictions['utterance_id'][twice].iloc[0]!r} twice in one modality; "
                "give each utterance one prediction, of the fold in which it was left out."
            )


def _facts(systems: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """Splits, number of folds and least number of speakers of a language and gender."""
    whole = pd.concat([part.reindex(columns=_ORIGIN) for part in systems.values()])
    return {
        "splits": tuple(sorted(whole["split"].dropna().astype(str).unique())),
        "folds": whole["fold"].nunique(),
        "speakers": int(whole.groupby(["language", "gender"])["speaker"].nunique().min()),
    }


# One system ---------------------------------------------------------------------------------------


def _by_modality(predictions: pd.DataFrame, *, seed: int, **options) -> dict[str, _Modality]:
    """By modality, so that an utterance's rows in two of them get the same draws."""
    return {
        modality: _measured(part, rng=np.random.default_rng(seed), **options)
        for modality, part in predictions.groupby("modality", sort=True)
    }


def _measured(
    part: pd.DataFrame,
    *,
    labels: Sequence[str],
    min_support: int,
    resamples: int,
    rng: np.random.Generator,
) -> _Modality:
    coded = metrics.encode(part, labels=labels)
    (counts,) = _pooled((metrics.confusions(coded),), cells=-4)
    classes = metrics.supported_classes(counts, min_support=min_support)
    sums = SpeakerSums.of({"": part}, labels=labels, min_support=min_support)
    drawn = sums.margins(sums.draws(resamples, rng), "")
    who = part[["utterance_id", "language", "gender", "speaker"]].astype(str)
    return _Modality(
        blocks=(*coded.cells, f"{OVERALL}/{part['modality'].iloc[0]}"),
        scores=_scores(counts, classes),
        drawn=_scores(Margins(*_pooled(drawn, cells=-3)), classes),
        counts=counts,
        classes=classes.sum(-1),
        who=who.sort_values("utterance_id").reset_index(drop=True),
    )


def _pooled(parts: Sequence[np.ndarray], *, cells: int) -> list[np.ndarray]:
    """Counts or margins with the sum over axis `cells` behind the last cell."""
    return [np.concatenate([part, part.sum(cells, keepdims=True)], axis=cells) for part in parts]


def _scores(counts: np.ndarray | Margins, classes: np.ndarray) -> dict[str, np.ndarray]:
    """SCORES of counts [..., blocks, 2, K, K + 1] or their margins, each [..., blocks]."""
    margins = Margins.of(counts)
    both = Margins(*(part.sum(-2) for part in margins))
    gaps = metrics.gender_gaps(margins, classes=classes)
    named = {f"{name}_gap": gaps[name] for name in GAP_TITLES}
    return {"w_f1": metrics.weighted_f1(both), "acc": metrics.accuracy(both)} | named


def _rows(system: str, parts: Mapping[str, _Modality]) -> pd.DataFrame:
    frames = []
    for part in parts.values():
        frame = pd.DataFrame({"block": part.blocks, "system": system})
        for key in SCORES:
            frame[key], frame[f"{key}_se"] = part.scores[key], spread(part.drawn[key])
        n, truth = part.counts.sum((-2, -1)), part.counts.sum((-3, -1))
        counts = (n.sum(1), *n.T, part.classes, part.counts[..., -1].sum((-2, -1)))
        frame[list(_COUNTS)] = np.stack(counts, axis=1)
        frame["majority_rate"] = truth.max(-1) / truth.sum(-1)
        frames.append(frame)
    return pd.concat(frames)


def _filled(rows: pd.DataFrame, systems: list[str]) -> pd.DataFrame:
    """A row for every block and system, in order; n = 0 where a system has no predictions."""
    names = {block: block.split("/", 1) for block in rows["block"]}
    blocks = sorted(names, key=lambda b: (names[b][1], names[b][0] == OVERALL, b))
    index = pd.MultiIndex.from_product([blocks, systems], names=["block", "system"])
    whole = rows.set_index(["block", "system"]).reindex(index).reset_index()
    whole.insert(1, "language", [names[block][0] for block in whole["block"]])
    whole.insert(2, "modality", [names[block][1] for block in whole["block"]])
    return whole.fillna(dict.fromkeys(_COUNTS, 0)).astype(dict.fromkeys(_COUNTS, int))


def _degenerate(rows: pd.DataFrame, baseline: str | None) -> pd.Series:
    of_baseline = rows[rows["system"] == baseline].set_index("block")["w_f1"]
    floors = rows["block"].map(FLOOR_SHARE * of_baseline)
    columns = (rows["acc"], rows["w_f1"], rows["majority_rate"], floors)
    own = [
        is_degenerate(acc=a, w_f1=f, majority_rate=m, floor=None if np.isnan(low) else low)
        for a, f, m, low in zip(*columns, strict=True)
    ]
    there = rows["n"] > 0
    own = there & np.array(own)
    whole = own & (rows["language"] == OVERALL)
    return own | (there & whole.groupby([rows["system"], rows["modality"]]).transform("any"))


def _counting(parts: Mapping[str, _Modality], **support) -> np.ndarray:
    """The cells that count for max_gap, bool [cells of all modalities]."""
    return metrics.counted_cells(
        np.concatenate([part.counts[:-1] for part in parts.values()]), **support
    )


def _uncounted(parts: Mapping[str, _Modality], counting: np.ndarray) -> dict[str, str]:
    """The others with their numbers, by name."""
    sides = [
        (block, *n)
        for part in parts.values()
        for block, n in zip(part.blocks[:-1], part.counts[:-1].sum((-2, -1)), strict=True)
    ]
    return {
        block: f"{int(female)} female and {int(male)} male utterances"
        for (block, female, male), counts in zip(sides, counting, strict=True)
        if not counts
    }


def _largest(system: str, parts: Mapping[str, _Modality], counting: np.ndarray) -> dict:
    """The largest AVG gap over the cells that count; its error is of each resample's maximum."""
    cells = [block for part in parts.values() for block in part.blocks[:-1]]
    gaps = np.concatenate([part.scores["avg_gap"][:-1] for part in parts.values()])
    gaps = np.where(counting, gaps, np.nan)
    drawn = np.concatenate([part.drawn["avg_gap"][:, :-1] for part in parts.values()], axis=1)
    drawn = np.where(counting, drawn, np.nan)
    largest_gap = np.where(np.isfinite(drawn), drawn, -np.inf).max(1)
    known = np.isfinite(gaps).any()
    return {
        "system": system,
        "max_gap": float(np.nanmax(gaps)) if known else np.nan,
        "max_gap_se": float(spread(largest_gap)),
        "worst_cell": cells[int(np.nanargmax(gaps))] if known else None,
        "n": int(counting.sum()),
        "cells": len(counting),
    }


def _differences(measured: Mapping[str, Mapping[str, _Modality]], baseline: str) -> pd.DataFrame:
    """`delta_<name>` and `_se` per system and overall block; NaN where the utterances differ."""
    rows = []
    for name, parts in measured.items():
        for modality, part in parts.items():
            base = measured[baseline].get(modality)
            row = {"system": name, "block": part.blocks[-1]}
            same = base is not None and part.who.equals(base.who)
            for key in COMPARED:
                if same:
                    row[f"delta_{key}"] = part.scores[key][-1] - base.scores[key][-1]
                    drawn = part.drawn[key][:, -1] - base.drawn[key][:, -1]
                    row[f"delta_{key}_se"] = float(spread(drawn))
            rows.append(row)
    columns = [f"delta_{key}{end}" for key in COMPARED for end in ("", "_se")]
    return pd.DataFrame(rows, columns=["system", "block", *columns])
