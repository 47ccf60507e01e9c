"""Several sweeps in one picture: their fronts, and their hypervolume against what was spent.

    compare.write(["results/front-sampler", "results/random"])
writes analysis/plots/compare-<names>/compare.png and .csv. All hypervolumes are up to one reference
point, the worst of the sweeps' own in each objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import doctor
from analysis.figures import figures, layout
from analysis.figures.family_picture import LOOKS
from analysis.front import FrontInfo
from analysis.report import PLOTS, read
from ermgap.errors import UserError
from ermgap.records import Records, write_atomically

AXES = (("epochs", "Epochs trained"), ("hours", "Worker-hours (of GPUs, where workers have one)"))


def write(directories: Sequence[Path | str], plots: Path | str = PLOTS) -> pd.DataFrame:
    """Draw and print the comparison; returns a row a sweep.

    Raises:
        UserError: one is no sweep, or two have other objectives.
    """
    opened = [Records.open(directory) for directory in directories]
    infos = [read(records) for records in opened]
    first = infos[0]
    for info in infos[1:]:
        if (info.objectives, info.directions) != (first.objectives, first.directions):
            raise UserError(
                f"{info.name} has the objectives {', '.join(info.objectives)} and {first.name} "
                f"{', '.join(first.objectives)}; compare sweeps of the same objectives."
            )
    infos = _on_one_reference(infos)
    curves = [
        pd.DataFrame(doctor.progress(info, records.rows()),
                     columns=["epochs", "hours", "trials", "hypervolume"])
        for info, records in zip(infos, opened, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(
        [
            {
                "sweep": info.name,
                "trials": info.complete,
                "epochs": int(curve["epochs"].iloc[-1]) if len(curve) else 0,
                "hours": float(curve["hours"].iloc[-1]) if len(curve) else 0.0,
                "front": len(info.front),
                "hypervolume": info.hypervolume,
            }
            for info, curve in zip(infos, curves, strict=True)
        ]
    )
    notes = _notes(infos, opened)
    folder = Path(plots) / ("compare-" + "-".join(info.name for info in infos))[:120]
    write_atomically(folder / "compare.csv", lambda p: table.to_csv(p, index=False))
    figures.save(draw(infos, curves, notes), folder / "compare.png")
    print(table.to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print("\n".join(notes))
    print(f"written: {folder}/compare.png, compare.csv")
    return table


def _on_one_reference(infos: Sequence[FrontInfo]) -> list[FrontInfo]:
    """The same sweeps with hypervolumes up to the worst of their reference points."""
    own = np.array([info.reference for info in infos], float)
    worst = tuple(
        float(column.min() if direction == "max" else column.max())
        for column, direction in zip(own.T, infos[0].directions, strict=True)
    )
    infos = [replace(info, reference=worst) for info in infos]
    return [replace(info, hypervolume=info.volume(info.scores(info.front))) for info in infos]


def _notes(infos: Sequence[FrontInfo], opened: Sequence[Records]) -> list[str]:
    """Whether they can be compared at all, one sentence each."""
    limits = zip(infos[0].objectives, infos[0].reference, strict=True)
    notes = [
        "Hypervolumes are up to "
        + ", ".join(f"{name} = {worst:.3g}" for name, worst in limits)
        + ", a share of all there is."
    ]
    if len({_dev(records) for records in opened}) > 1:
        notes.append("They were evaluated on different dev utterances: read them side by side, "
                     "not against each other.")  # fmt: skip
    by = dict.fromkeys(info.attribute.title for info in infos)
    if len(by) > 1:
        notes.append(f"Their gaps are by {' and by '.join(by)}: gaps of one are none of another.")
    return notes


def _dev(records: Records) -> frozenset | None:
    try:
        utterances = records.table()
    except UserError:
        return None
    return frozenset(utterances.loc[utterances["split"] == "dev", "utterance_id"])


def draw(infos: Sequence[FrontInfo], curves: Sequence[pd.DataFrame], notes: Sequence[str]):
    """A matplotlib Figure: the fronts, and each sweep's hypervolume by AXES."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 4.9), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    names = layout.plane(infos[0])
    for number, (info, curve) in enumerate(zip(infos, curves, strict=True)):
        colour, marker = LOOKS[number % len(LOOKS)]
        line = {"color": colour, "linewidth": 1.6}
        panels[0].plot(*layout.stairs(info.front, names).T, **line)
        panels[0].scatter(*layout.places(info.front, names).T, color=colour, marker=marker, s=48,
                          edgecolors="white", zorder=3,
                          label=f"{info.name} ({info.hypervolume:.3f})")  # fmt: skip
        for axes, (column, _) in zip(panels[1:], AXES, strict=True):
            axes.step(curve[column], curve["hypervolume"], where="post", **line)
    panels[0].set_xlabel(infos[0].attribute.metric(names[0]).axis_title)
    panels[0].set_ylabel(infos[0].attribute.metric(names[1]).axis_title)
    for axes, (_, title) in zip(panels[1:], AXES, strict=True):
        axes.set(xlabel=title, ylabel="Hypervolume so far", ylim=(0, None), xlim=(0, None))
    for axes in panels:
        axes.grid(color="#EDEDED", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4,
                  frameon=False, fontsize=9)  # fmt: skip
    figure.supxlabel(" ".join(notes), fontsize=8, color=figures.SOFT, x=0.01, ha="left")
    return figure
