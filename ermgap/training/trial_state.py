"""A trial in training: its adapter, objective, optimiser, early stop, rows and files."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ermgap import attributes, metrics
from ermgap.config import METRICS
from ermgap.distributed import World
from ermgap.errors import RunFailed
from ermgap.model.lora import Adapter
from ermgap.objective import Objective, cell_names, group_means
from ermgap.training import checkpoint
from ermgap.training.context import TrainingContext
from ermgap.training.evaluation import predictions
from ermgap.training.trial_files import TrialFiles, TrialSpec


@dataclass(frozen=True)
class Branch:
    """What a trial that begins as a branch takes over.

    Attributes:
        trunk: id of the trial that it continues.
        parameters: of the trunk after the branching epoch, by name.
        selected: parameters of the trunk's selected epoch, that one or an earlier one.
    """

    trunk: str
    parameters: dict[str, torch.Tensor]
    selected: dict[str, torch.Tensor]


class TrialState:
    """What training changes of a trial, and the rows and files that tell of it."""

    def __init__(
        self, spec: TrialSpec, adapter: Adapter, *, context: TrainingContext, world: World
    ) -> None:
        self.spec, self.adapter, self.context, self.world = spec, adapter, context, world
        self.config = spec.config
        self.objective = Objective(
            spec.config.objective,
            cells=context.cells,
            counts=context.train.group_counts(),
            unknown=context.train.any_unknown,
        )
        self.files = TrialFiles(spec, adapter, context)
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
            sums: group sums of the epoch, [3, C, columns] float64.
            values: the objective of each step.
            scores: log probabilities on dev, [N, labels].
            steps: of the full budget.
            raised: share of the epoch's utterances with a negative weight (`raised_share`): the
                step that held them raised their losses.

        Raises:
            RunFailed: on every rank alike, since all hold the same numbers.
        """
        self._require_finite(np.isfinite(values).all(), "the objective")
        self._require_finite(np.isfinite(scores).all(), "a dev score")
        table, dev = self._judge(scores)
        self._require_gap(dev)
        weights = [
            self.objective.fairness_weight(at / steps) for at in range(self.begun_at, self.step)
        ]
        self.objective.evaluated(dev)  # from here on the schedule is that of the next epoch
        better = self._select(dev)
        if self.world.rank == 0:
            if better:
                self.files.write_selected(table, dev, epoch=self.epoch, raised=raised)
            if self.config.train.keep_epochs or self.epoch in self.config.rungs:
                self.files.write_rung(table, self.epoch)
            self.files.write_checkpoint(self.epoch, self.state_dict())
        return {
            "trial_id": self.spec.trial_id,
            "attempt": self.spec.attempt,
            "epoch": self.epoch,
            "last": self.over,
            "branch_from": self.spec.branch_from,
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
        """Mean training loss of the epoch per `language/modality/side`."""
        means = group_means(sums).tolist()
        names = cell_names(self.context.cells)
        return {
            f"{cell}/{side}": means[c][s]
            for c, cell in enumerate(names)
            for s, side in enumerate(self.context.train.sides)
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
        title = attributes.title(self.config.objective.attribute)
        cells = [gap for gap in dev["gaps"].values() if "counts" in gap]  # not the pooled ones
        if not any(sum(n > 0 for n in metrics.side_counts(gap).values()) > 1 for gap in cells):
            raise RunFailed(
                f"the gap is undefined: on dev no cell has utterances of two sides of {title}"
            )
        data, few = self.config.data, metrics.uncounted_cells(dev["gaps"])
        least = metrics.minimum_per_side(
            min_support=data.min_support, cell_support=data.cell_support
        )
        speakers = f" of {data.speaker_support} speakers" * (data.speaker_support > 1)
        raise RunFailed(
            f"the gap is undefined: on dev no cell has two sides of {title} with {least} utterances"
            f"{speakers} each (data.cell_support, data.speaker_support): "
            f"{'; '.join(f'{cell} {why}' for cell, why in few.items())}"
        )

    # Files --------------------------------------------------------------------------------------

    def resume(self) -> Branch | None:
        """Go on from the committed epoch, or from the trunk's.

        Returns:
            For a trial that begins as a branch: what it takes over of its trunk.

        Raises:
            RunFailed: a checkpoint does not serve.
        """
        storage, spec = self.context.storage, self.spec
        if spec.epoch:
            self.load_state_dict(checkpoint.load(storage, spec.trial_id, spec.epoch))
        elif spec.branch_from:
            trunk = spec.branch_from["trial"]
            state = checkpoint.load(storage, trunk, spec.branch_from["epoch"])
            selected = state["selected"]["epoch"]
            best = checkpoint.load(storage, trunk, selected)
            self.load_state_dict(state)
            return Branch(trunk, state["parameters"], best["parameters"])
        return None

    def take_over(self, branch: Branch, scores: np.ndarray) -> None:
        """Write the trunk's files up to the branching epoch as the branch's own, and go on there.

        Args:
            scores: log probabilities on dev of the parameters of the selected epoch, [N, labels].
        """
        if self.world.rank == 0:
            table, dev = self._judge(scores)
            self.files.write_selected(table, dev, epoch=self.selected["epoch"], raised=0.0)
            self.files.take_over(branch.trunk, self.epoch)
        self.set_parameters(branch.parameters)

    def _judge(self, scores: np.ndarray) -> tuple[pd.DataFrame, dict]:
        """Predictions on dev and their metrics from log probabilities [N, labels]."""
        data = self.config.data
        table = predictions(self.context.dev, scores, labels=data.labels)
        return table, metrics.evaluate(table, labels=data.labels, **self.config.compared)

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
        self.set_parameters(state["parameters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        self.epoch, self.step, self.stale = state["epoch"], state["step"], state["stale"]
        self.selected = state["selected"]

    def set_parameters(self, values: dict[str, torch.Tensor]) -> None:
        """Copy values of the right names and shapes into the adapter."""
        with torch.no_grad():
            for name, parameter in self.adapter.parameters.items():
                parameter.copy_(values[name])


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of the GPU if there is one, else of this process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
