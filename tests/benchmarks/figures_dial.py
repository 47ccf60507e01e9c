"""The line between an ERM adapter and a fair one: accuracy and gaps at every position.

    make figures-dial                                         # after make figures-method
    make figures-dial ARGS="--data emodb=PATH ravdess=PATH"   # and figures-method-real

Evaluates adapters that those figures kept, and trains nothing. Writes results/dial-demo.jsonl (a
row an upper end and seed) and dial-demo.md, or dial-real.jsonl (a row an upper end and fold) and
dial-real.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import figures_method as demo
import figures_method_real as real
import figures_method_tried as tried
import numpy as np
import real_table
from runs import RESULTS, Run, points, prepare, read, row_key

POSITIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)


def main() -> None:
    """Evaluate what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", metavar="NAME=PATH")
    given = parser.parse_args()
    name = "dial-real" if given.data else "dial-demo"
    file = RESULTS / f"{name}.jsonl"
    if given.data:
        ends = [
            Run(system, {}, 0, fold, keep=real.NAME) for system in real.KEPT for fold in real.FOLDS
        ]
        evaluate("small", ends, file=file, common=real.common(given.data), measure=real_sums)
        text = real_dial(read(file))
    else:
        ends = [
            Run(system, {}, seed, keep=demo.NAME)
            for system in demo.KEPT
            for seed in (*demo.SEEDS, *demo.FRESH)
        ]
        ends += [
            Run(system, {}, seed, keep=tried.NAME)
            for system in ("ERM", tried.CHOSEN)
            for seed in tried.judging()
        ]
        evaluate("demo", ends, file=file, common={}, measure=demo_values)
        text = demo_dial(read(file))
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def evaluate(preset: str, ends: Sequence[Run], *, file: Path, common: dict, measure) -> None:
    """Append a row for each upper end whose adapter, and ERM's of its fold and seed, are kept.

    `measure` makes a position's numbers of its predictions and the configuration.
    """
    import torch

    from ermgap import adapters, config
    from ermgap.distributed import World
    from ermgap.training.evaluation import label_log_probabilities, predictions
    from sweeps.setup import plan

    base = config.load(plan.preset_path(preset)).replace(common)
    lower = {(end.keep, end.fold, end.seed): end.adapter for end in ends if end.name == "ERM"}
    torch.set_num_threads(1)
    prepared: dict = {}
    for end in ends:
        erm = lower[end.keep, end.fold, end.seed]
        ready = end.adapter.is_dir() and erm.is_dir()
        if end.name == "ERM" or not ready or end.key in map(row_key, read(file)):
            continue
        settings = base.replace({"data.fold": end.fold})
        if end.fold not in prepared:
            prepared[end.fold] = prepare(settings)
        speech, shared = prepared[end.fold]
        adapters.load_line(speech, erm, end.adapter, POSITIONS)
        scores = label_log_probabilities(
            speech, shared.dev, world=World(), batch=settings.train.eval_batch
        )
        labels = settings.data.labels
        row = {"name": end.name, "fold": end.fold, "seed": end.seed} | {
            "positions": [
                measure(predictions(shared.dev, at, labels=labels), settings) for at in scores
            ]
        }
        with open(file, "a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        print(end.key, flush=True)


# The demo, over seeds -----------------------------------------------------------------------------


def demo_values(predictions, settings) -> dict:
    """The columns of figures_method at a position."""
    from ermgap import metrics

    dev = metrics.evaluate(predictions, labels=settings.data.labels, **settings.data.support)
    row = {"selected": dev, "gaps": dev["gaps"]}
    return {name: of(row) for name, of in demo.COLUMNS.items()}


def demo_dial(rows: Sequence[dict]) -> str:
    """Markdown: per upper end and position the means over seeds with 95 % t-intervals."""
    heads = ["upper end", "position", *demo.COLUMNS]
    heads += [f"{column} less position 0's" for column in demo.COLUMNS]
    lines, notes = head(heads), []
    for name, mine in by_name(rows):
        curves = {
            column: np.array([[at[column] for at in row["positions"]] for row in mine])
            for column in demo.COLUMNS
        }
        for at, position in enumerate(POSITIONS):
            shown = [f"{100 * curve[:, at].mean():.1f}" for curve in curves.values()]
            shown += [
                points(curve[:, at] - curve[:, 0], sign="+") if position else ""
                for curve in curves.values()
            ]
            lines.append(f"| {name} | {position:g} | " + " | ".join(shown) + " |")
        notes.append(f"{name}, {len(mine)} seeds: {barrier(curves['accuracy'])}.")
    note = (
        "Percent and points, dev, the epoch of the best W-F1 (with decay 0.99: the last), means "
        "over seeds; differences are paired by seed, with 95 % t-intervals. "
    )
    return "\n".join([*lines, "", note + BARRIER, "", *notes, ""])


# Real speech, over folds --------------------------------------------------------------------------


def real_sums(predictions, settings) -> dict:
    """The sums over held-out speakers at a position."""
    return real_table.speaker_counts(predictions)


def real_dial(rows: Sequence[dict]) -> str:
    """Markdown: per upper end and position, differences to position 0 paired over speakers."""
    heads = ["upper end", "position", *real_table.COLUMNS.values()]
    heads += [f"{column} less position 0's" for column in real_table.COLUMNS.values()]
    lines, notes = head(heads), []
    for name, mine in by_name(rows):
        flat = [
            {"name": position, "fold": row["fold"], "seed": row["seed"], "speakers": speakers}
            for row in mine
            for position, speakers in zip(POSITIONS, row["positions"], strict=True)
        ]
        if len(mine) < len(real.FOLDS):
            continue
        sums = real_table.sums_of(flat, folds=len(real.FOLDS))
        weights = sums.draws(real_table.RESAMPLES, np.random.default_rng(0))
        curve = np.stack(
            [real_table.values(sums, sums.measured_weights, [(at, 0)])[0] for at in POSITIONS]
        )
        for position, measured in zip(POSITIONS, curve, strict=True):
            shown = [f"{100 * value:.1f}" for value in measured]
            if position:
                shown += real_table.Paired(sums, position, weights, baseline=0.0).shown()
            else:
                shown += [""] * len(real_table.COLUMNS)
            lines.append(f"| {name} | {position:g} | " + " | ".join(shown) + " |")
        notes.append(f"{name}, one seed: {barrier(curve[None, :, 0])}.")
    note = (
        "Percent and points; EmoDB and RAVDESS, every utterance judged by adapters that never "
        "heard its speaker, the last epoch, one seed; 95 % intervals over speakers. "
    )
    return "\n".join([*lines, "", note + BARRIER, "", *notes, ""])


# Both ---------------------------------------------------------------------------------------------

BARRIER = (
    "*Barrier*: how far mean accuracy falls at most from position 0 to 1, in points below the "
    "lower end and below the straight line between both."
)


def barrier(accuracy: np.ndarray) -> str:
    """Both barriers of curves [seeds, positions], in words."""
    upper = POSITIONS.index(1.0)
    inside, ends = accuracy[:, : upper + 1], accuracy[:, [0, upper]]
    line = ends[:, :1] + np.array(POSITIONS[: upper + 1]) * (ends[:, 1:] - ends[:, :1])
    shown = []
    for falls in (ends[:, :1] - inside, line - inside):
        at = falls.mean(0).argmax()
        fall = falls[:, at]
        size = points(fall) if len(fall) > 1 else f"{100 * fall[0]:.1f}"
        shown.append(f"{size} (at {POSITIONS[at]:g})")
    return f"barrier {shown[0]} below the lower end, {shown[1]} below the line"


def by_name(rows: Iterable[dict]) -> list[tuple[str, list[dict]]]:
    """Rows by their upper end, in the order in which they came; seeds that judge apart."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        judges = {"fresh seeds": demo.FRESH}
        if row["name"] == tried.CHOSEN:
            judges = {"all other seeds": tried.judging()} | tried.JUDGES
        which = [f" ({which})" for which, seeds in judges.items() if row["seed"] in seeds]
        for name in which or [""]:
            groups.setdefault(row["name"] + name, []).append(row)
    return list(groups.items())


def head(heads: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]


if __name__ == "__main__":
    main()
