"""Schedules of the fairness weight lambda: a class and a registry line each.

With progress = step / steps of the full budget and u = clip((progress - start) / ramp, 0, 1):

    constant    lambda_max
    linear      lambda_max * u
    cosine      lambda_max * (1 - cos(pi u)) / 2
    exponential lambda_max * (e^(5 u) - 1) / (e^5 - 1)
    step        lambda_max from `start` on, 0 before
    adaptive    lambda <- clip(lambda + eta * (G_dev - epsilon), 0, lambda_max) after an evaluation,
                from lambda_0 (projected Lagrange-multiplier ascent, arXiv 2603.21050)

G_dev is the largest gap between sides on dev (`gap: max_gap`, a fraction) or the largest
difference of their mean losses (`gap: loss`, nats). An undefined G_dev does not change lambda.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from ermgap import config
from ermgap.registry import Registry


class Schedule(ABC):
    """Base class: a schedule made from the `objective` section of the configuration."""

    def __init__(self, settings: config.Objective) -> None:
        self.settings = settings

    @abstractmethod
    def value(self, progress: float) -> float:
        """The fairness weight after this share (0 to 1) of the full budget's steps."""

    def evaluated(self, gap: float) -> None:
        """Called after every evaluation with the dev gap (NaN where undefined)."""

    def state_dict(self) -> dict:
        """What a resumed run needs; plain numbers only."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""


class Constant(Schedule):
    """lambda_max throughout."""

    def value(self, progress: float) -> float:
        return self.settings.lambda_max


class Rising(Schedule):
    """0 until `start`, then rising to lambda_max over `ramp`, in the shape of `shape`."""

    def value(self, progress: float) -> float:
        u = (progress - self.settings.start) / self.settings.ramp
        return self.settings.lambda_max * self.shape(min(max(u, 0.0), 1.0))

    @abstractmethod
    def shape(self, u: float) -> float:
        """Share of lambda_max at this share u of the ramp: 0 at 0, 1 at 1."""


class Linear(Rising):
    """Proportional to u."""

    def shape(self, u: float) -> float:
        return u


class Cosine(Rising):
    """Half a cosine period: flat at both ends."""

    def shape(self, u: float) -> float:
        return (1 - math.cos(math.pi * u)) / 2


class Exponential(Rising):
    """Rising late: a thirteenth of lambda_max at half of the ramp."""

    def shape(self, u: float) -> float:
        return math.expm1(5 * u) / math.expm1(5)


class Step(Schedule):
    """0 before `start`, lambda_max from then on."""

    def value(self, progress: float) -> float:
        return self.settings.lambda_max if progress >= self.settings.start else 0.0


class Adaptive(Schedule):
    """The paper's multiplier: grows while the dev gap exceeds epsilon, shrinks below it."""

    def __init__(self, settings: config.Objective) -> None:
        super().__init__(settings)
        self.fairness_weight = settings.lambda_0
        self.evaluations = 0

    def value(self, progress: float) -> float:
        return self.fairness_weight

    def evaluated(self, gap: float) -> None:
        self.evaluations += 1
        if self.evaluations % self.settings.every or math.isnan(gap):
            return
        step = self.settings.eta * (gap - self.settings.epsilon)
        self.fairness_weight = min(max(self.fairness_weight + step, 0.0), self.settings.lambda_max)

    def state_dict(self) -> dict:
        return {"now": self.fairness_weight, "evaluations": self.evaluations}

    def load_state_dict(self, state: dict) -> None:
        self.fairness_weight, self.evaluations = float(state["now"]), int(state["evaluations"])


SCHEDULES = Registry("schedule")
SCHEDULES["constant"] = Constant
SCHEDULES["linear"] = Linear
SCHEDULES["cosine"] = Cosine
SCHEDULES["exponential"] = Exponential
SCHEDULES["step"] = Step
SCHEDULES["adaptive"] = Adaptive
