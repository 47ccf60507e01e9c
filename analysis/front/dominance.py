"""Which points no other beats, and how much of objective space they cover.

non_dominated([[0.7, 0.2], [0.6, 0.1]], directions=["max", "min"])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def non_dominated(values: Sequence[Sequence[float]], *, directions: Sequence[str]) -> np.ndarray:
    """Bool [n]: rows of values [n, m] that no other row beats; equal rows are kept together.

    `directions` is "max" or "min" for each of the m objectives. A row with NaN is never kept.
    """
    return layers(values, directions=directions) == 0


def layers(values: Sequence[Sequence[float]], *, directions: Sequence[str]) -> np.ndarray:
    """Int [n]: how many fronts of values [n, m] must go until no row beats this one.

    Equal rows have the same number; a row with NaN has n.
    """
    import moocore  # 90 ms to import: only when a front is asked for

    costs = _costs(values, directions)
    finite = np.isfinite(costs).all(axis=1)
    numbers = np.full(len(costs), len(costs))
    if finite.any():
        numbers[finite] = moocore.pareto_rank(costs[finite])
    return numbers


def hypervolume(
    values: Sequence[Sequence[float]],
    *,
    reference: Sequence[float],
    directions: Sequence[str],
    ideal: Sequence[float] | None = None,
) -> float:
    """Volume dominated by values [n, m] up to `reference`, as a share (0 to 1) of all there is.

    All there is: the box between the reference and `ideal` (default 1 for a maximised objective, 0
    for a minimised one). A point that does not beat the reference everywhere adds nothing. Computed
    by moocore (Fonseca, Paquete, Lopez-Ibanez 2006). NaN if the reference is not finite.
    """
    import moocore

    if ideal is None:
        ideal = [1.0 if direction == "max" else 0.0 for direction in directions]
    corner = _costs([reference], directions)[0]
    box = float(np.prod(corner - _costs([ideal], directions)[0]))
    if not np.isfinite(box) or box <= 0:
        return float("nan")
    costs = _costs(values, directions)
    inside = costs[(costs < corner).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=corner)) / box if len(inside) else 0.0


def _costs(values: Sequence[Sequence[float]], directions: Sequence[str]) -> np.ndarray:
    """Values [n, m] with maximised columns negated, so that less is better everywhere."""
    if unknown := set(directions) - {"max", "min"}:
        raise ValueError(f"directions are 'max' or 'min', not {sorted(unknown)}")
    signs = [-1.0 if direction == "max" else 1.0 for direction in directions]
    return np.asarray(values, dtype=float).reshape(-1, len(signs)) * signs
