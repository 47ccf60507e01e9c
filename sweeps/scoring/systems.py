"""The rows that a benchmark is asked for: systems that it trains, and systems that it asks.

`systems.yaml` names what is trained: hyperparameters over the preset's configuration. Everything
else is a name of `ermgap.baselines.SYSTEMS`, with an argument where it needs one.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from ermgap import baselines as systems
from ermgap.baselines import arguments
from ermgap.errors import UserError
from ermgap.model.backbones import BACKBONES

FILE = Path(__file__).parents[1] / "systems.yaml"
DEFAULT = ("zero-shot", "erm", "minmaxgap-adaptive", "minmaxgap-rising")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        spec: as the user wrote it, a path in it made absolute.
        words: its name in the table; None: the system says it itself.
        point: hyperparameters to train with; None for a system that is only asked.
    """

    spec: str
    words: str | None = None
    point: dict | None = None

    @property
    def trained(self) -> bool:
        """Whether it is trained here."""
        return self.point is not None


def rows_of(specs: Sequence[str]) -> list[Row]:
    """The rows of `--models`; `all` stands for every trained system.

    Raises:
        UserError: a name is neither trained nor asked, or stands there twice.
    """
    known = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    wanted = [name for spec in specs for name in (known if spec == "all" else [spec])]
    for spec in wanted:
        if wanted.count(spec) > 1:
            raise UserError(f"the system {spec!r} is named twice in --models; name it once.")
    return [_row(spec, known) for spec in wanted]


def _row(spec: str, known: dict) -> Row:
    if spec in known:
        return Row(spec, known[spec]["words"], dict(known[spec]["point"]))
    word = spec.partition("=")[0].strip()
    if word in known:
        raise UserError(f"--models {spec}: what is trained here takes no argument; write {word}.")
    if word not in systems.SYSTEMS:
        names = [*known, *systems.SYSTEMS]
        near = difflib.get_close_matches(word, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}."
        raise UserError(f"--models {spec}: there is no system of this name; {hint}")
    return Row(arguments.absolute(spec))


def require_asked(spec: str, context: systems.Context, utterances: pd.DataFrame) -> str:
    """Refuse a system that cannot be asked, as far as that shows without loading a model.

    Returns a sentence on what asking it about the utterances will cost, "" if only time. Raises
    UserError for an endpoint without its key, an adapter that does not fit, and the like.
    """
    word, argument = systems.parse(spec)
    if word == "openai":
        endpoint = systems.SYSTEMS.find(word)(argument, context)
        return endpoint.estimate(utterances, context.config.data.modalities)
    if word == "zero-shot" and argument:
        BACKBONES.find(argument)
    elif word == "adapter":
        arguments.adapter_settings(argument, context)
    elif word in ("generated", "voxtral") and argument:
        arguments.place(argument)
    return ""
