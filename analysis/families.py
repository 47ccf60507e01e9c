"""Fronts by loss: does one family of configurations reach what the others do not?

    found = families(info, records)          # a Family per loss with usable trials
    print(sentences(found)); draw(found, info, Path("families.png"))

Each family's front is of its own trials alone. A hypervolume grows with the number of trials, and
a search gives more of them to what does well; so it is also given for as many trials as the rarest
family has, drawn at random. The standard error is over dev speakers resampled within language and
gender, the same for all families (`analysis.uncertainty`); which trials there are, and their seeds,
is not resampled.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis import figures, front, layout, uncertainty
from analysis.front import FrontInfo, Point
from ermgap import metrics
from ermgap.records import Records

WORDS = {
    "erm": "ERM",
    "minmaxgap": "MinMaxGAP",
    "groupdro": "GroupDRO",
    "reweight": "Reweighting",
    "vrex": "V-REx",
}
# Okabe and Ito's colour-blind-safe set, and a shape for each.
LOOKS = (("#D55E00", "D"), ("#0072B2", "o"), ("#009E73", "s"), ("#CC79A7", "^"), ("#E69F00", "v"))
RESAMPLES = 400


@dataclass(frozen=True, eq=False)
class Family:
    """The usable trials of one loss.

    Attributes:
        loss, words: its name in the configuration and in pictures.
        points: all usable trials. front: those that no other of the family beats.
        hypervolume: normalised, as `FrontInfo.hypervolume`.
        even: mean hypervolume of `n_even` of the trials, drawn at random without replacement.
        drawn: the same on each resample of the speakers, [RESAMPLES]; NaN without predictions.
    """

    loss: str
    words: str
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    hypervolume: float
    even: float
    n_even: int
    drawn: np.ndarray

    @property
    def se(self) -> float:
        """Standard error of the hypervolume over speakers."""
        return float(self.drawn.std(ddof=1))


def families(info: FrontInfo, records: Records) -> list[Family]:
    """Every loss that has usable trials, in the order of `WORDS`, then by name."""
    losses = {str(p.config.get("loss")) for p in info.points if p.eligible}
    order = sorted(
        losses, key=lambda loss: (list(WORDS).index(loss) if loss in WORDS else 99, loss)
    )
    members = {loss: _members(loss, info) for loss in order}
    fewest = min(map(len, members.values()), default=0)
    return [_family(loss, members[loss], info, records, fewest) for loss in order]


def outside(family: Family, others: list[Family], info: FrontInfo) -> int:
    """How many points of `family`'s front no point of any of the `others` beats or equals."""
    mine = _values(family.front, info)
    theirs = _values([point for other in others for point in other.front], info)
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in info.directions])
    covered = ((theirs * signs)[None] >= (mine * signs)[:, None]).all(-1).any(1)
    return int((~covered).sum())


def sentences(found: list[Family], info: FrontInfo) -> list[str]:
    """Each family's hypervolume beside its best rival's, with the difference and its error."""
    lines = []
    for family in found:
        rivals = [other for other in found if other is not family]
        line = (
            f"{family.words}: {_trials(len(family.points))}, hypervolume {family.hypervolume:.3f}"
            f"{_pm(family.se)}"
        )
        if rivals:
            if len(family.points) > family.n_even:
                line += f" ({family.even:.3f} for {family.n_even} of them, at random)"
            best = max(rivals, key=lambda other: other.hypervolume)
            change = family.hypervolume - best.hypervolume
            error = float((family.drawn - best.drawn).std(ddof=1))
            line += (
                f", {_signed(change)}{_pm(error)} against {best.words}, the best of the others; "
                f"{outside(family, rivals, info)} of its {len(family.front)} front points lie "
                "outside all other fronts"
            )
        lines.append(f"{line}.")
    return lines


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"


def _signed(change: float) -> str:
    return f"{change:+.3f}".replace("-", "−")


def _pm(error: float) -> str:
    return f" ± {error:.3f}" if np.isfinite(error) else ""


def draw(found: list[Family], info: FrontInfo, path: Path) -> None:
    """Write the picture at 150 dpi: every usable trial, and each family's staircase."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.3, 6.2), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.185, 0.885, 0.69))
    x, y = info.objectives[:2]
    (xlabel, xfactor, *_), (ylabel, yfactor, *_) = layout.AXES[x], layout.AXES[y]
    lines = stairs(found, info)
    for number, family in enumerate(found):
        colour, marker = LOOKS[number % len(LOOKS)]
        all_ = np.array([[p.values[x] * xfactor, p.values[y] * yfactor] for p in family.points])
        axes.scatter(*all_.T, s=34, marker=marker, color=colour, alpha=0.35, linewidths=0)
        best = np.array([[p.values[x] * xfactor, p.values[y] * yfactor] for p in family.front])
        axes.plot(*(lines[number] * [xfactor, yfactor]).T, color=colour, linewidth=1.7)
        words = f"{family.words} ({family.hypervolume:.3f}{_pm(family.se)})"
        axes.scatter(
            *best.T, s=62, marker=marker, color=colour, edgecolors="white", label=words, zorder=5
        )
    hidden = _focus(axes, found, info, [xfactor, yfactor])
    words = {"color": figures.INK, "fontsize": 9.5}
    axes.set_xlabel(f"{xlabel}, {layout.BETTER[info.directions[0]]}", **words)
    axes.set_ylabel(f"{ylabel}, {layout.BETTER[info.directions[1]]}", **words)
    axes.grid(color="#EDEDED", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=figures.SOFT, length=0, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.012, 1.0), ncols=3, frameon=False, fontsize=8.5,
        handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    figure.text(0.09, 0.965, f"Fronts by loss: {info.name}", fontsize=13, weight="bold")
    figure.text(0.09, 0.105, caption(info, hidden), fontsize=8, color=figures.SOFT, va="top")
    figure.savefig(path, dpi=150, format="png")


def stairs(found: list[Family], info: FrontInfo) -> list[np.ndarray]:
    """Border of what each front covers in the first two objectives, arrays [corners, 2]."""
    lines = []
    for family in found:
        points = _values(family.front, info)[:, :2]
        points = points[np.argsort(points[:, 0], kind="stable")]
        # Between two points of a front, what is covered is the worse of either in both objectives.
        worse = [max if direction == "min" else min for direction in info.directions[:2]]
        corners = [points[0]]
        for left, right in itertools.pairwise(points):
            corners += [
                np.array([pick(a, b) for pick, a, b in zip(worse, left, right, strict=True)]),
                right,
            ]
        lines.append(np.array(corners))
    return lines


def _focus(axes, found: list[Family], info: FrontInfo, factors: Sequence[float]) -> int:
    """Show the fronts and as much around as they span; returns how many points are outside."""
    fronts = np.concatenate([_values(family.front, info)[:, :2] * factors for family in found])
    low, high = fronts.min(0), fronts.max(0)
    room = np.maximum(high - low, 0.05 * np.abs(high) + 1e-9)
    points = np.concatenate([_values(family.points, info)[:, :2] * factors for family in found])
    edge = 0.06 * room
    shown = np.clip([points.min(0), points.max(0)], low - 0.8 * room, high + 0.8 * room)
    axes.set_xlim(shown[0, 0] - edge[0], shown[1, 0] + edge[0])
    axes.set_ylim(shown[0, 1] - edge[1], shown[1, 1] + edge[1])
    return int(((points < shown[0] - edge) | (points > shown[1] + edge)).any(1).sum())


def caption(info: FrontInfo, hidden: int = 0) -> str:
    """What the picture's marks and numbers are; `hidden` usable trials lie outside of it."""
    speakers = f" of {info.speakers} speakers" if info.speakers else ""
    beyond = f" ({hidden} worse ones lie outside the picture)" if hidden else ""
    return (
        "Large marks and steps: each loss's own front; small marks: its other usable trials"
        f"{beyond}.\n"
        "In brackets: the front's hypervolume and one standard error over resampled dev speakers.\n"
        f"{info.sweep.get('n_dev', '?')} dev utterances{speakers}; one seed a trial, chosen on the "
        "utterances that are drawn."
    )


def _members(loss: str, info: FrontInfo) -> tuple[Point, ...]:
    return tuple(p for p in info.points if p.eligible and str(p.config.get("loss")) == loss)


def _family(
    loss: str, points: tuple[Point, ...], info: FrontInfo, records: Records, n_even: int
) -> Family:
    values = _values(points, info)
    volume = functools.partial(
        front.hypervolume, reference=info.reference, directions=info.directions
    )
    kept = front.non_dominated(values, directions=info.directions)
    rng = np.random.default_rng(0)
    even = [
        volume(values[rng.choice(len(values), n_even, replace=False)]) for _ in range(RESAMPLES)
    ]
    return Family(
        loss,
        WORDS.get(loss, loss),
        points,
        tuple(point for point, keep in zip(points, kept, strict=True) if keep),
        volume(values),
        float(np.mean(even)),
        n_even,
        _drawn(points, info, records),
    )


def _values(points: Sequence[Point], info: FrontInfo) -> np.ndarray:
    """Objectives, [points, objectives]."""
    values = [[point.values[name] for name in info.objectives] for point in points]
    return np.array(values, float).reshape(len(points), len(info.objectives))


def _drawn(points: tuple[Point, ...], info: FrontInfo, records: Records) -> np.ndarray:
    """Hypervolume of these trials' front on each resample, [RESAMPLES]."""
    if set(info.objectives) != {"acc", "max_gap"}:
        return np.full(RESAMPLES, np.nan)
    values = []
    for point in points:
        table = uncertainty.dev_predictions(records, point.trial_id)
        if table is None:
            return np.full(RESAMPLES, np.nan)
        counts, classes, _ = uncertainty.resampled_counts(
            table,
            labels=records.sweep["labels"],
            min_support=int(records.sweep["config"]["data"]["min_support"]),
            resamples=RESAMPLES,
            rng=np.random.default_rng(0),
        )
        scores = {
            "acc": metrics.accuracy(counts.sum((1, 2))),
            "max_gap": uncertainty.largest_gap(counts, classes),
        }
        values.append(np.stack([scores[name] for name in info.objectives], 1))
    return np.array(
        [
            front.hypervolume(one, reference=info.reference, directions=info.directions)
            for one in np.stack(values, 1)
        ]
    )
