"""How each score is shown: one table for pictures, tables and the page."""

from __future__ import annotations

import math

AXES = {  # objective: words on the axis, factor from the file's unit, smallest span, largest value
    "acc": ("Accuracy (%)", 100.0, 6.0, 100.0),
    "w_f1": ("Weighted F1 (%)", 100.0, 6.0, 100.0),
    "worst_group_w_f1": ("Weighted F1 of the worst group (%)", 100.0, 6.0, 100.0),
    "max_gap": ("Largest gap between genders (percentage points)", 100.0, 6.0, 100.0),
    "max_loss_gap": ("Largest loss gap between genders (nats)", 1.0, 0.1, math.inf),
}
BETTER = {"max": "higher is better", "min": "lower is better"}
