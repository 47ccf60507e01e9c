"""How often the intervals of `analysis/` hold the truth, by simulation.

    make figures-coverage                       # resumable: a row a simulated dev set
    make figures-coverage ARGS="--sets 40"      # a quick look
    make figures-coverage ARGS="--minutes 4"    # a piece; the table counts the sets it is of

Three languages, 200 utterances a gender and language, five classes, speakers with a normal effect
on the logit; women of one language are recognised less by what makes the true max_gap (of
infinitely many speakers and utterances) the wanted one. Then numbers of speakers that differ, down
to one; a class that few women say; and pairs of models on the same utterances, whose speakers
either have the same effects under both or effects of their own. Writes results/coverage.md, and
beside it coverage.jsonl, which git does not keep: it takes half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import product
from multiprocessing import Pool
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import coverage_table
import numpy as np
import pandas as pd
from coverage_sets import (
    COUNTS,
    LABELS,
    LANGUAGES,
    SAID,
    Model,
    dev_set,
    dev_sets,
    handicap_of,
    true_gaps,
)

from analysis.statistics import SpeakerSums, intervals, null_band, paired
from analysis.statistics.speaker_sums import largest_gap
from ermgap import metrics

RESULTS = Path(__file__).parent / "results"
GAPS, SPEAKERS, SHARES = (0.0, 0.02, 0.05, 0.15), (6, 12, 40), ("equal", "unequal")
RESAMPLES = 600
SAYERS = (1, 2, 4)


ALIKE = {  # ERM and another of the same true gap
    "15 in three cells, 15 in one": (Model(0.15, 3), Model(0.15)),
    "30 in three cells, 30 in one": (Model(0.3, 3), Model(0.3)),
    "fair, and fair and more accurate": (Model(0.0, ease=-1.0), Model(0.0, ease=1.5)),
    "15, and 15 and more accurate": (Model(0.15), Model(0.15, ease=0.5)),
}
FALLS = {  # and another of a smaller one
    "15 to 0": (Model(0.15), Model(0.0)),
    "30 to 0": (Model(0.3), Model(0.0)),
    "30 to 5 in three cells": (Model(0.3, 3), Model(0.05, 3)),
}
PAIRS = ALIKE | FALLS


def main() -> None:
    """Run what is missing, then write the table."""
    parser = arguments()
    parser.add_argument(
        "--fair-sets", type=int, default=1000, help="where the true gap or its change is 0"
    )
    given = parser.parse_args()
    done = simulate(given, "coverage", wanted(given.sets, given.fair_sets), run)
    text = coverage_table.write(done)
    (given.out / "coverage.md").write_text(text, encoding="utf-8")
    print(text)


def arguments() -> argparse.ArgumentParser:
    """The options of a simulation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=400, help="dev sets a setting")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after these")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def simulate(
    given: argparse.Namespace, name: str, jobs: Sequence[tuple], run: Callable[[tuple], dict]
) -> list[dict]:
    """The rows of NAME.jsonl, those of `jobs` that it lacked added; fewer where time ended."""
    rows, end = given.out / f"{name}.jsonl", time.monotonic() + 60 * given.minutes
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    known = {tuple(row["job"]) for row in done}
    jobs = [job for job in jobs if job not in known]
    with Pool(given.processes) as pool, open(rows, "a", encoding="utf-8") as file:
        for row in pool.imap_unordered(run, jobs):
            done.append(row)
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
            file.flush()
            if time.monotonic() > end:
                break
    return done


def wanted(sets: int, fair_sets: int) -> list[tuple]:
    """Every simulated dev set, as arguments of `run`: all settings of a seed before the next."""
    settings = [("one", *setting) for setting in product(GAPS, SPEAKERS, SHARES)]
    settings += [("one", gap, name, "equal") for gap in (0.0, 0.15) for name in COUNTS]
    settings += [("one", gap, name, "unequal") for gap in (0.0, 0.15) for name in list(COUNTS)[:3]]
    settings += [("few", sayers) for sayers in SAYERS]
    among = (4, 12, "2 F 8 M")
    settings += [("pair", name, *rest) for name in ALIKE for rest in product(among, (0, 1))]
    settings += [("pair", name, number, 1) for name in FALLS for number in (4, 12, 40)]
    fair = {setting: setting[1] == 0.0 or setting[1] in ALIKE for setting in settings}
    return [
        (*setting, seed)
        for seed in range(max(sets, fair_sets))
        for setting in settings
        if seed < (fair_sets if fair[setting] else sets)
    ]


def run(job: tuple) -> dict:
    """The row of one simulated dev set."""
    kind, *rest = job
    return {"job": list(job), **KINDS[kind](tuple(rest))}


def one(job: tuple[float, int | str, str, int]) -> dict:
    """What the intervals of one simulated dev set hold; None of what has no interval."""
    gap, speakers, shares, seed = job
    handicap = handicap_of(gap)
    rng = np.random.default_rng((seed, _number(speakers), int(1000 * gap), SHARES.index(shares)))
    sums = SpeakerSums.of({"model": dev_set(handicap, speakers, shares, rng)}, labels=LABELS)
    told = with_truth(sums, true_gaps(handicap))
    bound = intervals.max_gap_interval(sums, "model", sums.draws(RESAMPLES, rng))
    band = null_band.fair(sums, "model", worlds=RESAMPLES)
    return {
        "gap": gap, "speakers": speakers, "shares": shares, "seed": seed,
        **held(told),
        "width": rounded((told["high"] - told["low"])[told["metric"] == "acc"].mean()),
        "measured": rounded(bound.measured), "corrected": rounded(bound.corrected),
        "at_most": rounded(bound.at_most), "band": rounded(band.high),
    }  # fmt: skip


def few(job: tuple[int, int]) -> dict:
    """Whether the recall of a class that `sayers` of eight German women say has an interval."""
    sayers, seed = job
    rng = np.random.default_rng((seed, sayers))
    table = dev_set(handicap_of(0.15), 16, "equal", rng, sayers=sayers)
    told = with_truth(SpeakerSums.of({"model": table}, labels=LABELS), true_gaps(handicap_of(0.15)))
    row = told.query("cell == 'de/speech' and metric == 'tpr'")
    row = row[row["class"] == SAID]
    there = bool(row["low"].notna().any())
    return {"sayers": sayers, "seed": seed, "support": bool(len(row)), "there": there,
            "held_tpr": held(row).get("held_tpr"),
            "width": rounded((row["high"] - row["low"]).mean())}  # fmt: skip


def pair(job: tuple[str, int | str, int, int]) -> dict:
    """What is said of the change from one model to another on the same utterances."""
    name, speakers, same, seed = job
    rng = np.random.default_rng((seed, _number(speakers), same, list(PAIRS).index(name)))
    erm, other = dev_sets(PAIRS[name], speakers, "equal", rng, same=bool(same))
    sums = SpeakerSums.of({"erm": erm, "other": other}, labels=LABELS)
    change = paired.paired_differences(sums, "other", "erm", sums.draws(RESAMPLES, rng))["max_gap"]
    truth = [float(largest_gap(true_gaps(handicap_of(*one), *one[1:]))) for one in PAIRS[name]]
    right = truth[1] - truth[0]
    return {"pair": name, "speakers": speakers, "same": same, "seed": seed,
            "truth": rounded(right), "value": rounded(change.value),
            "low": rounded(change.low), "high": rounded(change.high),
            "held": change.low <= right <= change.high, "fell": change.high < 0,
            "rose": change.low > 0, "sure": change.below > 0.95}  # fmt: skip


KINDS = {"one": one, "few": few, "pair": pair}


def with_truth(sums: SpeakerSums, truth: np.ndarray) -> pd.DataFrame:
    """`intervals.signed_gaps` of the sums of one model, with a column `right`."""
    told = intervals.signed_gaps(sums, "model")
    cell = [LANGUAGES.index(name.split("/")[0]) for name in told["cell"]]
    order = intervals.parts(sums)
    part = [order.index(one) for one in zip(told["metric"], told["class"], strict=True)]
    places = list(zip(*metrics.pairs(len(sums.sides)), strict=True))
    sides = zip(told["first"], told["second"], strict=True)
    which = [places.index(tuple(map(sums.sides.index, both))) for both in sides]
    return told.assign(right=truth[cell, which, part])


def held(told: pd.DataFrame) -> dict[str, float | None]:
    """Of the intervals there are, the share that holds the truth, as `held_METRIC`."""
    told = told[told["low"].notna()]
    inside = (told["low"] <= told["right"]) & (told["right"] <= told["high"])
    shares = inside.groupby(told["metric"]).mean()
    return {f"held_{metric}": rounded(share) for metric, share in shares.items()}


def rounded(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def _number(speakers: int | str) -> int:
    return speakers if isinstance(speakers, int) else 1000 + list(COUNTS).index(speakers)


if __name__ == "__main__":
    main()
