"""The metrics of a sweep: which way is better, title, unit and how each is shown.

Files hold fractions (losses: nats); `scale` leads to the unit that is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Metric:
    """One metric of a set of predictions, which `sweep.objectives` may name.

    Attributes:
        direction: max or min, which is better.
        short: its name within a sentence.
        unit, axis_unit: of the value shown, in a table and on an axis.
        scale: from the file's unit to the one shown.
        least_span, top: smallest span of an axis and largest possible value, in the unit shown.
        fairness: whether it compares groups.
        is_difference: whether it is the largest difference between two sides of an attribute.
    """

    direction: str
    title: str
    short: str
    unit: str = "%"
    axis_unit: str = "%"
    scale: float = 100.0
    digits: int = 1
    least_span: float = 6.0
    top: float = 100.0
    fairness: bool = False
    is_difference: bool = False

    def titled(self, attribute: str) -> Metric:
        """The same with the attribute's name (`gender & accent`) in the title of a difference."""
        return replace(self, title=f"{self.title} by {attribute}") if self.is_difference else self

    @property
    def better(self) -> str:
        """Which way is better, in words."""
        return {"max": "higher is better", "min": "lower is better"}[self.direction]

    @property
    def label(self) -> str:
        """Title and unit, as on a small axis."""
        return f"{self.title} ({self.axis_unit})"

    @property
    def axis_title(self) -> str:
        """Title, unit and which way is better, as on an axis."""
        return f"{self.title} ({self.axis_unit}; {self.better})"

    def text(self, value: float) -> str:
        """A value of a file as it is shown, without its unit."""
        return f"{value * self.scale:.{self.digits}f}"


METRICS = {  # in the order in which rows and tables list them
    "acc": Metric("max", "Accuracy", "accuracy"),
    "w_f1": Metric("max", "Weighted F1", "weighted F1"),
    "max_gap": Metric(
        "min", "Largest gap", "gap",
        unit="points", axis_unit="percentage points", fairness=True, is_difference=True,
    ),
    "worst_group_w_f1": Metric(
        "max", "Weighted F1 of the worst group", "worst-group W-F1", fairness=True
    ),
    "max_loss_gap": Metric(
        "min", "Largest loss gap", "loss gap", unit="nats", axis_unit="nats",
        scale=1.0, digits=3, least_span=0.1, top=math.inf, fairness=True, is_difference=True,
    ),
}  # fmt: skip
# Of one cell: the four gaps between the sides, and the mean of those defined.
GAP_TITLES = {"tpr": "TPR", "fpr": "FPR", "w_f1": "W-F1", "acc": "ACC", "avg": "AVG"}
# What a report says beside a largest gap.
CHANCE_GAP = (
    "a perfectly fair model is expected to show a largest W-F1 gap of 4.3 points over three "
    "languages with 500 utterances of each of two sides per language (6.1 with 250, 3.0 with 1,000)"
)
