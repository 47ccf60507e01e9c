"""The configuration: a preset and `--set` go in, checked frozen dataclasses come out.

    config = load(Path("sweeps/presets/demo.yaml"), ["train.epochs=3"])

`schema` has the sections with their defaults, `presets` reads them, `safe_yaml` is the only reader
of YAML, and `user_paths` makes every path that a user writes absolute.
"""

from ermgap.config import losses, old_forms
from ermgap.config.metrics_table import CHANCE_GAP, GAP_TITLES, METRICS, Metric
from ermgap.config.parsing import differing_keys, tuples_to_lists
from ermgap.config.presets import Config, apply_settings, from_dict, load
from ermgap.config.safe_yaml import one_line, quoted
from ermgap.config.schema import Adapter, Backbone, Data, Objective, Sweep, Train
from ermgap.config.user_paths import absolute_corpus, absolute_path, make_absolute
from ermgap.config.vocabulary import (
    GENDER,
    GENDERS,
    MELD_LABELS,
    MODALITIES,
    NO_ATTRIBUTES,
    NOT_STATED,
    PROVENANCES,
    SPEECH,
    SPEECH_AND_TEXT,
)
