"""One trial from its first step to its last row, under plain torch.distributed.

An epoch: train, evaluate on dev, write predictions, adapter and checkpoint, then report the row
that commits them. Random numbers are set at each epoch from (seed, epoch, rank): a resumed trial is
bit-equal to an uninterrupted one, and a trial gives the same result after whichever others a worker
trains it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from ermgap.distributed import World
from ermgap.errors import RunFailed
from ermgap.model.fsdp import step_pieces
from ermgap.model.qwen2_audio import SpeechLLM
from ermgap.training.batch_sampler import epoch_batches, micro_batches, shard
from ermgap.training.checkpoint import Unreadable
from ermgap.training.context import TrainingContext
from ermgap.training.evaluation import label_log_probabilities
from ermgap.training.gradients import accumulate_gradients, learning_rate
from ermgap.training.trial_files import TrialSpec
from ermgap.training.trial_state import TrialState

__all__ = ["TrialSpec", "Training", "train"]


def train(
    spec: TrialSpec,
    *,
    speech: SpeechLLM,
    context: TrainingContext,
    world: World,
    report: Callable[[dict], bool],
    failed: Callable[[TrialSpec, str], None],
    checkpoint_lost: Callable[[TrialSpec, str], None] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Train one trial to the end.

    Args:
        spec: the trial, and the committed epoch to go on from.
        speech: the backbone; its adapter is replaced.
        context: utterances, cells, and where files go.
        world: this process among the workers.
        report: called on rank 0 with the row of each epoch, after its files are written; the row's
            `last` says that the trial ends here. Returns whether to go on.
        failed: called on every rank with the reason why the trial cannot go on: a loss that is not
            finite, a gap that is undefined.
        checkpoint_lost: called so where the checkpoint cannot be read on some worker: the trial may
            go on from an earlier epoch. By default that is a failure, too.
        tick: called at every step (a heartbeat).
    """
    training = Training(spec, speech=speech, context=context, world=world, tick=tick)
    going = training.resume(failed, checkpoint_lost or failed)
    while going:
        try:
            row = training.epoch()
        except RunFailed as outcome:
            return failed(spec, str(outcome))
        go_on = world.broadcast(report(row) if world.rank == 0 else None)
        going = go_on and not row["last"]


class Training:
    """A trial in training: the passes over the utterances; what they change is in `state`."""

    def __init__(
        self,
        spec: TrialSpec,
        *,
        speech: SpeechLLM,
        context: TrainingContext,
        world: World,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.spec, self.speech, self.context = spec, speech, context
        self.world, self.tick = world, tick
        self.settings = spec.config.train
        self.over = spec.config.objective.loss_over
        speech.recompute = self.settings.recompute
        speech.reset_adapter(spec.config.adapter, seed=self.settings.seed)
        self.state = TrialState(spec, speech.adapters[0], context=context, world=world)
        examples = context.train
        self.strata = examples.cell * (len(examples.sides) + 1) + examples.side
        self.steps = -(-len(context.train) // self.settings.batch) * self.settings.epochs

    def resume(
        self,
        failed: Callable[[TrialSpec, str], None],
        checkpoint_lost: Callable[[TrialSpec, str], None],
    ) -> bool:
        """Load the trial's checkpoint, or its trunk's, if there is one; calls as for `train`.

        Returns whether there is something left to train.
        """
        trouble = branch = None
        try:
            branch = self.state.resume()
        except RunFailed as outcome:
            trouble = outcome
        # A disk may fail one worker alone: they agree, or the others would wait for it.
        lost = isinstance(trouble, Unreadable)
        unreadable, other = self.world.any(lost, trouble is not None and not lost)
        if other or unreadable:
            reason = str(trouble or "another worker cannot read its checkpoint")
            (failed if other else checkpoint_lost)(self.spec, reason)
            return False
        if branch:
            self.state.set_parameters(branch.selected)
            self.state.take_over(branch, self.evaluate())
        return not self.state.over

    def epoch(self) -> dict:
        """Train an epoch, evaluate, write the files; returns the row that commits them.

        Raises:
            RunFailed: as `TrialState.end_epoch`.
        """
        started = time.perf_counter()
        self.state.begin_epoch()
        sums, values, raised = self.train_epoch()
        trained = time.perf_counter()
        scores = self.evaluate()
        evaluated = time.perf_counter()
        row = self.state.end_epoch(sums, values, scores, steps=self.steps, raised=raised)
        return row | {
            "train_seconds": trained - started,
            "eval_seconds": evaluated - trained,
            "utterances_per_second": len(self.context.train) / (trained - started),
            "seconds": time.perf_counter() - started,
            "time": time.time(),
        }

    def evaluate(self) -> np.ndarray:
        """Log probabilities of the labels on dev, [N, labels]."""
        return label_log_probabilities(
            self.speech,
            self.context.dev,
            world=self.world,
            batch=self.settings.eval_batch,
            tick=self.tick,
        )[0]

    def train_epoch(self) -> tuple[torch.Tensor, np.ndarray, float]:
        """All steps of an epoch: group sums [3, C, columns], objectives [steps], `raised_share`."""
        settings = self.settings
        self.speech.training = True
        sums, values, raised = 0, [], 0
        for batch in epoch_batches(
            self.strata, batch=settings.batch, seed=settings.seed, epoch=self.state.epoch
        ):
            step_sums, value, step_raised = self.train_step(batch)
            sums, raised = sums + step_sums, raised + step_raised
            values.append(value)
            self.tick()
        self.speech.training = False
        self.world.all_reduce(raised)
        return sums.cpu(), torch.stack(values).cpu().numpy(), float(raised / sums[2].sum())

    def train_step(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One optimiser step over this worker's rows of a global `batch`.

        Nothing in here waits for the device: numbers that the host wants are read at the epoch's
        end.
        """
        settings, data, state = self.settings, self.context.train, self.state
        pieces = micro_batches(
            shard(batch, rank=self.world.rank, world=self.world.size),
            size=settings.micro_batch,
            lengths=data.length,
            pieces=self.passes(len(batch)),
        )
        sums, value, raised = accumulate_gradients(
            self.speech,
            state.objective,
            progress=state.step / self.steps,
            world=self.world,
            over=self.over,
            batches=[
                data.batch(
                    piece,
                    answers=self.over == "answer",
                    device=self.world.device,
                    dtype=self.speech.dtype,
                )
                for piece in pieces
            ],
        )
        self.world.all_reduce_gradients(state.parameters)
        rate = learning_rate(state.step, self.steps, peak=settings.lr, warmup=settings.warmup)
        norm = state.optimizer_step(rate)
        # A gradient that is not finite shows in the value that is checked at the epoch's end.
        return sums, value + 0 * norm.to(value.dtype), raised

    def passes(self, batch: int) -> int:
        """Passes that every worker must make of a global batch; 0 where they need not agree."""
        if self.settings.parallel != "fsdp":
            return 0
        return step_pieces(batch, world=self.world.size, size=self.settings.micro_batch)
