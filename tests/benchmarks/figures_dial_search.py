"""Trunk, branches and dial against a search without them, judged on speakers nobody chose by.

    make figures-dial-search       # resumable; about an hour on two cores

Both arms are the demo's sweep, over five seeds of the split, the training and the search: the
preset with trunks and a dial, and the same without, from which only as many trials count as have
trained no more epochs than the other arm. What is on the front on dev is evaluated on test
speakers. Writes results/dial-search.jsonl (a row an arm and seed) and results/dial-search.md.
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


SEEDED = ("data.split_seed", "train.seed", "sweep.seed")


def search(folder: Path, settings: dict) -> None:
    """Run the sweep, or go on with it."""
    settings = {"data.test": "true", "sweep.slots": 1} | settings
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    given = ["--resume", str(folder)] if folder.exists() else ["--out", str(folder), *changes]
    subprocess.run([sys.executable, "sweeps/pareto.py", *given], check=True)


def judged(folder: Path) -> dict:
    """Of each trial and position that may be chosen: scores on dev and test, and trained epochs."""
    from analysis.front import front
    from analysis.statistics import dial

    records = Records.open(folder)
    whole = dial.read(front.info(records), records)
    eligible = [point for point in whole.info.candidates if point.eligible]
    test = on_test(records, [point.trial_id for point in eligible])
    trained = epochs(records)
    return {
        "reference": whole.info.reference,
        "epochs": sum(trained.values()),
        "candidates": [
            {
                "id": point.trial_id,
                "dev": [point.values[name] for name in ("acc", "max_gap")],
                "test": test[point.trial_id],
                "epochs": trained.get(point.trial_id, 0),
            }
            for point in eligible
        ],
        "all_epochs": trained,
    }


def epochs(records: Records) -> dict[str, int]:
    """Epochs that each trial trained itself."""
    return {
        trial.trial_id: sum(
            row["trial_id"] == trial.trial_id and row["epoch"] > 0 for row in trial.rows
        )
        for trial in records.trials()
    }


def on_test(records: Records, ids: list[str]) -> dict[str, list[float]]:
    """Accuracy and largest gap on test of trials and positions of the dial."""
    import torch

    from ermgap import adapters, metrics
    from ermgap.adapters.dial import load_line
    from ermgap.config import from_dict
    from ermgap.distributed import World
    from ermgap.model import qwen2_audio
    from ermgap.model.batches import IndexedUtterances, cells_of
    from ermgap.records import parse_id
    from ermgap.training.context import features_of
    from ermgap.training.evaluation import label_log_probabilities, predictions

    config = from_dict(records.sweep["config"])
    data, table = config.data, records.table()
    speech = qwen2_audio.load(config.backbone, labels=data.labels, device=torch.device("cpu"))
    utterances = IndexedUtterances(
        table[table["split"] == "test"],
        store=features_of(speech, table),
        prompt=speech.prompt,
        labels=data.labels,
        cells=cells_of(table, data.modalities),
    )
    scores = {}
    for name in ids:
        if line := parse_id(name):
            lower, upper, position = line
            folders = [records.store.fetch_folder(f"adapters/{end}") for end in (lower, upper)]
            load_line(speech, *folders, [position])
        else:
            adapters.load_adapter(speech, records.store.fetch_folder(f"adapters/{name}"))
        (answers,) = label_log_probabilities(
            speech, utterances, world=World(), batch=config.train.eval_batch
        )
        result = metrics.evaluate(
            predictions(utterances, answers, labels=data.labels), labels=data.labels, **data.support
        )
        scores[name] = [result["acc"], result["max_gap"]]
    return scores


# The table ----------------------------------------------------------------------------------------


def volumes(row: dict, *, budget: int | None = None, dial: bool = True) -> tuple[float, float]:
    """Hypervolume on test of what is on the front on dev, and of FEW points of it.

    Args:
        budget: epochs after which no further trial counts; the one that exceeds it still does.
        dial: whether positions of the dial count.
    """
    names, spent = set(), 0
    for name, trained in sorted(row["all_epochs"].items()):
        if budget is not None and spent >= budget:
            break
        spent += trained
        names.add(name)
    made = [c for c in row["candidates"] if (dial and "@" in c["id"]) or c["id"] in names]
    dev = np.array([c["dev"] for c in made])
    test = np.array([c["test"] for c in made])
    front = np.flatnonzero(dominance.non_dominated(dev, directions=("max", "min")))
    return volume(row, test[front]), volume(row, test[subset(row, dev, front)])


def volume(row: dict, scores: np.ndarray) -> float:
    """The hypervolume up to the sweep's reference point."""
    return dominance.hypervolume(scores, reference=row["reference"], directions=("max", "min"))


def subset(row: dict, dev: np.ndarray, front: np.ndarray) -> list[int]:
    """FEW points of a front, one after another the one that adds most on dev."""
    chosen: list[int] = []
    while len(chosen) < min(FEW, len(front)):
        rest = [i for i in front if i not in chosen]
        chosen.append(max(rest, key=lambda i: volume(row, dev[[*chosen, i]])))
    return chosen


def table(rows: list[dict]) -> str:
    """Markdown: the hypervolume of each arm on test, and their ratios by seed."""
    ours, free = (
        {row["seed"]: row for row in rows if row["arm"] == arm} for arm in ARMS
    )  # fmt: skip
    seeds = sorted(ours.keys() & free.keys())
    measured = {
        "trunk, branches, dial": [volumes(ours[s]) for s in seeds],
        "trunk and branches alone": [volumes(ours[s], dial=False) for s in seeds],
        "free search, as many epochs": [volumes(free[s], budget=ours[s]["epochs"]) for s in seeds],
        "free search, all its trials": [volumes(free[s]) for s in seeds],
    }
    base = np.array(measured["free search, as many epochs"])
    lines = [
        f"| | hypervolume on test | at most {FEW} points | ratio to free search | at most {FEW} |",
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
    spent = ", ".join(f"{ours[s]['epochs']} and {free[s]['epochs']}" for s in seeds)
    note = (
        f"{len(seeds)} seeds of the demo's sweep (12 trials); percent with 95 % t-intervals, "
        "ratios as geometric means with every seed's. Points are chosen on dev and judged on test "
        f"speakers. Epochs trained, with trunks and without: {spent}. "
        "More points have more luck on test, so both arms are also compared with equally many, "
        "chosen on dev."
    )
    return "\n".join([*lines, "", note, ""])


if __name__ == "__main__":
    main()
