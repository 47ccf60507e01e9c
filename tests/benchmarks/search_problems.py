"""Multi-objective test problems with epochs and noise, to compare searches on.

Published problems (Zitzler, Deb and Thiele 2000; Deb et al. 2002; Kursawe 1991; Fonseca and
Fleming 1995; Poloni et al. 2000) over few dimensions, two changes made to each: the optimum of the
distance variables lies inside the cube and not on its edge, where any search that clips would find
it; and a configuration has a learning curve. After epoch e of E it shows

    truth(x) + lag * (0.5 + s(x)) * decay(e) + noise,     decay(1) = 1, decay(E) = 0

where s(x) in [0, 1] says how slow the configuration learns (so that early ranks mislead) and the
noise has a part for the trial, which stays over its epochs, and a part for each evaluation. All
objectives are minimised. Only numpy is needed here: peers run it in environments of their own.

`DESIGN` was used to choose the defaults of the search; of `UNTOUCHED`, ZDT2 and Kursawe had been
looked at before the search's last change, ZDT6 and Poloni never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

TRIALS = 40  # full ones: the budget of every search
CENTRE = 0.35  # where the distance variables are best


@dataclass(frozen=True)
class Problem:
    """A problem: `dims` variables in [0, 1], `epochs`, and `reference` of the hypervolume, [m].

    `truth` maps x [dims] to the objectives at the last epoch without noise, [m]. `ideal` bounds
    them from below: a hypervolume is a share of the box between it and the reference.
    """

    name: str
    dims: int
    epochs: int
    truth: Callable[[np.ndarray], np.ndarray]
    reference: tuple[float, ...]
    ideal: tuple[float, ...]
    noise: float = 0.03  # of each objective's range between ideal and reference
    lag: float = 0.5  # likewise: how far the first epoch is from the last, on average

    @property
    def names(self) -> tuple[str, ...]:
        """The variables: x0, x1, ..."""
        return tuple(f"x{i}" for i in range(self.dims))

    @property
    def space(self) -> dict[str, dict]:
        """What each variable may be: low, high and log, or choices (as sweep.yaml tells it)."""
        return {name: {"low": 0.0, "high": 1.0, "log": False} for name in self.names}

    @property
    def objectives(self) -> int:
        """How many."""
        return len(self.reference)

    def final(self, x: dict[str, float]) -> np.ndarray:
        """What a configuration is truly worth, [m]."""
        return self.truth(self._vector(x))

    def curve(self, x: dict[str, float], seed: int) -> np.ndarray:
        """What a trial of it shows after each epoch, [epochs, m]; `seed` draws its noise."""
        rng = np.random.default_rng(seed)
        at, span = self._vector(x), np.subtract(self.reference, self.ideal)
        epoch = np.arange(1, self.epochs + 1)[:, None]
        decay = (np.exp(-epoch / 2) - np.exp(-self.epochs / 2)) / (
            np.exp(-1 / 2) - np.exp(-self.epochs / 2)
        )
        slow = 0.5 + 0.5 * np.sin(2 * np.pi * (at[-1] + at[0]))
        lasting = rng.normal(0, 0.7, self.objectives)
        passing = rng.normal(0, 0.7, (self.epochs, self.objectives))
        noise = self.noise * span * (lasting + passing)
        return self.truth(at) + self.lag * span * (0.5 + slow) * decay + noise

    def _vector(self, x: dict[str, float]) -> np.ndarray:
        return np.array([x[name] for name in self.names], float)


def trial_seed(seed: int, number: int) -> int:
    """Of the noise of a search's `number`-th trial: the same for all searches of one seed."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _far(x: np.ndarray) -> np.ndarray:
    """The distance variables: 0 at the centre, 1 at the far edge."""
    return np.abs(x - CENTRE) / (1 - CENTRE)


def zdt1(x: np.ndarray) -> np.ndarray:
    """Convex front."""
    g = 1 + 9 * _far(x[1:]).mean()
    return np.array([x[0], g * (1 - np.sqrt(x[0] / g))])


def zdt2(x: np.ndarray) -> np.ndarray:
    """Concave front."""
    g = 1 + 9 * _far(x[1:]).mean()
    return np.array([x[0], g * (1 - (x[0] / g) ** 2)])


def zdt3(x: np.ndarray) -> np.ndarray:
    """A front in five pieces."""
    g = 1 + 9 * _far(x[1:]).mean()
    share = x[0] / g
    return np.array([x[0], g * (1 - np.sqrt(share) - share * np.sin(10 * np.pi * x[0]))])


def zdt6(x: np.ndarray) -> np.ndarray:
    """Concave and unevenly crowded; the distance hardly tells far from near until it is small."""
    g = 1 + 9 * _far(x[1:]).mean() ** 0.25
    first = 1 - np.exp(-4 * x[0]) * np.sin(6 * np.pi * x[0]) ** 6
    return np.array([first, g * (1 - (first / g) ** 2)])


def dtlz2(x: np.ndarray) -> np.ndarray:
    """A quarter of a circle."""
    g = ((x[1:] - CENTRE) ** 2).sum()
    angle = x[0] * np.pi / 2
    return (1 + g) * np.array([np.cos(angle), np.sin(angle)])


def dtlz2_3(x: np.ndarray) -> np.ndarray:
    """An eighth of a sphere: three objectives."""
    g = ((x[2:] - CENTRE) ** 2).sum()
    a, b = x[:2] * np.pi / 2
    return (1 + g) * np.array([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)])


def fonseca(x: np.ndarray) -> np.ndarray:
    """Two bumps: a concave front along a diagonal."""
    at, step = 4 * (2 * x - 1) - 0.5, 1 / np.sqrt(len(x))
    return 1 - np.exp([-((at - step) ** 2).sum(), -((at + step) ** 2).sum()])


def kursawe(x: np.ndarray) -> np.ndarray:
    """Rugged, a front in pieces."""
    at = 10 * x - 5
    first = (-10 * np.exp(-0.2 * np.sqrt(at[:-1] ** 2 + at[1:] ** 2))).sum()
    return np.array([first, (np.abs(at) ** 0.8 + 5 * np.sin(at**3)).sum()])


def poloni(x: np.ndarray) -> np.ndarray:
    """Two pieces far apart, one of them small."""
    a, b = np.pi * (2 * x - 1)

    def bends(u: float, v: float) -> np.ndarray:
        return np.array(
            [
                0.5 * np.sin(u) - 2 * np.cos(u) + np.sin(v) - 1.5 * np.cos(v),
                1.5 * np.sin(u) - np.cos(u) + 2 * np.sin(v) - 0.5 * np.cos(v),
            ]
        )

    return np.array([1 + ((bends(1.0, 2.0) - bends(a, b)) ** 2).sum(), (a + 3) ** 2 + (b + 1) ** 2])


DESIGN = {
    problem.name: problem
    for problem in (
        Problem("zdt1", 5, 9, zdt1, (1.1, 6.0), (0.0, 0.0)),
        Problem("zdt3", 4, 6, zdt3, (1.1, 6.0), (0.0, -1.0)),
        Problem("dtlz2", 6, 9, dtlz2, (1.6, 1.6), (0.0, 0.0)),
        Problem("dtlz2-3", 5, 6, dtlz2_3, (1.6, 1.6, 1.6), (0.0, 0.0, 0.0)),
        Problem("fonseca", 3, 9, fonseca, (1.0, 1.0), (0.0, 0.0)),
    )
}
UNTOUCHED = {
    problem.name: problem
    for problem in (
        Problem("zdt2", 5, 6, zdt2, (1.1, 6.0), (0.0, 0.0)),
        Problem("zdt6", 5, 6, zdt6, (1.1, 9.0), (0.25, 0.0)),
        Problem("poloni", 2, 6, poloni, (20.0, 30.0), (0.0, 0.0)),
        Problem("kursawe", 3, 6, kursawe, (-10.0, 10.0), (-20.0, -12.0)),
    )
}
