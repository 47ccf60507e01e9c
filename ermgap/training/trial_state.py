"""A trial in training: its adapter, objective, optimiser, early stop, rows and files."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ermgap import metrics
from ermgap.config import GENDERS, METRICS, Config
from ermgap.distributed import World
from ermgap.errors import RunFailed
from ermgap.model import prompts
from ermgap.model.lora import Adapter
from ermgap.objective import Objective, cell_names, group_means
from ermgap.records import Storage
from ermgap.training import checkpoint, model_card
from ermgap.training.context import TrainingContext
from ermgap.training.evaluation import predictions


@dataclass(frozen=True)
class TrialSpec:
    """A trial to train; `epoch` is the last committed one (0: from the start)."""

    trial_id: str
    config: Config
    attempt: int = 1
    epoch: int = 0
    hyperparameters: dict = field(default_factory=dict)  # the searched values, for the rows


class TrialState:
    """What training changes of a trial, and the rows and files that tell of it."""

    def __init__(
        self, spec: TrialSpec, adapter: Adapter, *, context: TrainingContext, world: World
    ) -> None:
        self.spec, self.adapter, self.context, self.world = spec, adapter, context, world
        self.config = spec.config
        self.objective = Objective(
            spec.config.objective, cells=context.cells, counts=context.train.group_counts()
        )
        self.parameters = list(adapter.parameters.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=spec.config.train.lr,
            weight_decay=spec.config.train.weight_decay,
            fused=True,
        )
        self.epoch = self.step = self.stale = 0
        self.begun_at = 0  # the step at which the epoch began
        self.selected: dict = {}

    # Epochs -------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the budget is spent or dev has not improved for `patience` evaluations."""
        settings = self.config.train
        return self.epoch >= settings.epochs or (
            settings.select != "last" and self.stale >= settings.patience
        )

    def begin_epoch(self) -> None:
        """Count the epoch, and set the random numbers that it draws."""
        self.epoch += 1
        self.begun_at = self.step
        self.adapter.generator.manual_seed(
            _seed(self.config.train.seed, self.epoch, self.world.rank)
        )

    def optimizer_step(self, rate: float) -> torch.Tensor:
        """Clip the gradients, step, and forget them; returns their norm before."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.train.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return norm

    def end_epoch(
        self,
        sums: torch.Tensor,
        values: np.ndarray,
        scores: np.ndarray,
        *,
        steps: int,
        raised: float,
    ) -> dict:
        """Judge the epoch, write its files, and return the row that commits them.

        Of the fairness weight the row has that of the epoch's first step (`lambda`), the mean over
        its steps (`lambda_mean`, as `objective` is a mean) and that of the step to come
        (`lambda_next`).

        Args:
            sums: group sums of the epoch, [3, C, 2] float64. values: the objective of each step.
            scores: log probabilities on dev, [N, labels].
            steps: of the full budget.
            raised: share of the epoch's utterances with a negative weight (`raised_share`): the
                step that held them raised their losses.

        Raises:
            RunFailed: on every rank alike, since all hold the same numbers.
        """
        self._require_finite(np.isfinite(values).all(), "the objective")
        self._require_finite(np.isfinite(scores).all(), "a dev score")
        data = self.config.data
        table = predictions(self.context.dev, scores, labels=data.labels)
        dev = metrics.evaluate(table, labels=data.labels, **data.support)
        self._require_gap(dev)
        weights = [
            self.objective.fairness_weight(at / steps) for at in range(self.begun_at, self.step)
        ]
        self.objective.evaluated(dev)  # from here on the schedule is that of the next epoch
        better = self._select(dev)
        if self.world.rank == 0:
            self._write(table, dev, raised=raised, selected=better)
        return {
            "trial_id": self.spec.trial_id,
            "attempt": self.spec.attempt,
            "epoch": self.epoch,
            "last": self.over,
            "config": self.spec.hyperparameters,
            "lambda": weights[0],
            "lambda_mean": float(np.mean(weights)),
            "lambda_next": self.objective.fairness_weight(self.step / steps),
            "raised_share": raised,
            "objective": float(values.mean()),
            "train_loss": float(sums[0].sum() / sums[2].sum()),
            "losses": self._group_losses(sums),
            "dev": dev,
            "selected": self.selected,
            "peak_memory_mb": peak_memory_mb(self.world.device),
        }

    def _select(self, dev: dict) -> bool:
        """Keep this epoch if it is the best so far by `train.select`; returns whether it is."""
        rule = self.config.train.select
        if rule != "last" and self.selected and not dev[rule] > self.selected[rule]:
            self.stale += 1
            return False
        self.stale = 0
        self.selected = {"epoch": self.epoch} | {name: dev[name] for name in METRICS}
        return True

    def _group_losses(self, sums: torch.Tensor) -> dict[str, float]:
        """Mean training loss of the epoch per `language/modality/gender`."""
        means = group_means(sums).tolist()
        names = cell_names(self.context.cells)
        return {
            f"{cell}/{gender}": means[c][g]
            for c, cell in enumerate(names)
            for g, gender in enumerate(GENDERS)
        }

    def _require_finite(self, finite: bool, what: str) -> None:
        if not finite:
            raise RunFailed(
                f"{what} is not finite in epoch {self.epoch}; a smaller learning rate may help"
            )

    def _require_gap(self, dev: dict) -> None:
        """RunFailed where no cell of dev counts for max_gap."""
        if not math.isnan(dev["max_gap"]):
            return
        cells = [gap for gap in dev["gaps"].values() if "counts" in gap]  # not the pooled ones
        both = any(min(gap["n_female"], gap["n_male"]) for gap in cells)
        if not both:
            raise RunFailed(
                "the gap is undefined: on dev no language has utterances of both genders"
            )
        support = self.config.data.support
        least, few = (
            metrics.minimum_per_side(**support),
            metrics.uncounted_cells(dev["gaps"], **support),
        )
        raise RunFailed(
            f"the gap is undefined: on dev no cell has {least} utterances of each gender "
            f"(data.cell_support): {'; '.join(f'{cell} {why}' for cell, why in few.items())}"
        )

    # Files --------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on from the committed epoch; RunFailed if its checkpoint does not serve."""
        if self.spec.epoch:
            storage, trial = self.context.storage, self.spec.trial_id
            self.load_state_dict(checkpoint.load(storage, trial, self.spec.epoch))

    def _write(self, table: pd.DataFrame, dev: dict, *, raised: float, selected: bool) -> None:
        """Files of this epoch, before its row: predictions, adapter if selected, checkpoint."""
        storage, trial = self.context.storage, self.spec.trial_id
        if selected:
            _write_table(storage, f"predictions/{trial}.parquet", table)
            storage.write_folder(f"adapters/{trial}", lambda f: self._write_adapter(f, dev, raised))
        if self.config.train.keep_epochs or self.epoch in self.config.rungs:
            name = f"predictions/{trial}.rungs.parquet"
            now, path = table.assign(epoch=self.epoch), storage.fetch(name)
            if path.exists():  # rows of an attempt that got further are not of this one
                before = pd.read_parquet(path)
                now = pd.concat([before[before["epoch"] < self.epoch], now])
            _write_table(storage, name, now)
        checkpoint.save(storage, trial, self.epoch, self.state_dict())

    def _write_adapter(self, folder: Path, dev: dict, raised: float) -> None:
        """The adapter and its model card."""
        backbone, context = self.config.backbone, self.context
        self.adapter.save(
            folder,
            base=model_card.base_name(backbone, context.base),
            revision=model_card.base_revision(backbone, context.base),
        )
        facts = model_card.CardFacts(
            trial_id=self.spec.trial_id,
            config=self.config,
            utterances=pd.concat([context.train.table, context.dev.table]).drop_duplicates(
                "utterance_id"  # once, in however many modalities
            ),
            dev=dev,
            raised_share=raised,
            epoch=self.epoch,
            base=context.base,
            prompt=prompts.find(backbone.prompt),
        )
        model_card.write(folder, facts=facts)

    def state_dict(self) -> dict:
        """Tensors and plain values; the same on every rank."""
        named = self.adapter.parameters
        return {
            "parameters": {name: p.detach().cpu() for name, p in named.items()},
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "stale": self.stale,
            "selected": self.selected,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint; RunFailed if it belongs to another trial."""
        named = self.adapter.parameters
        wanted = {name: tuple(p.shape) for name, p in named.items()}
        if {name: tuple(p.shape) for name, p in state["parameters"].items()} != wanted:
            raise RunFailed("the checkpoint holds other parameters than this trial trains")
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        self.epoch, self.step, self.stale = state["epoch"], state["step"], state["stale"]
        self.selected = state["selected"]


def _write_table(storage: Storage, name: str, table: pd.DataFrame) -> None:
    storage.write(name, lambda temporary: table.to_parquet(temporary, index=False))


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of the GPU if there is one, else of this process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
