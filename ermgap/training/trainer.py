"""Configurations from their first step to their last row, under plain torch.distributed.

`train` drives a gang: one configuration, or several that share backbone, data order and batches and
are trained in the same passes (ermgap/model/lora.py), each with its own loss, weight
schedule, optimiser, early stop and records. An epoch: train, evaluate on dev, write predictions,
adapter and checkpoint, then report the row that commits them. Random numbers are set at each epoch
from (seed, epoch, rank): a resumed run is bit-equal to an uninterrupted one, and a configuration
gives the same result in whichever place, and beside whichever others, a worker trains it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ermgap.config import GENDERS
from ermgap.distributed import World
from ermgap.errors import RunFailed
from ermgap.model.fsdp import step_pieces
from ermgap.model.qwen2_audio import SpeechLLM
from ermgap.training.batch_sampler import epoch_batches, micro_batches, shard
from ermgap.training.checkpoint import Unreadable
from ermgap.training.context import Material
from ermgap.training.evaluation import label_log_probabilities
from ermgap.training.gradients import accumulate_gradients, learning_rate
from ermgap.training.trial_state import Job, Member

__all__ = ["Gang", "Job", "train"]


def train(
    jobs: Sequence[Job],
    *,
    speech: SpeechLLM,
    material: Material,
    world: World,
    report: Callable[[dict], bool],
    failed: Callable[[Job, str], None],
    behind: Callable[[Job, str], None] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Train one configuration, or a gang of them, to the end.

    Args:
        jobs: what to train, all from the same committed epoch (`ermgap.config.companions`).
        speech: the backbone; its adapters are replaced.
        material: utterances, cells, and where files go.
        world: this process among the workers.
        report: called on rank 0 with each member's row of each epoch, after its files are written;
            the row's `last` says that it ends here. Returns whether to go on with it.
        failed: called on every rank for a member that cannot go on: a loss that is not finite, a
            gap that is undefined. The others go on.
        behind: called so for one whose checkpoint cannot be read on some worker: it may go on from
            an earlier epoch. By default that is a failure, too.
        tick: called at every step (a heartbeat).
    """
    gang = Gang(jobs, speech=speech, material=material, world=world, tick=tick)
    gang.resume(failed, behind or failed)
    while gang.members:
        going = []
        for member, row in gang.epoch(failed):
            go_on = world.from_first(report(row) if world.rank == 0 else None)
            if go_on and not row["last"]:
                going.append(member)
        gang.keep(going)


class Gang:
    """Configurations in training, in the same passes; most often one."""

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        speech: SpeechLLM,
        material: Material,
        world: World,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.speech, self.material, self.world, self.tick = speech, material, world, tick
        self.settings = jobs[0].config.train  # what the members share of it is all that is used
        self.over = jobs[0].config.objective.loss_over
        speech.recompute = self.settings.recompute
        speech.set_adapters(
            [job.config.adapter for job in jobs], seeds=[job.config.train.seed for job in jobs]
        )
        self.members = [
            Member(job, adapter, material=material, world=world)
            for job, adapter in zip(jobs, speech.adapters, strict=True)
        ]
        self.strata = material.train.cell * len(GENDERS) + material.train.gender
        self.steps = -(-len(material.train) // self.settings.batch) * self.settings.epochs

    @property
    def step(self) -> int:
        """Optimiser steps done; the members have done equally many."""
        return self.members[0].step

    def resume(
        self, failed: Callable[[Job, str], None], behind: Callable[[Job, str], None]
    ) -> None:
        """Load the checkpoints of members that are not at their start; calls as for `train`."""
        going = []
        for member in self.members:
            trouble = None
            try:
                member.resume()
            except RunFailed as outcome:
                trouble = outcome
            # A disk may fail one worker alone: they agree, or the others would wait for it.
            lost = isinstance(trouble, Unreadable)
            unreadable, other = self.world.any(lost, trouble is not None and not lost)
            reason = str(trouble or "another worker cannot read its checkpoint")
            if other:
                failed(member.job, reason)
            elif unreadable:
                behind(member.job, reason)
            elif not member.over:
                going.append(member)
        self.keep(going)

    def keep(self, members: list[Member]) -> None:
        """Go on with these members alone."""
        self.members = members
        if members:
            self.speech.adapters = [member.adapter for member in members]

    def epoch(self, failed: Callable[[Job, str], None]) -> list[tuple[Member, dict]]:
        """Train an epoch, evaluate, write the files; the rows that commit them, by member.

        A member that cannot go on is told to `failed`, as for `train`, and has no row.
        """
        started = time.perf_counter()
        for member in self.members:
            member.begin_epoch()
        sums, values = self.train_epoch()
        trained = time.perf_counter()
        scores = label_log_probabilities(
            self.speech,
            self.material.dev,
            world=self.world,
            batch=self.settings.eval_batch,
            tick=self.tick,
        )
        evaluated = time.perf_counter()
        shared = {
            "gang": len(self.members),
            "train_seconds": trained - started,
            "eval_seconds": evaluated - trained,
            "utterances_per_second": len(self.material.train) / (trained - started),
        }
        rows = []
        for k, member in enumerate(self.members):
            try:
                row = member.end_epoch(sums[k], values[:, k], scores[k], steps=self.steps)
            except RunFailed as outcome:
                failed(member.job, str(outcome))
            else:
                rows.append((member, row | shared))
        seconds = time.perf_counter() - started
        return [(member, row | {"seconds": seconds, "time": time.time()}) for member, row in rows]

    def train_epoch(self) -> tuple[torch.Tensor, np.ndarray]:
        """All steps of an epoch: group sums [K, 3, C, 2] and the objectives [steps, K]."""
        settings = self.settings
        self.speech.training = True
        epoch, sums, values = self.members[0].epoch, 0, []
        for rows in epoch_batches(
            self.strata, batch=settings.batch, seed=settings.seed, epoch=epoch
        ):
            step_sums, value = self.train_step(rows)
            sums = sums + step_sums
            values.append(value)
            self.tick()
        self.speech.training = False
        return sums.cpu(), torch.stack(values).cpu().numpy()

    def train_step(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step of every member over this worker's rows of a global `batch`.

        Nothing in here waits for the device: numbers that the host wants are read at the epoch's
        end.
        """
        settings, data = self.settings, self.material.train
        progress = self.step / self.steps
        pieces = micro_batches(
            shard(batch, rank=self.world.rank, world=self.world.size),
            size=settings.micro_batch,
            lengths=data.length,
            pieces=self.passes(len(batch)),
        )
        sums, values = accumulate_gradients(
            self.speech,
            [member.objective for member in self.members],
            progress=progress,
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
        self.world.gradients_add_up([p for member in self.members for p in member.parameters])
        norms = [member.optimizer_step(self.rate(member)) for member in self.members]
        # A gradient that is not finite shows in the value that is checked at the epoch's end.
        return sums, values + 0 * torch.stack(norms).to(values.dtype)

    def passes(self, batch: int) -> int:
        """Passes that every worker must make of a global batch; 0 where they need not agree."""
        if self.settings.parallel != "fsdp":
            return 0
        return step_pieces(batch, world=self.world.size, size=self.settings.micro_batch)

    def rate(self, member: Member) -> float:
        """The member's learning rate at this step."""
        settings = member.job.config.train
        return learning_rate(member.step, self.steps, peak=settings.lr, warmup=settings.warmup)
