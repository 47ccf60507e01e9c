"""Expected hypervolume improvement of independent Gaussian objectives, exactly.

The space that a front leaves undominated is cut into the cells of the grid that its coordinates
make. What a point y adds to the hypervolume in a cell [l, u] is the product over objectives of
(u - max(l, y))+, whose expectation under y ~ N(mu, sd) is psi(u) - psi(l) with
psi(t) = (t - mu) Phi(z) + sd phi(z), z = (t - mu) / sd. (Emmerich, Giannakoglou and Naujoks 2006;
the grid is theirs.) All objectives are minimised.
"""

from __future__ import annotations

import string

import numpy as np
from scipy.special import ndtr

LARGEST = 24  # points of a front in three objectives: their grid has this number cubed of cells


def expected_improvement(
    mean: np.ndarray, sd: np.ndarray, *, front: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """Float64 [n], what each point adds to the hypervolume up to `reference` in expectation.

    Args:
        mean, sd: [n, m]. front: [k, m], points that do not dominate each other. reference: [m].
    """
    front = np.asarray(front, float).reshape(-1, len(reference))
    front = front[(front < reference).all(1)]
    if len(reference) > 2 and len(front) > LARGEST:  # the rest would be exact and slow
        front = front[np.linspace(0, len(front) - 1, LARGEST).astype(int)]
    edges = [np.concatenate([np.unique(column), [end]])
             for column, end in zip(front.T, reference, strict=True)]  # fmt: skip
    free = np.ones([len(edge) for edge in edges], bool)
    for point in front:
        # A cell is dominated when its lower corner is not better anywhere.
        at = [np.searchsorted(edge, value) for edge, value in zip(edges, point, strict=True)]
        free[tuple(slice(i + 1, None) for i in at)] = False
    gains = [_gain(edge, mean[:, j], sd[:, j]) for j, edge in enumerate(edges)]
    axes = string.ascii_lowercase[: len(edges)]
    terms = ",".join(f"z{axis}" for axis in axes)
    return np.einsum(f"{terms},{axes}->z", *gains, free.astype(float), optimize=True)


def _gain(edge: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """By how much E (t - y)+ grows up to each t of edge [e], for y ~ N(mean, sd) [n]: [n, e]."""
    far = edge[None] - mean[:, None]
    z = far / sd[:, None]
    below = far * ndtr(z) + sd[:, None] * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.diff(below, axis=1, prepend=0.0)
