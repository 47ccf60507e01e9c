"""Real speech over speaker folds: a sweep's best point and its best ERM, on speakers it never saw.

    make figures-small ARGS="--sweep results/small"      # resumable; about two minutes a run

Takes from the sweep the trial with the best dev W-F1 and the ERM with the best, and trains both on
the next folds: other dev speakers, none of whom chose them. Fold 0 is the sweep's own value, which
is optimistic. Writes results/small.jsonl (a row a run) and results/small.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from runs import RESULTS, Run, read, run_all

from ermgap.records import Records, Trial
from sweeps.search.space import SPACE


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, default=Path("results/small"))
    parser.add_argument("--folds", type=int, nargs="+", default=[1])
    parser.add_argument("--file", type=Path, default=RESULTS / "small.jsonl")
    parser.add_argument("--best-only", action="store_true", help="leave the best ERM out")
    given = parser.parse_args()
    records = Records.open(given.sweep)
    systems = chosen(records.trials())
    if given.best_only:
        systems = dict(list(systems.items())[:1])
    runs = [
        Run(name, changes(trial), fold=fold)
        for fold in given.folds
        for name, trial in systems.items()
    ]
    run_all(
        "small",
        runs,
        file=given.file,
        common={"data.corpora": records.sweep["config"]["data"]["corpora"]},
    )
    rows = [row for row in read(given.file) if row["name"] in systems]
    text = table(systems, rows, given.folds)
    given.file.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def chosen(trials: list[Trial]) -> dict[str, Trial]:
    """The best trial by dev W-F1, and the best ERM, by the name they have in the table."""
    ended = [trial for trial in trials if trial.status == "finished"]
    best = max(ended, key=lambda trial: trial.selected["w_f1"])
    erm = max(
        (t for t in ended if t.hyperparameters["loss"] == "erm"), key=lambda t: t.selected["w_f1"]
    )
    found = {f"best of the sweep ({best.trial_id}, {best.hyperparameters['loss']})": best}
    return found if erm is best else found | {f"best ERM ({erm.trial_id})": erm}


def changes(trial: Trial) -> dict:
    """The trial's searched values as changes of the preset."""
    return {SPACE[name].key: value for name, value in trial.hyperparameters.items()}


def table(systems: dict[str, Trial], rows: list[dict], folds: list[int]) -> str:
    """Markdown: W-F1 and largest gap per fold, and their means, in points."""
    head = ["system", "W-F1, fold 0 (chosen there)", *(f"W-F1, fold {fold}" for fold in folds)]
    lines = [
        f"| {' | '.join([*head, 'mean', 'max gap, folds'])} |",
        "|---" * (len(folds) + 4) + "|",
    ]
    for name, trial in systems.items():
        mine = {row["fold"]: row["selected"] for row in rows if row["name"] == name}
        measured = [trial.selected, *(mine[fold] for fold in folds)]
        scores = [100 * one["w_f1"] for one in measured]
        gaps = ", ".join(f"{100 * one['max_gap']:.1f}" for one in measured)
        shown = [name, *(f"{score:.1f}" for score in scores), f"{np.mean(scores):.1f}", gaps]
        lines.append(f"| {' | '.join(shown)} |")
    note = "Percent points, one seed; unseen speakers; the epoch of the best dev W-F1."
    return "\n".join([*lines, "", note, ""])


if __name__ == "__main__":
    main()
