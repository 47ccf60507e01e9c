"""Penalties of both sides and of the worse side alone, on EmoDB and RAVDESS over speaker folds.

    make figures-method-real ARGS="--data emodb=PATH ravdess=PATH"    # resumable

Five folds and three seeds, the last epoch: every utterance is judged by a model that never heard
its speaker. Writes results/method-real.jsonl (a row a run, with its sums over held-out speakers)
and results/method-real.md. A seed enters the table once all of its folds are there; `--folds`
and `--seeds` share the runs between processes; without a number they write the table alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import real_picture
from figures_method import minmaxgap
from real_table import speaker_counts, table
from runs import RESULTS, Run, run_all

FOLDS, SEEDS, EPOCHS = range(5), range(3), 6
NAME = "method-real"
PICTURE = Path(__file__).parents[2] / "analysis" / "gallery" / "real.png"
# In the order in which they are run: the dials' ends and the baseline to beat come first.
SYSTEMS = {
    "ERM": {"objective.loss": "erm"},
    "worse side, ema, p 1, 0.3": minmaxgap(0.3, sides="worse"),
    "worse side from 1/2, ema, p 1, 3": minmaxgap(3.0, sides="worse", schedule="step", start=1 / 2),
    "GroupDRO, 0.01": {"objective.loss": "groupdro", "objective.dro_eta": 0.01},
    "the paper: both sides, batch, p 2, adaptive": minmaxgap(
        10.0, p=2.0, estimator="batch", schedule="adaptive", eta=1.0, epsilon=0.02
    ),
    "Reweighting": {"objective.loss": "reweight"},
    "worse side from 1/3, ema, p 1, 1": minmaxgap(1.0, sides="worse", schedule="step", start=1 / 3),
    "worse side, ema, p 1, 0.1": minmaxgap(0.1, sides="worse"),
    "worse side, ema, p 1, 1": minmaxgap(1.0, sides="worse"),
    "both sides, ema, p 1, 0.3": minmaxgap(0.3),
    "worse side from 1/6, ema, p 1, 0.5": minmaxgap(
        0.5, sides="worse", schedule="step", start=1 / 6
    ),
    "V-REx, both sides, 0.1": {"objective.loss": "vrex", "objective.lambda_max": 0.1},
    "V-REx, worse sides, 0.3": {
        "objective.loss": "vrex", "objective.lambda_max": 0.3, "objective.sides": "worse",
    },
    "both sides, batch, p 2, 0.1": minmaxgap(0.1, p=2.0, estimator="batch"),
}  # fmt: skip
FIRST = 6  # systems that have further seeds before the others have
# The ends of dials (figures_dial.py), of the first seed.
KEPT = (
    "ERM",
    "worse side, ema, p 1, 0.3",
    "worse side from 1/3, ema, p 1, 1",
    "worse side from 1/2, ema, p 1, 3",
)


def main() -> None:
    """Run what is missing, a seed after another, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--folds", nargs="*", type=int, default=[*FOLDS], help="only these")
    parser.add_argument("--seeds", nargs="*", type=int, default=[*SEEDS], help="only these")
    given = parser.parse_args()
    names = [*SYSTEMS]
    order = [(0, names), *((seed, names[:FIRST]) for seed in SEEDS[1:])]
    order += [(seed, names[FIRST:]) for seed in SEEDS[1:]]
    runs = [
        Run(
            name,
            SYSTEMS[name],
            seed,
            fold,
            keep=NAME if seed == 0 and name in KEPT else "",
            branch=round(SYSTEMS[name].get("objective.start", 0) * EPOCHS),
        )
        for seed, some in order
        for name in some
        for fold in given.folds
        if seed in given.seeds
    ]
    rows = run_all(
        "small",
        runs,
        file=RESULTS / f"{NAME}.jsonl",
        common=common(given.data),
        kept=lambda predictions, rows: {"speakers": speaker_counts(predictions)},
    )
    text = table(rows, list(SYSTEMS), folds=len(FOLDS))
    (RESULTS / f"{NAME}.md").write_text(text, encoding="utf-8")
    real_picture.save(rows, list(SYSTEMS), folds=len(FOLDS), path=PICTURE)
    print(text)


def common(data: list[str]) -> dict:
    """The changes to the preset that all runs share."""
    return {
        "data.corpora": data,
        "data.folds": len(FOLDS),
        "train.epochs": EPOCHS,
        "backbone.dtype": "float32",
        "train.select": "last",
    }


if __name__ == "__main__":
    main()
