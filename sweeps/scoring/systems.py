"""The rows of a benchmark: systems that it trains, and systems that it asks.

`systems.yaml` has those that are trained, by hyperparameters over the preset's configuration. Any
other is a name of `ermgap.baselines.SYSTEMS`, with an argument where it needs one.
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
        title: its name in the table; None: the system's answers hold it.
        hyperparameters: to train with; None for a system that is only asked.
    """

    spec: str
    title: str | None = None
    hyperparameters: dict | None = None

    @property
    def trained(self) -> bool:
        """Whether it is trained here."""
        return self.hyperparameters is not None


def rows_of(specs: Sequence[str]) -> list[Row]:
    """The rows of `--models`; `all` stands for every trained system.

    Raises:
        UserError: a name is unknown, or occurs twice.
    """
    known = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    wanted = [name for spec in specs for name in (known if spec == "all" else [spec])]
    for spec in wanted:
        if wanted.count(spec) > 1:
            raise UserError(f"the system {spec!r} is named twice in --models; name it once.")
    return [_row(spec, known) for spec in wanted]


def _row(spec: str, known: dict) -> Row:
    if spec in known:
        return Row(spec, known[spec]["title"], dict(known[spec]["hyperparameters"]))
    name = spec.partition("=")[0].strip()
    if name in known:
        raise UserError(f"--models {spec}: what is trained here takes no argument; write {name}.")
    if name not in systems.SYSTEMS:
        names = [*known, *systems.SYSTEMS]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}."
        raise UserError(f"--models {spec}: there is no system of this name; {hint}")
    return Row(arguments.absolute(spec))


def require_asked(spec: str, context: systems.Context, utterances: pd.DataFrame) -> str:
    """A sentence on what it will cost to ask a system about the utterances, "" if only time.

    Raises UserError for an endpoint without its key, an adapter that does not fit, and whatever
    else shows without loading a model.
    """
    name, argument = systems.parse(spec)
    if name == "openai":
        endpoint = systems.SYSTEMS.find(name)(argument, context)
        return endpoint.estimate(utterances, context.config.data.modalities)
    if name == "zero-shot" and argument:
        BACKBONES.find(argument)
    elif name == "adapter":
        arguments.adapter_config(argument, context)
    elif name == "dial":
        positions, (_, upper) = arguments.dial_line(argument)
        if len(positions) > 1:
            raise UserError(f"--models {spec}: a row of the table is one position; name it alone.")
        arguments.adapter_config(str(upper), context)
    elif name in ("generated", "voxtral") and argument:
        arguments.model_location(argument)
    return ""
