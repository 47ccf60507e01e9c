"""The figures of `figures_search.py`: medians over seeds, their intervals, and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import machine
import numpy as np
from search_problems import TRIALS

RESULTS = Path(__file__).parent / "results"
BASE, OURS = "random", "ERM-GAP"
GRID = np.arange(1, TRIALS + 1)
COLORS = {
    "ERM-GAP": "#0072B2", "ERM-GAP, stopping": "#56B4E9", "random": "#222222",
    "OptunaSearch, TPE": "#D55E00", "OptunaSearch, NSGA-II": "#CC79A7",
    "Optuna, NSGA-II": "#E69F00", "MOASHA": "#009E73", "MO-REA": "#999999", "EHVI": "#B8A000",
}  # fmt: skip


def write(rows: list[dict]) -> dict:
    """search-MACHINE.json and .png from rows of (problem, contender, seed)."""
    found = {"machine": machine.cpu_model(), "trials": TRIALS, "problems": {}}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        mine = [row for row in rows if row["problem"] == problem]
        if any(row["contender"] == BASE for row in mine):
            found["problems"][problem] = summary(mine)
    name = f"search-{machine.slug(machine.cpu_model())}"
    text = json.dumps(found, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    draw(rows, found, RESULTS / f"{name}.png")
    print(to_text(found))
    return found


def summary(rows: list[dict]) -> dict:
    """By contender: seeds, final hypervolume, and trials until random's median final one.

    `volume` is the median final hypervolume with its interval; `ahead` the median difference of
    our search to it over the same seeds, with its interval; `until` the median of the epochs, in
    full trials, after which the level was reached (null: by fewer than half), and `share` of them
    that did; `speedup` 40 over it. Intervals are of 2,000 bootstrap resamples over seeds, 95 %.
    """
    by = {}
    for row in rows:
        by.setdefault(row["contender"], {})[row["seed"]] = row["steps"]
    level = float(np.median([last(steps) for steps in by[BASE].values()]))
    found = {"level": level, "contenders": {}}
    for contender, seeds in by.items():
        until = np.array([reached(steps, level) for steps in seeds.values()])
        told = {"seeds": len(seeds)}
        told["volume"] = interval(np.array([last(steps) for steps in seeds.values()]))
        told["until"] = interval(until)
        told["share"] = float(np.isfinite(until).mean())
        told["speedup"] = [None if not one else round(TRIALS / one, 2) for one in told["until"]]
        both = sorted(set(by.get(OURS, {})) & set(seeds))
        if both and contender != OURS:
            told["ahead"] = interval(
                np.array([last(by[OURS][seed]) - last(seeds[seed]) for seed in both])
            )
        found["contenders"][contender] = told
    return found


def last(steps: list) -> float:
    """The final hypervolume."""
    return steps[-1][1] if steps else 0.0


def reached(steps: list, level: float) -> float:
    """Epochs, in full trials, until the level; infinite where it was not reached."""
    return next((spent for spent, volume in steps if volume >= level), np.inf)


def interval(values: np.ndarray) -> list[float | None]:
    """Median, and the 2.5 % and 97.5 % points of the medians of resamples; None for infinity."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    ordered = np.sort(medians)  # quantiles between infinities would not be numbers
    ends = [ordered[int(q * (len(ordered) - 1))] for q in (0.025, 0.975)]
    return [round(float(v), 5) if np.isfinite(v) else None for v in (np.median(values), *ends)]


def to_text(found: dict) -> str:
    """One table a problem."""
    lines = []
    for problem, told in found["problems"].items():
        lines.append(f"{problem}: random's final hypervolume {told['level']:.3f}")
        for name, one in told["contenders"].items():
            until = "-" if one["until"][0] is None else f"{one['until'][0]:.1f}"
            ahead = "  ours ahead by {:+.3f} [{:+.3f}, {:+.3f}]".format(*one.get("ahead", [0] * 3))
            lines.append(
                f"  {name:24s} n {one['seeds']:2d}  hv {one['volume'][0]:.3f}  "
                f"trials until {until:>5s} ({one['share']:.0%} reach it)" + ahead * ("ahead" in one)
            )
    return "\n".join(lines)


def traces(seeds: list[list]) -> np.ndarray:
    """Hypervolume of each seed at each full trial's worth of epochs, [seeds, 40]."""
    made = np.zeros((len(seeds), len(GRID)))
    for row, steps in zip(made, seeds, strict=True):
        for spent, volume in steps:
            row[GRID >= spent - 1e-9] = volume
    return made


def draw(rows: list[dict], found: dict, path: Path) -> None:
    """A panel a problem: medians over seeds, and the middle half of ours and of random search."""
    from matplotlib.figure import Figure

    names = list(found["problems"])
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.1 * lines + 0.7), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    handles: dict = {}
    for axes, problem in zip(panels, names, strict=False):
        for contender, color in COLORS.items():
            seeds = [r["steps"] for r in rows if r["problem"] == problem
                     and r["contender"] == contender]  # fmt: skip
            if not seeds:
                continue
            made = traces(seeds)
            front = contender in (OURS, BASE)
            (line,) = axes.plot(GRID, np.median(made, 0), color=color, zorder=3 if front else 2,
                                linewidth=2.0 if front else 1.1)  # fmt: skip
            handles[contender] = line
            if front:
                axes.fill_between(GRID, *np.quantile(made, (0.25, 0.75), axis=0), color=color,
                                  alpha=0.12, linewidth=0)  # fmt: skip
        axes.axvline(TRIALS / 3, color="#BBBBBB", linewidth=0.8, linestyle=":")
        axes.set_title(problem, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        base = [r["steps"] for r in rows if r["problem"] == problem and r["contender"] == BASE]
        axes.set_ylim(bottom=0.9 * np.median(traces(base), 0)[3])
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("epochs spent, in full trials (dotted: a third of the budget)", fontsize=9.5)
    figure.supylabel("hypervolume of finished trials, noise-free", fontsize=9.5)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5,
                  frameon=False, fontsize=8.5)  # fmt: skip
    figure.savefig(path, dpi=130)
