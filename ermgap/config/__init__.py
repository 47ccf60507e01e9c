"""What is asked for: a preset and `--set` go in, frozen dataclasses without a mistake come out.

    config = load(Path("sweeps/presets/demo.yaml"), ["train.epochs=3"])

`schema` has the sections with their defaults, `presets` reads them, `safe_yaml` is the only reader
of YAML, and `user_paths` makes every path that a user writes absolute.
"""

from ermgap.config import old_forms
from ermgap.config.parsing import differences, untuple
from ermgap.config.presets import Config, assign, companions, from_dict, load
from ermgap.config.safe_yaml import one_line, shown
from ermgap.config.schema import (
    MELD_LABELS,
    MODALITIES,
    OBJECTIVES,
    Adapter,
    Backbone,
    Data,
    Objective,
    Sweep,
    Train,
)
from ermgap.config.user_paths import corpus_in, make_absolute, path_in

__all__ = [
    "Adapter",
    "Backbone",
    "Config",
    "Data",
    "MELD_LABELS",
    "MODALITIES",
    "OBJECTIVES",
    "Objective",
    "Sweep",
    "Train",
    "assign",
    "companions",
    "corpus_in",
    "differences",
    "from_dict",
    "load",
    "make_absolute",
    "old_forms",
    "one_line",
    "path_in",
    "shown",
    "untuple",
]
