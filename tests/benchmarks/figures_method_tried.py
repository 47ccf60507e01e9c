"""Settings of the penalty of the worse side: tried on the demo with six seeds, judged on others.

    make figures-method-tried        # resumable; half an hour on two cores

Writes results/method-tried.jsonl (a row a run) and results/method-tried.md: differences to ERM of
the same seed and batch size, at the epoch of the best W-F1 and at the last one. One setting was
chosen by its mean planted gap at a price of under two points of accuracy; 15 seeds that nothing was
chosen by judge it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from figures_method import COLUMNS, PLANTED_CELL, minmaxgap
from runs import RESULTS, Run, points, run_all

NAME = "method-tried"
FILE = RESULTS / f"{NAME}.jsonl"
SEEDS = range(6)
# Seeds that judge; the second also judge the dial's position 0.4, which the first suggested.
JUDGES = {"other seeds": range(10, 25), "further seeds": range(25, 40)}


def branch(start: float, fairness_weight: float, **more) -> dict:
    """A penalty of the worse side that begins at this share of the training."""
    schedule = {"sides": "worse", "schedule": "step", "start": start}
    return minmaxgap(fairness_weight, **schedule | more)


BATCHES = {140: 10, 210: 20}  # batch size: epochs, of 20 steps in all
# In three rounds: what six seeds have, and what was given up after three, and after one.
SIX = {
    "ERM": {"objective.loss": "erm"},
    "from 3/10, 0.5, decay 0.99": branch(0.3, 0.5, ema=0.99),
    "from 3/10, 1, soft maximum, 0.2 nats": branch(0.3, 1.0, estimator="soft:0.2"),
}
THREE = {
    "from 3/10, 0.5": branch(0.3, 0.5),
    "from 3/10, 0.5, decay 0.95": branch(0.3, 0.5, ema=0.95),
    "from 3/10, 0.3, decay 0.95": branch(0.3, 0.3, ema=0.95),
    "from 3/10, 2, soft maximum, 0.2 nats": branch(0.3, 2.0, estimator="soft:0.2"),
    "from 3/10, 1, soft maximum, 0.2 nats, decay 0.95": branch(
        0.3, 1.0, estimator="soft:0.2", ema=0.95
    ),
    "from 3/10, 0.5, soft maximum, 0.05 nats": branch(0.3, 0.5, estimator="soft:0.05"),
}
ONE = {
    "from 3/10, 1": branch(0.3, 1.0),
    "from 3/10, 2": branch(0.3, 2.0),
    "from 2/10, 1": branch(0.2, 1.0),
    "from 5/10, 2": branch(0.5, 2.0),
    "from 5/10, 3": branch(0.5, 3.0),
    "from 3/10, 1, soft maximum, 0.05 nats": branch(0.3, 1.0, estimator="soft:0.05"),
    "from 3/10, 1, soft maximum, 1 nats": branch(0.3, 1.0, estimator="soft:1"),
    **{f"from 3/10, 1, decay {ema:g}": branch(0.3, 1.0, ema=ema) for ema in (0.5, 0.8, 0.95, 0.99)},
    **{
        f"{name}, batch {batch}": changes | {"train.batch": batch, "train.epochs": epochs}
        for batch, epochs in BATCHES.items()
        for name, changes in {"ERM": SIX["ERM"], "from 3/10, 1": branch(0.3, 1.0)}.items()
    },
}
SYSTEMS = SIX | THREE | ONE
CHOSEN = "from 3/10, 0.5, decay 0.99"  # and its last epoch
BASE = {  # the ERM of the same batch size
    name: f"ERM, batch {changes['train.batch']}" if "train.batch" in changes else "ERM"
    for name, changes in SYSTEMS.items()
}
COLUMNS = {name: COLUMNS[name] for name in ("accuracy", "worst group's W-F1", "planted gap")}
RULES = {"best W-F1": lambda row: row.get("best", row), "last": lambda row: row["last"]}


def main() -> None:
    """Run what is missing, a seed after another, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [*SEEDS, *judging()]
    parser.add_argument("--seeds", nargs="*", type=int, default=every, help="only these")
    given = parser.parse_args()
    runs = [
        Run(name, changes, seed, keep=NAME)
        for seed in given.seeds
        for name, changes in SYSTEMS.items()
        if seed in SEEDS and (name in SIX or (name in THREE and seed < 3) or seed == 0)
    ]
    runs += [
        Run(name, SYSTEMS[name] | {"train.select": "last"}, seed, keep=NAME)
        for seed in given.seeds
        for name in ("ERM", CHOSEN)
        if seed in judging()
    ]
    common = {"plugins": [str(Path(__file__).parent / "soft_gap.py")]}
    rows = run_all("demo", runs, file=FILE, common=common, kept=epochs)
    text = table(rows)
    (RESULTS / f"{NAME}.md").write_text(text, encoding="utf-8")
    print(text)


def judging() -> list[int]:
    """The seeds of all JUDGES."""
    return [seed for seeds in JUDGES.values() for seed in seeds]


def epochs(predictions, rows: list[dict]) -> dict:
    """The numbers of both RULES, the first `best` and the second `last`."""
    best = max(rows, key=lambda row: row["dev"]["w_f1"])
    return {"best": numbers(best["dev"]), "last": numbers(rows[-1]["dev"])}


def numbers(dev: dict) -> dict:
    """The part of an epoch's dev metrics that COLUMNS read, as a row has it."""
    selected = {name: dev[name] for name in ("acc", "w_f1", "worst_group_w_f1", "max_gap")}
    gap = {"avg": dev["gaps"][PLANTED_CELL]["avg"]}
    return {"selected": selected, "gaps": {PLANTED_CELL: gap}}


def table(rows: list[dict]) -> str:
    """Markdown: per system and epoch the means over seeds, and paired differences to its ERM."""
    of = {(row["name"], row["seed"]): row for row in rows}
    parts = {
        name: [row for row in rows if row["name"] == name and row["seed"] in SEEDS] for name in BASE
    }
    parts |= {
        f"{name} ({which})": [r for r in rows if r["name"] == name and r["seed"] in seeds]
        for which, seeds in JUDGES.items()
        for name in ("ERM", CHOSEN)
    }
    heads = ["epoch", "seeds", *COLUMNS, *(f"{name} less ERM's" for name in COLUMNS)]
    lines = ["| system | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for title, mine in parts.items():
        name = mine[0]["name"] if mine else ""
        mine = [row for row in mine if (BASE[name], row["seed"]) in of]
        for rule, at in RULES.items() if mine else ():
            means, changes = [], []
            for column in COLUMNS.values():
                values = np.array([column(at(row)) for row in mine])
                less = np.array([column(at(of[BASE[name], row["seed"]])) for row in mine])
                means.append(f"{100 * values.mean():.1f}")
                shown = points(values - less, sign="+").removesuffix(" ± nan")
                changes.append("" if name == BASE[name] else shown)
            cells = [rule, str(len(mine)), *means, *changes]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    note = (
        "Percent and points, the demo's dev split; all but ERM: penalty of the worse side, ema, "
        "p 1, from this share of the training with this fairness weight. Differences are paired "
        "by seed, to ERM of the same batch size, with 95 % t-intervals. The gap is planted in "
        f"{PLANTED_CELL}. Batches of 70 and a decay of 0.9 where nothing else is written; with "
        "batches of 140 and 210 there are 20 steps in place of 30. "
        f"Chosen: {CHOSEN}, the last epoch, of the largest mean fall for under two points of "
        "accuracy; other and further seeds judge it. Given up after one "
        "seed: stronger and later penalties, which cost six points and more, and shorter running "
        "means; after three: decay 0.95 and other soft maxima, no better than these."
    )
    return "\n".join([*lines, "", note, ""])


if __name__ == "__main__":
    main()
