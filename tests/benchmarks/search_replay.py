"""Early stopping replayed on real training: the 66 learning curves of search_design.py.

    python tests/benchmarks/search_replay.py       # writes results/search-stopping.md

The curves come in 200 random orders, one trial at a time, under the sweep's own rule. Told are the
share of epochs that stopping saves, how many of the final front's trials it stops (they are what
the search is for), and how much hypervolume is left: of what all trials together have, and of what
as many epochs buy without stopping (fewer trials, each to its end).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import search_design

from analysis.front import front
from ermgap.config import Config, Sweep, Train
from sweeps.search.stopping import StoppingRule

FILE = Path(__file__).parent / "results" / "search-stopping.md"
ORDERS = 200
DIRECTIONS = ("max", "min")
RULES = [
    (grace, factor, margin) for grace in (1, 2, 3) for factor in (2, 3) for margin in (0.0, 0.02)
]


def replay(curves: np.ndarray, rule: StoppingRule, order: np.ndarray) -> tuple[list[int], int]:
    """Trials that ran to their end, and epochs spent; curves [n, epochs, 2] are acc and max_gap."""
    seen: dict[int, list] = {epoch: [] for epoch in rule.rungs}
    finished, spent, last = [], 0, curves.shape[1]
    for trial in order:
        epoch = last
        for rung in rule.rungs:
            mine = curves[trial, rung - 1]
            goes_on = rule.goes_on(mine, seen[rung])
            seen[rung].append(mine)
            if not goes_on:
                epoch = rung
                break
        spent += epoch
        if epoch == last:
            finished.append(int(trial))
    return finished, spent


def volume(final: np.ndarray) -> float:
    """Hypervolume of (acc, max_gap) pairs beyond (0.18, 0.30), a share of the box to (1, 0)."""
    return front.hypervolume(final, reference=(0.18, 0.30), directions=DIRECTIONS)


def main() -> None:
    """Replay, and write the table."""
    curves = search_design.problem().curves.astype(float)
    last = curves[:, -1]
    best = set(np.flatnonzero(front.non_dominated(last, directions=DIRECTIONS)).tolist())
    whole, epochs = volume(last), curves.shape[1]
    orders = [np.random.default_rng(seed).permutation(len(curves)) for seed in range(ORDERS)]
    lines = [
        "| first rung | one in | margin | epochs saved | front trials stopped "
        "| hypervolume left, % | the same epochs without stopping, % |",
        "|---" * 7 + "|",
    ]
    for grace, factor, margin in RULES:
        sweep = Sweep(stop_after=grace, stop_factor=factor)
        rungs = Config(train=Train(epochs=epochs), sweep=sweep).rungs
        rule = StoppingRule(rungs, 1 / factor, DIRECTIONS, (margin, margin))
        told = []
        for order in orders:
            finished, spent = replay(curves, rule, order)
            afford = last[order[: spent // epochs]]
            told.append([
                1 - spent / (len(curves) * epochs), len(best - set(finished)) / len(best),
                volume(last[finished]) / whole, volume(afford) / whole,
            ])  # fmt: skip
        saved, stopped, left, plain = 100 * np.mean(told, 0)
        lines.append(
            f"| {grace} | {factor} | {margin:g} | {saved:.0f} % | {stopped:.0f} % | {left:.1f} | "
            f"{plain:.1f} |"
        )
    note = (
        f"\n{len(curves)} random configurations of {epochs} epochs on EmoDB and RAVDESS; means "
        f"over {ORDERS} orders; a front of {len(best)}, hypervolume {whole:.3f} of the box to "
        "accuracy 1 and gap 0.\n"
    )
    FILE.write_text("\n".join([*lines, note]), encoding="utf-8")
    print(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
