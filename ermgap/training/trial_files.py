"""A trial to train, and the files that it leaves: predictions, adapter, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ermgap.config import Config
from ermgap.model import prompts
from ermgap.model.lora import Adapter
from ermgap.training import checkpoint, model_card
from ermgap.training.context import TrainingContext


@dataclass(frozen=True)
class TrialSpec:
    """A trial to train.

    Attributes:
        epoch: the last committed one; 0: from the start, or as a branch.
        hyperparameters: the searched values, for the rows.
        branch_from: the `trial` (its id) and the `epoch` that the trial begins with; None for one
            that trains all its epochs.
        keep: the last epoch whose checkpoint others may branch from.
    """

    trial_id: str
    config: Config
    attempt: int = 1
    epoch: int = 0
    hyperparameters: dict = field(default_factory=dict)
    branch_from: dict | None = None
    keep: int = 0


class TrialFiles:
    """Writes the files of a trial's epochs, on rank 0 and before the row that commits them."""

    def __init__(self, spec: TrialSpec, adapter: Adapter, context: TrainingContext) -> None:
        self.spec, self.adapter, self.context = spec, adapter, context

    def write_selected(self, table: pd.DataFrame, dev: dict, *, epoch: int, raised: float) -> None:
        """Predictions and adapter of the best epoch so far; its `dev` scores go on the card."""
        self._write_table(f"predictions/{self.spec.trial_id}.parquet", table)
        self.context.storage.write_folder(
            f"adapters/{self.spec.trial_id}",
            lambda folder: self._write_adapter(folder, dev=dev, epoch=epoch, raised=raised),
        )

    def write_rung(self, table: pd.DataFrame, epoch: int) -> None:
        """Predictions of an epoch beside those of the epochs before it."""
        before = self._rungs(self.spec.trial_id, epoch - 1)  # an attempt may have got further
        self._write_rungs([*before, table.assign(epoch=epoch)])

    def take_over(self, trunk: str, epoch: int) -> None:
        """The trunk's predictions at rungs up to the branching epoch, as this trial's own."""
        if before := self._rungs(trunk, epoch):
            self._write_rungs(before)

    def write_checkpoint(self, epoch: int, state: dict) -> None:
        """What the trial goes on from after this epoch."""
        checkpoint.save(self.context.storage, self.spec.trial_id, epoch, state, keep=self.spec.keep)

    def _rungs(self, trial_id: str, epoch: int) -> list[pd.DataFrame]:
        """The predictions that a trial kept at rungs up to an epoch: none or one table."""
        path = self.context.storage.fetch(f"predictions/{trial_id}.rungs.parquet")
        return [pd.read_parquet(path).query("epoch <= @epoch")] if path.exists() else []

    def _write_rungs(self, tables: list[pd.DataFrame]) -> None:
        self._write_table(f"predictions/{self.spec.trial_id}.rungs.parquet", pd.concat(tables))

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        self.context.storage.write(name, lambda path: table.to_parquet(path, index=False))

    def _write_adapter(self, folder: Path, *, dev: dict, epoch: int, raised: float) -> None:
        """The adapter and its model card."""
        config, context = self.spec.config, self.context
        facts = model_card.CardFacts(
            trial_id=self.spec.trial_id,
            config=config,
            utterances=pd.concat([context.train.table, context.dev.table]).drop_duplicates(
                "utterance_id"  # once, in however many modalities
            ),
            dev=dev,
            raised_share=raised,
            epoch=epoch,
            base=context.base,
            prompt=prompts.find(config.backbone.prompt),
        )
        model_card.save(folder, self.adapter, facts=facts)
