"""Trunk, branches and dial against a search without them, judged on speakers nobody chose by.

    make figures-dial-search       # resumable; about an hour on two cores

Both arms are the demo's sweep, over five seeds of training and search: the preset with trunks and a
dial, and the same without, from which only as many trials count as have trained no more epochs than
the other arm. What is on the front of one half of the dev speakers is judged on the other half,
both ways, over 20 halvings. Writes results/dial-search.jsonl (a row an arm and seed) and
results/dial-search.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from runs import RESULTS, points, read

from analysis.front import dominance
from ermgap.records import Records

SEEDS = range(5)
FILE = RESULTS / "dial-search.jsonl"
FOLDER = Path("results/figures-dial-search")
ARMS = {
    "trunk, branches, dial": {"sweep.trunks": 1, "sweep.dial": "true"},
    "free search": {"sweep.trunks": 0, "sweep.dial": "false"},
}
HALVINGS = 20
FEW = 5  # points of a front, where both arms may name as many


def main() -> None:
    """Run what is missing, then write the table."""
    for seed in SEEDS:
        for arm, settings in ARMS.items():
            if (arm, seed) in {(row["arm"], row["seed"]) for row in read(FILE)}:
                continue
            folder = FOLDER / f"{arm.split(',')[0].replace(' ', '-')}-{seed}"
            search(folder, settings | dict.fromkeys(SEEDED, seed))
            with open(FILE, "a", encoding="utf-8") as out:
                out.write(json.dumps({"arm": arm, "seed": seed} | judged(folder)) + "\n")
    text = table(read(FILE))
    FILE.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


SEEDED = ("train.seed", "sweep.seed")


def search(folder: Path, settings: dict) -> None:
    """Run the sweep, or go on with it."""
    settings = {"sweep.slots": 1} | settings
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    given = ["--resume", str(folder)] if folder.exists() else ["--out", str(folder), *changes]
    subprocess.run([sys.executable, "sweeps/pareto.py", *given], check=True)


def judged(folder: Path) -> dict:
    """Of each trial and position that may be chosen: scores on both halves of every halving."""
    from analysis.front import front
    from analysis.statistics import dial

    records = Records.open(folder)
    whole = dial.read(front.info(records), records)
    names = [point.trial_id for point in whole.info.candidates if point.eligible]
    return {
        "reference": whole.info.reference,
        "epochs": epochs(records),
        "candidates": {name: halved(records, name) for name in names},
    }


def halved(records: Records, name: str) -> list[list[list[float]]]:
    """Accuracy and largest gap, [halvings, 2 halves of the dev speakers, 2]."""
    from ermgap import metrics
    from ermgap.config import from_dict

    data, table = from_dict(records.sweep["config"]).data, records.predictions(name)
    speakers = table[["language", "gender", "speaker"]].drop_duplicates().sort_values("speaker")
    halves = []
    for number in range(HALVINGS):
        order = speakers.sample(frac=1.0, random_state=number)
        place = order.groupby(["language", "gender"]).cumcount()
        first = set(order["speaker"][place % 2 == 0])
        parts = (table[table["speaker"].isin(first)], table[~table["speaker"].isin(first)])
        scores = [metrics.evaluate(part, labels=data.labels, **data.support) for part in parts]
        halves.append([[round(score[key], 5) for key in ("acc", "max_gap")] for score in scores])
    return halves


def epochs(records: Records) -> dict[str, int]:
    """Epochs that each trial trained itself."""
    return {
        trial.trial_id: sum(
            row["trial_id"] == trial.trial_id and row["epoch"] > 0 for row in trial.rows
        )
        for trial in records.trials()
    }


# The table ----------------------------------------------------------------------------------------


def volumes(row: dict, *, budget: int | None = None, dial: bool = True) -> tuple[float, float]:
    """Mean hypervolume of what is on the front of the other half, and of FEW points of it.

    Args:
        budget: epochs after which no further trial counts; the one that exceeds it still does.
        dial: whether positions of the dial count.
    """
    names, spent = set(), 0
    for name, trained in sorted(row["epochs"].items()):
        if budget is not None and spent >= budget:
            break
        spent += trained
        names.add(name)
    made = np.array(
        [v for name, v in row["candidates"].items() if name in names or (dial and "@" in name)]
    )
    measured = []
    for choose in (0, 1):
        for halving in range(HALVINGS):
            chosen_by, judged_by = made[:, halving, choose], made[:, halving, 1 - choose]
            front = np.flatnonzero(dominance.non_dominated(chosen_by, directions=("max", "min")))
            few = subset(row, chosen_by, front)
            measured.append([volume(row, judged_by[front]), volume(row, judged_by[few])])
    return tuple(np.mean(measured, axis=0))


def volume(row: dict, scores: np.ndarray) -> float:
    """The hypervolume up to the sweep's reference point."""
    return dominance.hypervolume(scores, reference=row["reference"], directions=("max", "min"))


def subset(row: dict, scores: np.ndarray, front: np.ndarray) -> list[int]:
    """FEW points of a front, one after another the one that adds most where they are chosen."""
    chosen: list[int] = []
    while len(chosen) < min(FEW, len(front)):
        rest = [i for i in front if i not in chosen]
        chosen.append(max(rest, key=lambda i: volume(row, scores[[*chosen, i]])))
    return chosen


def table(rows: list[dict]) -> str:
    """Markdown: the hypervolume of each arm, and its ratio to the free search by seed."""
    ours, free = (
        {row["seed"]: row for row in rows if row["arm"] == arm} for arm in ARMS
    )  # fmt: skip
    seeds = sorted(ours.keys() & free.keys())
    spent = {s: (sum(ours[s]["epochs"].values()), sum(free[s]["epochs"].values())) for s in seeds}
    measured = {
        "trunk, branches, dial": [volumes(ours[s]) for s in seeds],
        "trunk and branches alone": [volumes(ours[s], dial=False) for s in seeds],
        "free search, as many epochs": [volumes(free[s], budget=spent[s][0]) for s in seeds],
        "free search, all its trials": [volumes(free[s]) for s in seeds],
    }
    base = np.array(measured["free search, as many epochs"])
    lines = [
        f"| | hypervolume on other speakers | at most {FEW} points | ratio to free search | "
        f"at most {FEW} |",
        "|---|---|---|---|---|",
    ]
    for name, values in measured.items():
        values = np.array(values)
        cells = [points(values[:, 0]), points(values[:, 1])]
        ratios = values / base
        cells += [
            f"{np.exp(np.log(column).mean()):.2f} ({', '.join(f'{r:.2f}' for r in column)})"
            for column in ratios.T
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    trained = ", ".join(f"{a} and {b}" for a, b in spent.values())
    note = (
        f"{len(seeds)} seeds of the demo's sweep (12 trials), of 100 x the hypervolume with 95 % "
        "t-intervals; ratios as geometric means, with every seed's. Points are chosen on one half "
        "of the dev speakers and judged on the other, both ways, means of "
        f"{HALVINGS} halvings. Epochs trained, with trunks and without: {trained}. More points "
        "have more luck where they are judged, so both arms are also compared with equally many."
    )
    return "\n".join([*lines, "", note, ""])


if __name__ == "__main__":
    main()
