"""Penalties of both sides and of the worse side alone, on the synthetic demo over ten seeds.

    make figures-method        # resumable; about an hour on two cores

Writes results/method-demo.jsonl (a row a run) and results/method-demo.md: means over seeds, and
paired differences to ERM with 95 % t-intervals. What dials need (figures_dial.py) is run first.
"""

from __future__ import annotations

import numpy as np
from runs import Run, figure_on_demo, points

from ermgap.corpora.demo import PLANTED

NAME = "method-demo"
SEEDS = range(10)
FRESH = range(10, 20)  # judge the dial's position that was chosen on SEEDS
PLANTED_CELL = f"{PLANTED[0]}/speech"


def minmaxgap(fairness_weight: float, *, p: float = 1.0, estimator: str = "ema", **more) -> dict:
    """A constant fairness weight."""
    given = {"loss": "minmaxgap", "estimator": estimator, "p": p, "lambda_max": fairness_weight}
    return {f"objective.{name}": value for name, value in (given | more).items()}


SYSTEMS = {
    "ERM": {"objective.loss": "erm"},
    "the paper: both sides, batch, p 2, adaptive": minmaxgap(
        10.0, p=2.0, estimator="batch", schedule="adaptive", eta=1.0, epsilon=0.02
    ),
    "both sides, batch, p 1, 0.1": minmaxgap(0.1, estimator="batch"),
    "both sides, batch, p 2, 0.1": minmaxgap(0.1, p=2.0, estimator="batch"),
    "both sides, ema, p 1, 0.3": minmaxgap(0.3),
    "worse side, batch, p 1, 0.3": minmaxgap(0.3, estimator="batch", sides="worse"),
    "worse side, ema, p 1, 0.1": minmaxgap(0.1, sides="worse"),
    "worse side, ema, p 1, 0.3": minmaxgap(0.3, sides="worse"),
    "worse side, ema, p 1, 1": minmaxgap(1.0, sides="worse"),
    "worse side, ema, p 2, 0.1": minmaxgap(0.1, p=2.0, sides="worse"),
    "worse side, ema, p 2, 0.3": minmaxgap(0.3, p=2.0, sides="worse"),
    "GroupDRO, 0.1": {"objective.loss": "groupdro", "objective.dro_eta": 0.1},
    "Reweighting": {"objective.loss": "reweight"},
    "V-REx, both sides, 0.1": {"objective.loss": "vrex", "objective.lambda_max": 0.1},
    "V-REx, worse sides, 0.3": {
        "objective.loss": "vrex", "objective.lambda_max": 0.3, "objective.sides": "worse",
    },
    "worse side from 2/10, ema, p 1, 0.3": minmaxgap(
        0.3, sides="worse", schedule="step", start=0.2
    ),
    "worse side from 3/10, ema, p 1, 0.5": minmaxgap(
        0.5, sides="worse", schedule="step", start=0.3
    ),
    "worse side from 5/10, ema, p 1, 1": minmaxgap(1.0, sides="worse", schedule="step", start=0.5),
}  # fmt: skip
# The ends of dials (figures_dial.py).
BRANCH = "worse side from 3/10, ema, p 1, 0.5"
KEPT = ("ERM", "worse side, ema, p 1, 0.3", BRANCH)
COLUMNS = {
    "accuracy": lambda row: row["selected"]["acc"],
    "worst group's W-F1": lambda row: row["selected"]["worst_group_w_f1"],
    "planted gap": lambda row: row["gaps"][PLANTED_CELL]["avg"],
    "largest gap": lambda row: row["selected"]["max_gap"],
}


def main() -> None:
    """Run what is missing, then write the table."""
    fresh = [
        Run(name, SYSTEMS[name], seed, keep=NAME) for seed in FRESH for name in ("ERM", BRANCH)
    ]
    figure_on_demo(NAME, SYSTEMS, SEEDS, table, keep=KEPT, more=fresh)


def table(rows: list[dict]) -> str:
    """Markdown: per system the means over seeds, then the paired differences to ERM."""
    base = {row["seed"]: row for row in rows if row["name"] == "ERM" and row["seed"] in SEEDS}
    heads = ["seeds", *COLUMNS, *(f"{name} less ERM's" for name in COLUMNS), "losses pushed up"]
    lines = ["| system | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in SYSTEMS:
        mine = [row for row in rows if row["name"] == name and row["seed"] in base]
        if not mine:
            continue
        means = [f"{100 * np.mean([of(row) for row in mine]):.1f}" for of in COLUMNS.values()]
        paired = [
            ""
            if name == "ERM"
            else points([of(row) - of(base[row["seed"]]) for row in mine], sign="+")
            for of in COLUMNS.values()
        ]
        raised = f"{100 * np.mean([row['raised_share'] for row in mine]):.1f}"
        lines.append(f"| {name} | " + " | ".join([str(len(mine)), *means, *paired, raised]) + " |")
    note = (
        f"Percent and points, means over seeds, dev, the epoch of the best W-F1, {rows[0]['n']} "
        f"synthetic utterances; differences are paired by seed, with 95 % t-intervals over seeds. "
        f"The gap is planted in {PLANTED_CELL}. *Losses pushed up*: share of the utterances whose "
        "losses a step raised."
    )
    return "\n".join([*lines, "", note, ""])


if __name__ == "__main__":
    main()
