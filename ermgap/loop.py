"""One configuration from its first step to its last row, under plain torch.distributed.

`Run(job, ...)` holds everything that training changes; `train` drives it epoch by epoch: train,
evaluate on dev, write predictions, adapter and checkpoint, then report the row that commits them.
Random numbers are set at each epoch from (seed, epoch, rank): a resumed run is bit-equal to an
uninterrupted one, and a configuration gives the same result in whichever place a worker trains it.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from ermgap import checkpoint, metrics
from ermgap.backbone.qwen2_audio import SpeechLLM
from ermgap.config import Config
from ermgap.distributed import World
from ermgap.errors import RunFailed
from ermgap.evaluation import label_log_probabilities, predictions
from ermgap.material import Material
from ermgap.objective import GENDERS, Objective, cell_names, group_means
from ermgap.records import write_atomically
from ermgap.sampler import epoch_batches, micro_batches, shard
from ermgap.step import accumulate_gradients, learning_rate

SELECTED = ("acc", "w_f1", "max_gap", "worst_group_w_f1", "max_loss_gap")


@dataclass(frozen=True)
class Job:
    """One configuration to train; `epoch` is the last committed one (0: from the start)."""

    trial_id: str
    config: Config
    attempt: int = 1
    epoch: int = 0
    chosen: dict = field(default_factory=dict)  # the searched values, for the rows


def train(
    job: Job,
    *,
    speech: SpeechLLM,
    material: Material,
    world: World,
    report: Callable[[dict], bool],
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Train a configuration to its end.

    Args:
        job: what to train, and from which committed epoch.
        speech: the backbone; its adapter is replaced.
        material: utterances, cells, and where files go.
        world: this process among the workers.
        report: called on rank 0 with each epoch's row, after its files are written; the row's
            `last` says that the run ends here. Returns whether to go on.
        tick: called at every step (a heartbeat).

    Raises:
        RunFailed: on every rank alike, for a loss that is not finite, a gap that is undefined, or a
            checkpoint that cannot be read.
    """
    run = Run(job, speech=speech, material=material, world=world, tick=tick)
    if job.epoch:
        run.load_state_dict(
            checkpoint.load(checkpoint.path_of(material.storage, job.trial_id, job.epoch))
        )
    go_on = not run.over
    while go_on:
        row = run.epoch_and_row()
        go_on = world.from_first(report(row) if world.rank == 0 else None) and not row["last"]


class Run:
    """The state of one configuration in training."""

    def __init__(self, job: Job, *, speech, material: Material, world: World, tick) -> None:
        self.job, self.config = job, job.config
        self.speech, self.material, self.world, self.tick = speech, material, world, tick
        self.objective = Objective(self.config.objective, cells=material.cells)
        speech.reset_adapter(self.config.adapter, seed=self.config.train.seed)
        self.parameters = speech.trainable()
        self.optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self.parameters],
            lr=self.config.train.lr,
            weight_decay=self.config.train.weight_decay,
        )
        self.strata = material.train.cell * len(GENDERS) + material.train.gender
        self.steps_an_epoch = -(-len(material.train) // self.config.train.batch)
        self.steps = self.steps_an_epoch * self.config.train.epochs
        self.epoch = self.step = self.stale = 0
        self.selected: dict = {}

    # Epochs -------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the budget is spent or dev has not improved for `patience` evaluations."""
        settings = self.config.train
        return self.epoch >= settings.epochs or (
            settings.select != "last" and self.stale >= settings.patience
        )

    def epoch_and_row(self) -> dict:
        """Train one epoch, evaluate, write the files, and return the row that commits them."""
        started = time.perf_counter()
        lambda_before = self.objective.lambda_(self.step / self.steps)
        sums, value = self.train_epoch()
        seconds = time.perf_counter() - started
        scores = label_log_probabilities(
            self.speech,
            self.material.dev,
            world=self.world,
            batch=self.config.train.eval_batch,
            tick=self.tick,
        )
        self.require_finite(np.isfinite(scores).all(), "a dev score")
        table = predictions(self.material.dev, scores, labels=self.config.data.labels)
        dev = metrics.evaluate(
            table, labels=self.config.data.labels, min_support=self.config.data.min_support
        )
        if math.isnan(dev["max_gap"]):
            raise RunFailed(
                "the gap is undefined: on dev no language has utterances of both genders"
            )
        self.objective.evaluated(dev)
        better = self.select(dev)
        if self.world.rank == 0:
            self.write(table if better else None)
        return {
            "trial_id": self.job.trial_id,
            "attempt": self.job.attempt,
            "epoch": self.epoch,
            "last": self.over,
            "config": self.job.chosen,
            "lambda": lambda_before,
            "lambda_next": self.objective.lambda_(self.step / self.steps),
            "objective": value,
            "train_loss": float(sums[0].sum() / sums[2].sum()),
            "losses": self.group_losses(sums),
            "dev": dev,
            "selected": self.selected,
            "seconds": time.perf_counter() - started,
            "utterances_per_second": len(self.material.train) / seconds,
            "peak_memory_mb": peak_memory_mb(self.world.device),
            "time": time.time(),
        }

    def train_epoch(self) -> tuple[torch.Tensor, float]:
        """All steps of the next epoch; returns the epoch's group sums and the mean objective."""
        self.epoch += 1
        settings, world = self.config.train, self.world
        torch.manual_seed(_seed(settings.seed, self.epoch, world.rank))
        self.speech.model.train()
        sums, values = 0, []
        for rows in epoch_batches(
            self.strata, batch=settings.batch, seed=settings.seed, epoch=self.epoch
        ):
            step_sums, value = self.train_step(shard(rows, rank=world.rank, world=world.size))
            sums = sums + step_sums
            values.append(value)
            self.tick()
        self.require_finite(bool(torch.isfinite(torch.stack(values)).all()), "the objective")
        return sums, float(torch.stack(values).mean())

    def train_step(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step over this worker's rows of a global batch."""
        settings = self.config.train
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                self.step, self.steps, peak=settings.lr, warmup=settings.warmup
            )
        pieces = micro_batches(
            rows, size=settings.micro_batch, lengths=self.material.train.audio_length
        )
        sums, value = accumulate_gradients(
            self.speech,
            self.objective,
            progress=self.step / self.steps,
            world=self.world,
            over=self.config.objective.loss_over,
            batches=[
                self.material.train.batch(
                    piece,
                    answers=self.config.objective.loss_over == "answer",
                    device=self.world.device,
                    dtype=self.speech.dtype,
                )
                for piece in pieces
            ],
        )
        parameters = [parameter for _, parameter in self.parameters]
        self.world.gradients_add_up(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        # A gradient that is not finite shows in the value that is checked at the epoch's end.
        return sums, value + 0 * norm.to(value.dtype)

    def select(self, dev: dict) -> bool:
        """Keep this epoch if it is the best so far by `train.select`; returns whether it is."""
        rule = self.config.train.select
        if rule != "last" and self.selected and not dev[rule] > self.selected[rule]:
            self.stale += 1
            return False
        self.stale = 0
        self.selected = {"epoch": self.epoch} | {name: dev[name] for name in SELECTED}
        return True

    def group_losses(self, sums: torch.Tensor) -> dict[str, float]:
        """Mean training loss of the epoch per `language/modality/gender`."""
        means = group_means(sums).tolist()
        names = cell_names(self.material.cells)
        return {
            f"{cell}/{gender}": means[c][g]
            for c, cell in enumerate(names)
            for g, gender in enumerate(GENDERS)
        }

    def require_finite(self, finite: bool, what: str) -> None:
        """All ranks hold the same numbers here, so all of them raise or none does."""
        if not finite:
            raise RunFailed(
                f"{what} is not finite in epoch {self.epoch}; a smaller learning rate may help"
            )

    # Files --------------------------------------------------------------------------------------

    def write(self, selected_predictions) -> None:
        """Files of this epoch, before its row: predictions and adapter if selected, checkpoint."""
        storage, trial = self.material.storage, self.job.trial_id
        if selected_predictions is not None:
            write_atomically(
                storage / "predictions" / f"{trial}.parquet",
                lambda path: selected_predictions.to_parquet(path, index=False),
            )
            self.speech.save_adapter(storage / "adapters" / trial)
        checkpoint.save(checkpoint.path_of(storage, trial, self.epoch), self.state_dict())

    def state_dict(self) -> dict:
        """Tensors and plain values; the same on every rank."""
        return {
            "parameters": {name: p.detach().cpu() for name, p in self.parameters},
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "stale": self.stale,
            "selected": self.selected,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint; RunFailed if it belongs to another configuration."""
        wanted = {name: tuple(p.shape) for name, p in self.parameters}
        if {name: tuple(p.shape) for name, p in state["parameters"].items()} != wanted:
            raise RunFailed("the checkpoint holds other parameters than this configuration trains")
        with torch.no_grad():
            for name, parameter in self.parameters:
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        self.epoch, self.step, self.stale = state["epoch"], state["step"], state["stale"]
        self.selected = state["selected"]


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of the GPU if there is one, else of this process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
