"""A Gaussian process: what a configuration will reach, from finished and stopped trials.

After epoch e of E a trial of configuration x shows

    y = m + f(x) + r(e)^kappa * (b + g(x)) + t + n,        r(e) = (E - e) / (E - 1)

f is what x is worth after the whole budget, b + g(x) how far it still is from it, t the luck of a
trial (it stays over its epochs), n that of an evaluation. All parts are Gaussian, so that a trial
that was stopped at an early rung says something of f, and less than one that ended. The term in
r(e) is the linear truncated fidelity kernel of BoTorch with its exponent free. Lengthscales have
a rather narrow prior, since a sweep has few trials: where they were freer, or longer (Hvarfner,
Hellsten and Nardi 2024), the design problems of tests/benchmarks/search_problems.py needed more
trials; where they were tighter, hyperparameters without effect could not be recognised.
Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

LENGTH = (float(np.log(0.9)), 0.6)  # of a lengthscale's logarithm; the ends of a range are 1 apart
START = {  # of each logarithm: the mode of its prior, and its standard deviation
    "signal": (0.0, 1.0), "slow": (-1.0, 1.0), "bias": (-1.0, 1.0), "kappa": (0.0, 0.5),
    "trial": (-6.0, 1.0), "noise": (-4.0, 1.5),
}  # fmt: skip
JITTER = 1e-6
DIFFERENCES = 100_000  # held at once outside a fit


@dataclass(frozen=True)
class Observations:
    """What trials have shown, a row for each rung or end.

    Attributes:
        features: [n, F]. remaining: [n], share of the training that is to come, 0 to 1.
        trial: int [n], equal where the trial is. values: [n].
    """

    features: np.ndarray
    remaining: np.ndarray
    trial: np.ndarray
    values: np.ndarray


class Surrogate:
    """A model of one objective.

    Args:
        groups: int [F], the hyperparameter that each feature belongs to; they share a lengthscale.
        hint: `settings` of an earlier fit, to begin from.
        fit: False takes them as they are.
    """

    def __init__(
        self,
        observations: Observations,
        *,
        groups: np.ndarray,
        hint: np.ndarray | None = None,
        fit: bool = True,
    ) -> None:
        self.groups = torch.as_tensor(groups)
        self.centre = float(np.mean(observations.values))
        self.spread = float(np.std(observations.values)) or 1.0
        self.x = torch.as_tensor(observations.features)
        self.remaining = torch.as_tensor(observations.remaining)
        self.same = torch.as_tensor(observations.trial[:, None] == observations.trial[None])
        self.y = torch.as_tensor((observations.values - self.centre) / self.spread)
        count = int(groups.max()) + 1
        prior = np.array([LENGTH] * count + list(START.values()))
        self.mode, self.sd = torch.as_tensor(prior).unbind(1)
        hint = hint if hint is not None and len(hint) == len(prior) else None
        self.settings = self._fit(hint) if fit or hint is None else hint
        self._condition()

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of f + m at features [n, F]: after the whole budget."""
        with torch.no_grad():
            at, part = torch.as_tensor(features), self._parts(torch.as_tensor(self.settings))
            cross = part["signal"] * self._matern(at, self.x, part["scale"]) + 1.0
            mean = cross @ self.weights
            solved = torch.linalg.solve_triangular(self.factor, cross.T, upper=False)
            variance = (part["signal"] + 1.0 - (solved**2).sum(0)).clamp_min(1e-12)
        return mean.numpy() * self.spread + self.centre, variance.sqrt().numpy() * self.spread

    def believe(self, features: np.ndarray) -> None:
        """Condition on the model's own mean at features [k, F], those of running trials."""
        mean = torch.as_tensor((self.predict(features)[0] - self.centre) / self.spread)
        more, count = len(features), len(self.y)
        self.x = torch.cat([self.x, torch.as_tensor(features)])
        self.remaining = torch.cat([self.remaining, torch.zeros(more, dtype=torch.float64)])
        self.y = torch.cat([self.y, mean])
        same = torch.eye(count + more, dtype=torch.bool)
        same[:count, :count] = self.same
        self.same = same
        self._condition()

    def _condition(self) -> None:
        with torch.no_grad():
            self.factor = torch.linalg.cholesky(self._covariance(torch.as_tensor(self.settings)))
            self.weights = torch.cholesky_solve(self.y[:, None], self.factor)[:, 0]

    def _fit(self, hint: np.ndarray | None) -> np.ndarray:
        """Maximum a posteriori, from the hint or else from the prior's mode."""

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            theta = torch.tensor(values, requires_grad=True)
            cost = (((theta - self.mode) / self.sd) ** 2).sum() / 2
            try:
                factor = torch.linalg.cholesky(self._covariance(theta))
            except torch.linalg.LinAlgError:
                return 1e10, np.zeros_like(values)
            solved = torch.linalg.solve_triangular(factor, self.y[:, None], upper=False)
            cost = cost + (solved**2).sum() / 2 + factor.diagonal().log().sum()
            cost.backward()
            return cost.item(), theta.grad.numpy()

        mode = self.mode.numpy()
        bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(mode, self.sd.numpy(), strict=True)]
        start = mode if hint is None else hint
        options = {"maxiter": 50}
        return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x

    def _parts(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        count = len(theta) - len(START)
        parts = dict(zip(START, theta[count:].exp(), strict=True))
        return parts | {"scale": theta[:count].exp()[self.groups]}

    def _covariance(self, theta: torch.Tensor) -> torch.Tensor:
        part = self._parts(theta)
        near = self._matern(self.x, self.x, part["scale"])
        # 0 ** kappa has no gradient with respect to kappa that is a number.
        late = torch.where(self.remaining > 0, self.remaining.clamp_min(1e-9) ** part["kappa"], 0.0)
        eye = torch.eye(len(self.y), dtype=torch.float64)
        return (
            part["signal"] * near
            + 1.0  # m, whose prior has the spread of the data
            + late[:, None] * late[None] * (part["slow"] * near + part["bias"])
            + part["trial"] * self.same
            + (part["noise"] + JITTER) * eye
        )

    @staticmethod
    def _matern(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Matern 5/2 with a lengthscale a feature, [n, m]."""
        # Few rows at a time: the differences of all features of all pairs are a hundred megabytes,
        # and to fetch them from the kernel took ten times as long as the sums. A fit needs them all
        # for its gradient.
        few = [a] if torch.is_grad_enabled() else a.split(max(1, DIFFERENCES // b.numel()))
        square = torch.cat([(((rows[:, None] - b[None]) / scale) ** 2).sum(-1) for rows in few])
        distance = (5 * square + 1e-12).sqrt()
        return (1 + distance + distance**2 / 3) * (-distance).exp()
