"""Systems that answer utterances with an emotion: the rows of the benchmark's table.

    name, argument = baselines.parse("openai=gpt-4o-mini-audio-preview@https://host/v1")
    system = baselines.SYSTEMS.find(name)(argument, baselines.Context(labels=labels, ...))
    table = system.predict(utterances, modality="speech", note=print)

A system is a class with `predict` and one line in `SYSTEMS`, here or in a plugin. It is made and
run on a worker, unless it says `on_driver`. A module is imported when its system is first made, so
that naming one costs neither torch nor weights.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ermgap.corpora.predictions import check_modality, predictions_table
from ermgap.errors import UserError, missing_extra
from ermgap.registry import Registry


def silent(text: str) -> None:
    """The `note` of a caller who wants to read none."""


@dataclass(frozen=True)
class Context:
    """What a system is made for.

    Attributes:
        labels: the class names that an answer may be.
        config: the run's `ermgap.config.Config`, or None for a system that needs none.
        device: where a model of ours runs, such as "cpu" or "cuda:0".
        folder: where a system may keep its answers (`folder / "answers"`).
        backbone_cache: `ermgap.baselines.ours.BackboneCache`, shared by systems, or None.
    """

    labels: tuple[str, ...]
    config: Any
    device: str
    folder: Path
    backbone_cache: Any = None


class System(ABC):
    """Answers utterances; `name` is its row in the table."""

    name: str

    @abstractmethod
    def predict(
        self,
        utterances: pd.DataFrame,
        *,
        modality: str,
        note: Callable[[str], None] = silent,
    ) -> pd.DataFrame:
        """The predictions of these utterances, in their order (`predictions_table`).

        Args:
            utterances: rows of `ermgap.corpora.table`.
            modality: one of MODALITIES; "speech+text" gives the transcript too.
            note: called with a sentence on the progress, or on what a user may want to know.

        Raises UserError when the system cannot answer, with what to do about it.
        """

    def estimate(self, utterances: pd.DataFrame, modalities: Sequence[str]) -> str:
        """A sentence on what the answers will cost, "" where they cost nothing but time."""
        return ""


def on_driver(spec: str) -> bool:
    """Whether a system runs in the process that a user started, and not on a worker.

    It does where its factory has a true attribute `on_driver`: endpoints need the network and a key
    of this machine's environment, and no model. Raises UserError as `parse`.
    """
    name, _ = parse(spec)
    return getattr(SYSTEMS.find(name), "on_driver", False)


def _lazy(
    module: str, factory: str, *, on_driver: bool = False, extra: str | None = None
) -> Callable[[str | None, Context], System]:
    """A system's factory, whose module is imported at the first call.

    `extra` installs the packages that the module needs beside our own dependencies.
    """

    def make(argument: str | None, context: Context) -> System:
        try:
            imported = importlib.import_module(f"ermgap.baselines.{module}")
        except ModuleNotFoundError as problem:
            if extra is None:
                raise
            raise missing_extra(extra, problem) from problem
        return getattr(imported, factory)(argument, context)

    make.on_driver = on_driver
    return make


SYSTEMS = Registry("system")
SYSTEMS["zero-shot"] = _lazy("ours", "make_zero_shot")
SYSTEMS["adapter"] = _lazy("ours", "make_adapter")
SYSTEMS["dial"] = _lazy("ours", "make_dial")
SYSTEMS["generated"] = _lazy("generated", "GeneratingQwen2Audio")
SYSTEMS["voxtral"] = _lazy("voxtral", "Voxtral")
SYSTEMS["openai"] = _lazy("endpoint.endpoint", "Endpoint", on_driver=True, extra="endpoint")


def parse(spec: str) -> tuple[str, str | None]:
    """`NAME` or `NAME=ARGUMENT` as (name, argument or None).

    Raises UserError for a name that SYSTEMS lacks and for an empty argument.
    """
    name, equals, argument = (part.strip() for part in str(spec).partition("="))
    SYSTEMS.find(name)
    if equals and not argument:
        raise UserError(f"the system {name!r} has an empty argument; write {name}=ARGUMENT.")
    return name, argument or None
