"""Configurations of a sweep as points: of a unit cube to draw from, of a feature space to model in.

A configuration is drawn as u in [0, 1]^P, one number a hyperparameter. Its features are what a
kernel measures distances between: a number becomes its place in its range (on its own scale), a
choice one column an option, so that all options are equally far apart; a hyperparameter that does
not count under the others lies in the middle, with no option chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from optuna.distributions import CategoricalDistribution

from ermgap.config import Config
from sweeps.search import space

APART = np.sqrt(0.5)  # of a chosen option's column: two options are 1 apart


class Encoding:
    """The searched hyperparameters of a configuration's sweep.

    Attributes:
        distributions: Optuna's, by name, in registry order; P of them.
        groups: int [F], to which hyperparameter each feature column belongs.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.distributions = space.distributions(config)
        self.options = {name: _options(d) for name, d in self.distributions.items()}
        self.choice = np.array([bool(options) for options in self.options.values()])
        widths = [len(options) or 1 for options in self.options.values()]
        self.groups = np.repeat(np.arange(len(widths)), widths)
        # A proposal makes thousands of configurations: what is the same in all is found once.
        self.given = space.unsearched(config)
        self.when = {name: space.SPACE[name].when for name in self.distributions}

    def decode(self, point: np.ndarray, fixed: Mapping = {}) -> dict:
        """The values at u [P]: those of `fixed` as they are, and only what counts."""
        at = dict(zip(self.distributions, point, strict=True))
        return self.choose(lambda name, distribution: _value(distribution, at[name]), fixed)

    def choose(self, draw: Callable, fixed: Mapping = {}) -> dict:
        """A configuration by `draw(name, distribution)` of each hyperparameter that counts."""
        hyperparameters, seen = {}, dict(self.given)
        for name, distribution in self.distributions.items():
            if self.when[name](seen):
                hyperparameters[name] = fixed[name] if name in fixed else draw(name, distribution)
                seen[name] = hyperparameters[name]
        return hyperparameters

    def encode(self, hyperparameters: Mapping) -> np.ndarray:
        """u [P] of values; 0.5 where one does not count."""
        return np.array(
            [
                _unit(distribution, hyperparameters[name]) if name in hyperparameters else 0.5
                for name, distribution in self.distributions.items()
            ]
        )

    def features(self, configurations: Sequence[Mapping]) -> np.ndarray:
        """Float64 [n, F]."""
        made = np.zeros((len(configurations), len(self.groups)))
        for row, hyperparameters in zip(made, configurations, strict=True):
            column = 0
            for name, options in self.options.items():
                if not options:
                    known = name in hyperparameters
                    row[column] = (
                        _unit(self.distributions[name], hyperparameters[name]) if known else 0.5
                    )
                elif name in hyperparameters:
                    row[column + options.index(hyperparameters[name])] = APART
                column += len(options) or 1
        return made

    def near(self, point: np.ndarray, rng: np.random.Generator, *, scale: float) -> np.ndarray:
        """A neighbour of u [P]: numbers move by `scale` (reflected at the ends), options rarely.

        About half of the hyperparameters stay as they are, at least one does not.
        """
        moved = point + rng.normal(0, scale, len(point))
        moved = 1 - np.abs(1 - np.abs(moved) % 2)
        moved = np.where(self.choice, rng.random(len(point)), moved)
        stays = rng.random(len(point)) < np.where(self.choice, 0.8, 0.5)
        stays[rng.integers(len(point))] = False
        return np.where(stays, point, moved)


def _options(distribution) -> tuple:
    return distribution.choices if isinstance(distribution, CategoricalDistribution) else ()


def _value(distribution, u: float):
    if options := _options(distribution):
        return options[min(int(u * len(options)), len(options) - 1)]
    low, high = distribution.low, distribution.high
    if distribution.log:
        return float(np.clip(low * (high / low) ** u, low, high))
    return float(low + (high - low) * u)


def _unit(distribution, value) -> float:
    if options := _options(distribution):
        return (options.index(value) + 0.5) / len(options)
    low, high = distribution.low, distribution.high
    if high == low:
        return 0.5
    if distribution.log:
        return float(np.log(value / low) / np.log(high / low))
    return float((value - low) / (high - low))
