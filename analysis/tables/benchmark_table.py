"""The paper's table (arXiv 2603.21050) for any systems, from their per-utterance predictions.

    made = table({"ERM": erm, "MinMaxGAP": other}, labels=labels, baseline="ERM")
    print(formats.to_text(made))              # and CSV, LaTeX, HTML, Markdown

A block is a cell (`de/speech`) or `overall/<modality>`, which pools a modality's utterances. All
values are fractions; what is undefined is NaN. A standard error is over speakers resampled within
language and side (`analysis.statistics.speaker_sums`); every system sees the same resamples, so
that a difference to the baseline is a paired one. It is no 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics import SpeakerSums
from analysis.statistics.uncertainty import spread
from analysis.statistics.units import ordered
from ermgap import attributes, metrics
from ermgap.config import GAP_TITLES, GENDER
from ermgap.errors import UserError
from ermgap.metrics import OVERALL, Compared, Margins
from ermgap.records import FLOOR_SHARE, is_degenerate

SCORES = ("w_f1", "acc", *(f"{name}_gap" for name in GAP_TITLES))  # the columns
COMPARED = ("avg_gap", "acc", "w_f1")  # with the baseline, on each overall block
_ORIGIN = ("split", "fold", "language", "speaker")
_COUNTS = ("n", "classes", "unparsable")


@dataclass(frozen=True, eq=False)
class BenchmarkTable:
    """What every format shows.

    Attributes:
        rows: one row per block and system: block, language, modality, system, SCORES and each with
            `_se`, n, n_<side> of each side, classes (that entered TPR and FPR gaps), unparsable,
            degenerate, and, with a baseline, `delta_<name>` and `_se` for COMPARED (NaN in cells).
        systems: one row per system: system, max_gap (largest AVG gap over cells), max_gap_se,
            worst_cell, n (cells that count for it), cells (all), degenerate.
        baseline: the system that the others are compared with, or None.
        sides: of the attribute, in order.
        facts: for the notes below the table: attribute (its title), min_support, cell_support,
            uncounted (by system, the cells that do not count for max_gap with their numbers),
            splits and synthetic (names), folds, speakers (least number in a language and side).
    """

    rows: pd.DataFrame
    systems: pd.DataFrame
    baseline: str | None
    sides: tuple[str, ...]
    facts: dict[str, object]


@dataclass(frozen=True, eq=False)
class _Measured:
    """One system: B blocks, of each modality the cells and then overall."""

    blocks: tuple[str, ...]
    sides: tuple[str, ...]
    counting: np.ndarray  # bool [B], the cells that count for max_gap
    margins: Margins  # each [B, S + 1, K], the last of unknown side
    classes: np.ndarray  # int [B], how many entered the TPR and FPR gaps
    scores: dict[str, np.ndarray]  # of SCORES, [1 + resamples, B]: as measured, then resampled
    who: dict[str, pd.DataFrame]  # identity of the utterances of each overall block


def table(
    systems: Mapping[str, pd.DataFrame],
    *,
    labels: Sequence[str],
    attribute: Sequence[str] = (GENDER,),
    min_support: int = 1,
    cell_support: int | None = None,
    speaker_support: int = 1,
    baseline: str | None = None,
    synthetic: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> BenchmarkTable:
    """Compute the table.

    Args:
        systems: by name, predictions: utterance_id, language, modality, attribute, speaker, label,
            prediction (another word than a label counts as wrong), and, for the notes, `split`.
            Modalities may be mixed; out-of-fold predictions of several folds (a column `fold`) are
            pooled.
        labels: the K class names.
        attribute: columns of the sensitive attribute; several are crossed.
        min_support, cell_support, speaker_support: what a class and a side need to be compared in
            a block, see `ermgap.metrics.Compared` (the paper's table: min_support 1).
        baseline: name of the system that the others are compared with.
        synthetic: names of corpora that are not human speech.
        resamples, seed: of the standard errors.

    A row is degenerate when its accuracy is not above always giving the block's commonest label,
    when its W-F1 is under half the baseline's, or when its system is so in the whole modality.
    Raises UserError for no system, an unknown baseline, a table that cannot be read, or an
    utterance that is predicted twice.
    """
    _check(systems, baseline, attribute)
    support = {"min_support": min_support, "cell_support": cell_support}
    whole = pd.concat([part[list(attribute)] for part in systems.values()])
    sides = attributes.sides(whole, attribute)
    options = {"labels": labels, "attribute": attribute, "sides": sides} | support
    options |= {"speaker_support": speaker_support}
    measured = {
        name: _measured(predictions, options, resamples=resamples, seed=seed)
        for name, predictions in systems.items()
    }
    counts = [*_COUNTS, *(f"n_{side}" for side in sides)]
    rows = pd.concat([_rows(*item) for item in measured.items()])
    rows = _filled(rows, list(systems), counts)
    rows["degenerate"] = _degenerate(rows, baseline)
    if baseline is not None:
        rows = rows.merge(_differences(measured, baseline), on=["system", "block"], how="left")
    poor = set(rows["system"][rows["degenerate"] & (rows["language"] == OVERALL)])
    return BenchmarkTable(
        rows=rows.drop(columns="majority_rate"),
        systems=pd.DataFrame([_largest(*item) for item in measured.items()]).assign(
            degenerate=[name in poor for name in measured]
        ),
        baseline=baseline,
        sides=sides,
        facts={
            "attribute": attributes.title(attribute),
            "min_support": min_support,
            "cell_support": metrics.minimum_per_side(**support),
            "uncounted": {name: _uncounted(part) for name, part in measured.items()},
            "synthetic": tuple(synthetic),
            **_facts(systems, attribute),
        },
    )


def _check(
    systems: Mapping[str, pd.DataFrame], baseline: str | None, attribute: Sequence[str]
) -> None:
    if baseline not in (None, *systems):
        there = ", ".join(systems)
        raise UserError(f"the baseline {baseline!r} is none of the systems; choose from {there}.")
    if not systems:
        raise UserError("the table has no system; give the predictions of one at least.")
    for name, predictions in systems.items():
        needed = ("utterance_id", "language", "modality", *attribute, "speaker")
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


def _facts(systems: Mapping[str, pd.DataFrame], attribute: Sequence[str]) -> dict[str, object]:
    """Splits, number of folds and least number of speakers of a language and side."""
    parts = [
        part.reindex(columns=_ORIGIN).assign(side=attributes.values(part, attribute))
        for part in systems.values()
    ]
    whole = pd.concat(parts)
    known = whole[whole["side"] != attributes.UNKNOWN]
    return {
        "splits": tuple(sorted(whole["split"].dropna().astype(str).unique())),
        "folds": whole["fold"].nunique(),
        "speakers": int(known.groupby(["language", "side"])["speaker"].nunique().min()),
    }


# One system ---------------------------------------------------------------------------------------


def _measured(
    predictions: pd.DataFrame, options: Mapping, *, resamples: int, seed: int
) -> _Measured:
    """Modality by modality, so that an utterance's rows in two of them get the same draws."""
    sides, support = tuple(options["sides"]), {**options}
    labels, attribute = support.pop("labels"), support.pop("attribute")
    del support["sides"]
    blocks, margins, speakers, who = [], [], [], {}
    for modality, part in predictions.groupby("modality", sort=True):
        sums = SpeakerSums.of({"": part}, **options)
        drawn = sums.draws(resamples, np.random.default_rng(seed))
        cells = np.stack(sums.margins(np.concatenate([sums.measured_weights, drawn]), ""))
        spare = len(sides) + 1 - cells.shape[-2]  # where no side is unknown
        cells = np.pad(cells, [(0, 0)] * 3 + [(0, spare), (0, 0)])
        margins += [cells, cells.sum(2, keepdims=True)]
        heard = metrics.speakers_of_sides(*ordered(part, labels, attribute, sides))
        speakers += [heard, heard.sum(0, keepdims=True)]
        blocks += [*sums.cells, f"{OVERALL}/{modality}"]
        identity = part[["utterance_id", "language", "speaker"]].astype(str)
        identity["side"] = attributes.values(part, attribute)
        who[blocks[-1]] = identity.sort_values("utterance_id", ignore_index=True)
    every, speakers = np.concatenate(margins, 2), np.concatenate(speakers)
    known, is_cell = every[..., :-1, :], np.array([block not in who for block in blocks])
    compared = Compared.of(Margins(*known[:, 0]), **support, speakers=speakers)
    counting = np.zeros(len(blocks), bool)
    of_cells = Compared.of(Margins(*known[:, 0, is_cell]), **support, speakers=speakers[is_cell])
    counting[is_cell] = of_cells.counted
    rates = metrics.rates(Margins(*known), classes=compared.classes, sides=compared.sides)
    whole, gaps = Margins(*every.sum(-2)), metrics.gap_sizes(metrics.differences(rates))
    scores = {"w_f1": metrics.weighted_f1(whole), "acc": metrics.accuracy(whole)}
    scores |= {f"{name}_gap": gaps[name] for name in GAP_TITLES}
    classes = compared.classes.any(-2).sum(-1)
    return _Measured(tuple(blocks), sides, counting, Margins(*every[:, 0]), classes, scores, who)


def _rows(system: str, part: _Measured) -> pd.DataFrame:
    frame = pd.DataFrame({"block": part.blocks, "system": system})
    for key in SCORES:
        frame[key], frame[f"{key}_se"] = part.scores[key][0], spread(part.scores[key][1:])
    n, truth = part.margins.support.sum(-1), part.margins.support.sum(-2)
    unparsable = n.sum(1) - part.margins.predicted.sum((-2, -1))
    frame[list(_COUNTS)] = np.stack([n.sum(1), part.classes, unparsable], axis=1)
    for side, count in zip(part.sides, n.T[:-1], strict=True):
        frame[f"n_{side}"] = count
    return frame.assign(majority_rate=truth.max(-1) / truth.sum(-1))


def _filled(rows: pd.DataFrame, systems: list[str], counts: list[str]) -> pd.DataFrame:
    """A row for every block and system, in order; n = 0 where a system has no predictions."""
    names = {block: block.split("/", 1) for block in rows["block"]}
    blocks = sorted(names, key=lambda b: (names[b][1], names[b][0] == OVERALL, b))
    index = pd.MultiIndex.from_product([blocks, systems], names=["block", "system"])
    whole = rows.set_index(["block", "system"]).reindex(index).reset_index()
    whole.insert(1, "language", [names[block][0] for block in whole["block"]])
    whole.insert(2, "modality", [names[block][1] for block in whole["block"]])
    return whole.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int))


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


def _uncounted(part: _Measured) -> dict[str, str]:
    """The cells that do not count for max_gap with their numbers, by name."""
    n = part.margins.support.sum(-1).astype(int)
    return {
        block: f"{metrics.listed(dict(zip(part.sides, of_block, strict=False)))} utterances"
        for block, counts, of_block in zip(part.blocks, part.counting, n, strict=True)
        if not counts and block not in part.who
    }


def _largest(system: str, part: _Measured) -> dict:
    """The largest AVG gap over the cells that count; its error is of each resample's maximum."""
    gaps = np.where(part.counting, part.scores["avg_gap"], np.nan)
    gaps = np.where(np.isfinite(gaps), gaps, -np.inf)
    largest, known = gaps.max(1), np.isfinite(gaps[0]).any()
    return {
        "system": system,
        "max_gap": float(largest[0]) if known else np.nan,
        "max_gap_se": float(spread(largest[1:])),
        "worst_cell": part.blocks[int(gaps[0].argmax())] if known else None,
        "n": int(part.counting.sum()),
        "cells": len(part.blocks) - len(part.who),
    }


def _differences(measured: Mapping[str, _Measured], baseline: str) -> pd.DataFrame:
    """`delta_<name>` and `_se` per system and overall block; NaN where the utterances differ."""
    rows, base = [], measured[baseline]
    for name, part in measured.items():
        for block, who in part.who.items():
            rows.append({"system": name, "block": block})
            if block in base.who and who.equals(base.who[block]):
                mine, its = part.blocks.index(block), base.blocks.index(block)
                for key in COMPARED:
                    change = part.scores[key][:, mine] - base.scores[key][:, its]
                    rows[-1][f"delta_{key}"] = change[0]
                    rows[-1][f"delta_{key}_se"] = float(spread(change[1:]))
    columns = [f"delta_{key}{end}" for key in COMPARED for end in ("", "_se")]
    return pd.DataFrame(rows, columns=["system", "block", *columns])
