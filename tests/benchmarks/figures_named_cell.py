"""How often a fall in a cell that was named before the sweep is claimed, by simulation.

    make figures-named-cell                       # resumable: a row a simulated dev set
    make figures-named-cell ARGS="--sets 40"      # a quick look

Dev sets of one language as in `figures_coverage.py`, ERM and other models on the same utterances.
Writes results/named_cell.md, and beside it
named_cell.jsonl, which git does not keep: it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from coverage_sets import LABELS, Model, dev_sets

from analysis.statistics import SpeakerSums, paired

RESULTS = Path(__file__).parent / "results"
LANGUAGE = "de"
RESAMPLES = 300
SIZES = ((8, 80), (12, 200), (24, 200), (40, 200))  # speakers, and utterances a gender, of the cell
SAME = {"nothing": False, "speakers": "speakers", "all": True}  # what is as hard for all models

FAIR = Model(0.0)
NO_FALL = {  # ERM, and one or more others whose gap in the cell is no smaller
    "both fair": (FAIR, FAIR),
    "both fair, the other more accurate": (Model(0.0, ease=-1.0), Model(0.0, ease=1.5)),
    "both fair, the other mostly one answer": (FAIR, Model(0.0, constant=0.6)),
    "both 15": (Model(0.15), Model(0.15)),
    "both 15, the other more accurate": (Model(0.15), Model(0.15, ease=0.5)),
    "both 10, ERM's in one emotion": (Model(0.1, alone="neutral"), Model(0.1)),
    "fair, the other 15": (FAIR, Model(0.15)),
    "fair, and five fair others: any": (FAIR,) * 6,
}
FALLS = {
    "20 to 15": (Model(0.2), Model(0.15)),
    "20 to 10": (Model(0.2), Model(0.1)),
    "20 to 5": (Model(0.2), Model(0.05)),
    "15 to 0": (Model(0.15), Model(0.0)),
}
MODELS = NO_FALL | FALLS

HEAD = (
    "# A fall in a cell that was named before the sweep\n\n"
    "% of simulated dev sets (`tests/benchmarks/figures_named_cell.py`) in which a report says "
    "that the gap in the named cell is surely lower than ERM's: where there is no true fall, that "
    "is an error (5 at most is wanted); where there is one, it is power. Speakers, and utterances "
    "a gender, are those of the cell; as hard for all models are the same speakers, the same "
    "speakers and utterances (all), or nothing. Then in points: the true change, means as "
    "measured, of the lower and of the upper bound.\n\n"
    "| gap of ERM and of the other | speakers | utterances | as hard | sets | surely lower | true "
    "| measured | low | high |\n|---|---|---|---|---|---|---|---|---|---|\n"
)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=400, help="dev sets a setting")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after these")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    path, end = given.out / "named_cell.jsonl", time.monotonic() + 60 * given.minutes
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {tuple(row["job"]) for row in rows}
    with open(path, "a", encoding="utf-8") as file:
        for job in wanted(given.sets):
            if job in known:
                continue
            if time.monotonic() > end:
                break
            rows.append(run(job))
            file.write(json.dumps(rows[-1], separators=(",", ":")) + "\n")
            file.flush()
    text = table(rows)
    (given.out / "named_cell.md").write_text(text, encoding="utf-8")
    print(text)


def wanted(sets: int) -> list[tuple]:
    """Every simulated dev set, as arguments of `run`: all settings of a seed before the next."""
    one = [(name, *rest, "nothing") for name, rest in product(NO_FALL, SIZES)]
    some = [(name, *rest, "speakers") for name, rest in product(MODELS, SIZES)]
    settings = [*one, *some, *((name, *rest, "all") for name, rest in product(FALLS, SIZES))]
    return [(*setting, seed) for seed in range(sets) for setting in settings]


def run(job: tuple[str, int, int, str, int]) -> dict:
    """What is said of the change of the named cell's gap, in one simulated dev set.

    With several others `fell` is whether it is said of any, and the rest is of the first.
    """
    name, speakers, each, same, seed = job
    key = (seed, speakers, each, list(SAME).index(same), list(MODELS).index(name))
    rng, there = np.random.default_rng(key), {LANGUAGE: (speakers // 2, speakers // 2)}
    made = dev_sets(MODELS[name], there, "equal", rng, same=SAME[same], each=each)
    tables = {str(number): part for number, part in enumerate(made)}
    sums = SpeakerSums.of(tables, labels=LABELS, cell=f"{LANGUAGE}/speech")
    weights = sums.draws(RESAMPLES, rng)
    scores = {number: paired.scores(sums, number, weights) for number in tables}
    changes = [
        paired.difference(sums, scores[number], scores["0"])["cell_gap"]
        for number in list(tables)[1:]
    ]
    first = changes[0]
    measured = {"value": first.value, "low": first.low, "high": first.high, "se": first.se}
    return {"job": list(job), "fell": any(change.high < 0 for change in changes)} | {
        key: round(value, 5) for key, value in measured.items()
    }


def table(rows: list[dict]) -> str:
    """The Markdown of rows as in named_cell.jsonl."""
    keys = ["name", "speakers", "each", "same", "seed"]
    frame = pd.DataFrame([dict(zip(keys, row["job"], strict=True)) | row for row in rows])
    frame["name"] = pd.Categorical(frame["name"], categories=list(MODELS))
    lines = []
    for (name, *size, same), part in frame.groupby(keys[:4], observed=True):
        erm, other = MODELS[name][:2]
        true = 100 * (other.gap - erm.gap)
        means = [f"{100 * part[key].mean():.1f}" for key in ("fell", "value", "low", "high")]
        cells = [name, *size, same, len(part), means[0], f"{true:g}", *means[1:]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
