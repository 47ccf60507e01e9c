"""How much of each objective's variance over trials each hyperparameter explains alone.

    for item in importance(info): print(item.objective, item.name, item.share, item.noise)

The share of an objective's rank variance that a hyperparameter explains by itself: Spearman's rho
squared of a number, the correlation ratio (eta squared) of the ranks over a choice's options. Only
usable trials where it counts are compared. `noise` is the 95 % point of the same share when the
objective is shuffled over trials: below it there is nothing to see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from analysis.front.front import FrontInfo

FEWEST = 8  # trials under which a share says nothing
SHUFFLES = 400


@dataclass(frozen=True)
class Importance:
    """Share of one objective that one hyperparameter explains, over `of` trials."""

    objective: str
    name: str
    share: float
    noise: float
    of: int


def importance(info: FrontInfo) -> list[Importance]:
    """For every objective, the largest share first; empty with fewer than `FEWEST` trials."""
    points = [point for point in info.points if point.eligible]
    names = dict.fromkeys(name for point in points for name in point.hyperparameters)
    importances = []
    for objective in info.objectives:
        of_objective = []
        for name in names:
            with_value = [p for p in points if p.hyperparameters.get(name) is not None]
            values = [point.hyperparameters[name] for point in with_value]
            if len(with_value) < FEWEST or len({str(value) for value in values}) < 2:
                continue
            ranks = rankdata([point.values[objective] for point in with_value])
            of_objective.append(
                Importance(objective, name, *_shares(values, ranks), len(with_value))
            )
        importances += sorted(of_objective, key=lambda item: (-item.share, item.name))
    return importances


def _shares(values: list, ranks: np.ndarray) -> tuple[float, float]:
    """Share of the ranks' variance that the values explain, and its 95 % point under shuffling."""
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(np.tile(ranks, (SHUFFLES, 1)), axis=1)
    together = np.vstack([ranks, shuffled])
    centred = together - together.mean(1, keepdims=True)
    total = (centred**2).sum(1)
    if not total[0] > 0:
        return 0.0, 0.0
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        against = rankdata(values) - (len(values) + 1) / 2
        explained = (centred @ against) ** 2 / max((against**2).sum(), 1e-12)
    else:
        code = np.unique([str(value) for value in values], return_inverse=True)[1]
        groups = np.eye(code.max() + 1)[code]
        explained = ((centred @ groups) ** 2 / groups.sum(0)).sum(1)
    shares = explained / total
    return float(shares[0]), float(np.quantile(shares[1:], 0.95))
