"""Hyperparameters as points of a unit cube, to draw from, and of a feature space, to model in.

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
        self.distributions = space.distributions(config)
        self.options = {name: _options(d) for name, d in self.distributions.items()}
        self.choice = np.array([bool(options) for options in self.options.values()])
        widths = [len(options) or 1 for options in self.options.values()]
        self.groups = np.repeat(np.arange(len(widths)), widths)
        self.given = space.unsearched(config)  # once: a proposal makes thousands of configurations

    def decode(self, point: np.ndarray, fixed: Mapping = {}) -> dict:
        """The values at u [P]: those of `fixed` as they are, and only what counts."""
        at = dict(zip(self.distributions, point, strict=True))
        return self.choose(lambda name, distribution: _value(distribution, at[name]), fixed)

    def choose(self, draw: Callable, fixed: Mapping = {}) -> dict:
        """Values by `draw(name, distribution)` of what counts; those of `fixed` as they are."""
        return space.choose(
            lambda name, distribution: fixed[name] if name in fixed else draw(name, distribution),
            self.distributions,
            self.given,
        )

    def encode(self, hyperparameters: Mapping) -> np.ndarray:
        """u [P] of values; 0.5 where one does not count."""
        return np.array([self._unit(name, hyperparameters) for name in self.distributions])

    def features(self, configurations: Sequence[Mapping]) -> np.ndarray:
        """Float64 [n, F]."""
        features = np.zeros((len(configurations), len(self.groups)))
        for row, hyperparameters in zip(features, configurations, strict=True):
            column = 0
            for name, options in self.options.items():
                if not options:
                    row[column] = self._unit(name, hyperparameters)
                elif name in hyperparameters:
                    row[column + options.index(hyperparameters[name])] = APART
                column += len(options) or 1
        return features

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

    def _unit(self, name: str, hyperparameters: Mapping) -> float:
        if name not in hyperparameters:
            return 0.5
        return _position(self.distributions[name], hyperparameters[name])


def _options(distribution) -> tuple:
    return distribution.choices if isinstance(distribution, CategoricalDistribution) else ()


def _value(distribution, u: float):
    if options := _options(distribution):
        return options[min(int(u * len(options)), len(options) - 1)]
    low, high = distribution.low, distribution.high
    if distribution.log:
        return float(np.clip(low * (high / low) ** u, low, high))
    return float(low + (high - low) * u)


def _position(distribution, value) -> float:
    if options := _options(distribution):
        return (options.index(value) + 0.5) / len(options)
    low, high = distribution.low, distribution.high
    if high == low:
        return 0.5
    if distribution.log:
        return float(np.log(value / low) / np.log(high / low))
    return float((value - low) / (high - low))
