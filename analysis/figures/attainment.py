"""How far a front would move: what is attained in 25, 50 and 75 % of resamples or seeds.

    attainment = over_speakers(info, records)      # or over_seeds(info, confirmed.runs(records))
    figures.save(draw(attainment, info), Path("attainment.png"))

A place in objective space is attained by a front that has a point at least as good in everything.
Each resample of the dev speakers has a front of its own, of all usable trials near the front; the
surface of 50 % is their median, and between those of 25 and 75 % lies half of them (Fonseca,
Grunert da Fonseca and Paquete 2005; computed by moocore).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.figures import figures, layout
from analysis.front import FrontInfo
from analysis.statistics import uncertainty
from ermgap.config import METRICS
from ermgap.records import Records

LEVELS = (25, 50, 75)
RESAMPLES = 300
MOST = 60  # trials nearest to the front


@dataclass(frozen=True, eq=False)
class Attainment:
    """Surfaces of a front: by level, points [k, 2] in the objectives' own units, first to last.

    Attributes:
        names: the two objectives.
        sets, over: how many fronts are behind it, and what varies between them.
        warning: what to mind in reading it.
    """

    names: tuple[str, str]
    surfaces: dict[int, np.ndarray]
    sets: int
    over: str
    title: str
    warning: str


def over_speakers(info: FrontInfo, records: Records) -> Attainment | None:
    """Over resampled speakers; None without predictions or resamples of the objectives."""
    if len(info.objectives) != 2 or not set(info.objectives) <= {"acc", "w_f1", "max_gap"}:
        return None
    sums, _ = uncertainty.speaker_sums(records, [point.trial_id for point in info.best(MOST)])
    if sums is None:
        return None
    values = sums.objectives(info.objectives, resamples=RESAMPLES)
    made = surfaces(values, info.directions)
    warning = "Resampled fronts reach further than a true one: each picks its own luckiest trials."
    over = "resamples of the dev speakers"
    return Attainment(info.objectives, made, RESAMPLES, over, "With other speakers", warning)


def over_seeds(info: FrontInfo, runs: pd.DataFrame | None) -> Attainment | None:
    """Over seeds of the configurations that were confirmed, a front a seed: on test, else on dev.

    Args:
        runs: as from `confirmed.runs`. Runs that failed or are degenerate attain nothing; a seed
            without any other run counts as a set that attains nothing.

    None with three objectives, fewer than two seeds, or no run that finished.
    """
    if runs is None or len(info.objectives) != 2:
        return None
    split = "test" if (runs["split"] == "test").any() else "dev"
    runs = runs[runs["split"] == split]
    seeds, finished = sorted(set(runs["seed"])), runs[runs["status"] == "finished"]
    if len(seeds) < 2 or finished.empty:
        return None
    wide = finished.pivot(index="seed", columns="trial_id", values=list(info.objectives))
    wide = wide.reindex(seeds)
    values = np.stack([wide[name].to_numpy(float) for name in info.objectives], -1)
    count, empty = runs["trial_id"].nunique(), len(seeds) - int(_attaining(values).sum())
    warning = f"The search chose the {count} configurations on dev, with one seed each."
    if empty:
        warning += f" In {empty} of {len(seeds)} seeds no run is usable: these attain nothing."
    made = surfaces(values, info.directions)
    over = f"seeds, each on {split},"
    return Attainment(info.objectives, made, len(seeds), over, f"Over seeds, on {split}", warning)


def surfaces(values: np.ndarray, directions: Sequence[str]) -> dict[int, np.ndarray]:
    """By each of LEVELS, the points [k, 2] that span the surface, the best first one first.

    Args:
        values: [sets, points, 2]; points with NaN are left out, and a set without any other point
            attains nothing. A surface that too few sets attain is empty.
    """
    import moocore  # it knows the sets that have a point, so levels are translated to these

    signs = np.array([-1.0 if direction == "max" else 1.0 for direction in directions])
    sets = np.repeat(np.arange(len(values)), values.shape[1])
    costs = (values * signs).reshape(-1, 2)
    finite = np.isfinite(costs).all(1)
    attaining = int(_attaining(values).sum())
    made = {}
    for level in LEVELS:
        needed = max(int(np.ceil(level * len(values) / 100 - 1e-9)), 1)
        if needed > attaining:
            made[level] = np.empty((0, 2))
            continue
        share = 100 * (needed - 0.5) / attaining  # half a set below: rounding cannot matter
        surface = moocore.eaf(costs[finite], sets[finite], percentiles=[share])[:, :2]
        made[level] = surface[np.argsort(surface[:, 0])] * signs
    return made


def _attaining(values: np.ndarray) -> np.ndarray:
    """Bool [sets]: sets of values [sets, points, 2] with a point that is defined."""
    return np.isfinite(values).all(-1).any(-1)


def draw(attainment: Attainment, info: FrontInfo):
    """A matplotlib Figure: the measured front over the band of the middle half."""
    names = layout.plane(info)
    order = [attainment.names.index(name) for name in names]
    factor = np.array([METRICS[name].scale for name in names])
    minimised = METRICS[names[0]].direction == "min"
    places = {level: at[:, order] * factor for level, at in attainment.surfaces.items() if len(at)}
    core = layout.places(info.highlighted, names)
    ends = np.concatenate([core, *places.values()])
    caption = (
        "Line: the front as the search saw it. "
        f"Dashed: what half of {attainment.sets} {attainment.over} attain.",
        "Shaded: between what 25 % and what 75 % of them attain.",
        attainment.warning,
    )
    frame = layout.frame(info, core, ends, title=attainment.title, caption=caption)
    figure, axes = figures.framed(frame)
    lines = {level: _line(at, frame.xlim, frame.ylim, minimised) for level, at in places.items()}
    if {25, 75} <= set(lines):
        around = np.concatenate([lines[25], lines[75][::-1]])
        axes.fill(*around.T, color=figures.BLUE, alpha=0.18, linewidth=0, zorder=1)
    if 50 in lines:
        axes.plot(*lines[50].T, color=figures.BLUE, linewidth=1.3, linestyle="--", zorder=2)
    axes.plot(*layout.stairs(info.front, names).T, color=figures.BLUE, linewidth=1.8, zorder=3)
    axes.scatter(*layout.places(info.front, names).T, s=56, color=figures.BLUE,
                 edgecolors="white", zorder=4)  # fmt: skip
    if info.erm is not None:
        at = layout.places([info.erm], names)[0]
        axes.scatter(*at, s=62, marker="D", color=figures.ORANGE, edgecolors="white", zorder=5,
                     label="ERM (no fairness term)")  # fmt: skip
    figures.legend(axes)
    return figure


def _line(at: np.ndarray, xlim: Sequence[float], ylim: Sequence[float], minimised: bool):
    """The surface through places [k, 2], drawn on to the edges of the picture."""
    corners = layout.corners(at, minimised=minimised)
    worst = xlim[1] if minimised else xlim[0]
    first, last = (corners[0], corners[-1]) if minimised else (corners[-1], corners[0])
    start, end = [first[0], ylim[0]], [worst, last[1]]
    inner = corners if minimised else corners[::-1]
    return np.array([start, *inner, end])
