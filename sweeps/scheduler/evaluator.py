"""A process that asks one system after another (evaluation.py), and how a system is asked."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ermgap import baselines as systems
from ermgap import keep_freed_memory
from ermgap.baselines import arguments
from ermgap.config import from_dict
from ermgap.errors import UserError, first_line
from ermgap.registry import load_plugins
from sweeps.scheduler.extractor import Pool

OURS = ("adapter", "dial", "zero-shot")  # systems that share a base model


def ask(
    spec: str,
    utterances: pd.DataFrame,
    *,
    context: systems.Context,
    name: str | None = None,
    note: Callable[[str], None],
) -> pd.DataFrame:
    """Predictions of a system on every utterance in every modality that it knows, in this process.

    Its name, or `name` instead, is the column `system`. Raises UserError as the system does.
    """
    from ermgap.model.batches import in_modalities  # torch: only now
    from ermgap.model.cached_folder import quiet

    system_name, argument = systems.parse(spec)
    modalities = context.config.data.modalities
    with quiet():
        system = systems.SYSTEMS.find(system_name)(argument, context)
    system.name = name or system.name
    known = getattr(system, "modalities", modalities)
    answers = [
        system.predict(rows, modality=modality, note=note)
        for modality in modalities
        if modality in known and len(rows := in_modalities(utterances, [modality]))
    ]
    if not answers:
        raise UserError(f"{spec} answers {', '.join(known)}, none of which is benchmarked.")
    return pd.concat(answers, ignore_index=True).assign(system=system.name)


class Evaluator:
    """An actor that asks one system after another; ours share their base model and features."""

    def __init__(self, *, config: dict, folder: str, features: str | None, pool: Pool) -> None:
        self.given, self.folder, self.features = config, Path(folder), features
        self.pool, self.context, self.notes = pool, None, []

    def noted(self) -> list[str]:
        """All notes so far."""
        return list(self.notes)

    def evaluate(
        self, spec: str, utterances: pd.DataFrame, name: str | None, files: dict | None
    ) -> dict:
        """`table` of predictions, or the message of a user's `mistake` (else ""), and all `notes`.

        `files` are those of adapters, by folder and name, where the folders are another machine's.
        """
        table, mistake = None, ""
        try:
            table = self._ask(spec, utterances, name, files)
        except UserError as problem:
            mistake = str(problem)
        except Exception as problem:
            logging.getLogger(__name__).exception("%s", spec)
            mistake = (
                f"{name or spec} cannot be evaluated on {os.uname().nodename} "
                f"({type(problem).__name__}: {first_line(problem).rstrip('.')}); look into Ray's "
                "logs there, then continue with --resume."
            )
        return {"table": table, "mistake": mistake, "notes": self.noted()}

    def _ask(
        self, spec: str, utterances: pd.DataFrame, name: str | None, files: dict | None
    ) -> pd.DataFrame:
        import torch

        torch.set_num_threads(self.pool.cpus)
        if self.context is None:
            self._prepare()
        if systems.parse(spec)[0] not in OURS:
            self.context.backbone_cache.clear()  # its model needs the memory
        options = {"context": self.context, "name": name, "note": self.notes.append}
        if files is None:
            return ask(spec, utterances, **options)
        with tempfile.TemporaryDirectory(prefix="ermgap-") as scratch:
            places = {
                folder: _write(Path(scratch) / str(number) / Path(folder).name, contents)
                for number, (folder, contents) in enumerate(files.items())
            }
            head, folders = arguments.places_of(spec)
            try:
                return ask(
                    head + ":".join(places[folder] for folder in folders), utterances, **options
                )
            except UserError as problem:  # it names the folders that the user knows
                message = str(problem)
                for folder, place in places.items():
                    message = message.replace(place, folder)
                raise UserError(message) from problem

    def _prepare(self) -> None:
        from ermgap.baselines.ours import BackboneCache  # torch: only now

        keep_freed_memory()
        config = from_dict(self.given)
        load_plugins(config.plugins)
        backbone_cache = BackboneCache(Path(self.features) if self.features else None)
        device = "cuda" if self.pool.gpu else "cpu"
        labels = config.data.labels
        self.context = systems.Context(labels, config, device, self.folder, backbone_cache)


def _write(folder: Path, contents: dict[str, bytes]) -> str:
    """Write files into a new folder; its path."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return str(folder)
