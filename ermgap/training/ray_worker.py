"""The loop inside Ray Train: what every worker of a slot runs, as long as the sweep lives.

A slot is one `TorchTrainer.fit()`. Its workers load the backbone and the features once, then take
one trial after another from the broker (a named actor, sweeps/scheduler/slots.py), train it, report
every epoch and hear whether to go on. Only outcomes on which all ranks agree end a trial in here;
any exception propagates, Ray restarts the group, and the broker hands the same trial out again from
its last committed epoch.
"""

from __future__ import annotations

import logging
import os
import threading
import time

import ray
import ray.train.torch
import torch

from ermgap import config, keep_freed_memory
from ermgap.distributed import World
from ermgap.errors import UserError
from ermgap.records import StorageError
from ermgap.training.context import prepare
from ermgap.training.trainer import TrialSpec, train

# A step of the 7B model takes seconds; half an hour without one is a hang.
PATIENCE_S = float(os.environ.get("ERMGAP_PATIENCE_S", "1800"))


def worker(settings: dict) -> None:
    """The `train_loop_per_worker` of a slot.

    Args:
        settings: `broker` (actor name), `namespace`, `slot` (name of this slot), `threads` (CPU
            threads of this worker), `gpu` (whether it has one).
    """
    keep_freed_memory()
    torch.set_num_threads(settings["threads"])
    if not settings["gpu"]:  # Ray hides no card from a worker that asked for none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if torch.cuda.is_available():
        torch.cuda.set_device(ray.train.torch.get_device())
    world = World.current()
    broker = ray.get_actor(settings["broker"], namespace=settings["namespace"])
    client = BrokerClient(broker, settings["slot"], world)
    try:
        speech, context = prepare(
            ray.get(broker.setup.remote(settings["slot"])), world, client.note
        )
    except UserError as mistake:
        # It would come back at every restart: the sweep ends with the user's sentence instead.
        client.give_up(str(mistake))
        return
    watchdog = Watchdog(PATIENCE_S)
    while (spec := client.take(watchdog.tick)) is not None:
        try:
            train(
                spec,
                speech=speech,
                context=context,
                world=world,
                report=client.report,
                failed=client.failed,
                checkpoint_lost=client.checkpoint_lost,
                tick=watchdog.tick,
            )
        except StorageError as problem:
            # No fault of the trial: it stays unfinished, and the sweep says why.
            client.give_up(str(problem))
            raise
        except BaseException as problem:
            client.trouble(spec, problem)
            raise
    watchdog.stop()


class BrokerClient:
    """The broker's methods, called on rank 0; answers are passed on to the other ranks."""

    def __init__(self, broker, slot: str, world: World) -> None:
        self.broker, self.slot, self.world = broker, slot, world

    def take(self, tick) -> TrialSpec | None:
        """What to train next, or None when the slot shall close. Ranks that wait hear at least
        once a minute, so that no collective times out."""
        while True:
            tick()
            answer = None
            if self.world.rank == 0:
                answer = ray.get(self.broker.take.remote(self.slot, 45.0))
            answer = self.world.broadcast(answer)
            if answer["kind"] == "close":
                return None
            if answer["kind"] == "trial":
                fields = answer["trial"]
                return TrialSpec(**fields | {"config": config.from_dict(fields["config"])})

    def report(self, row: dict) -> bool:
        """Commit a row; whether to go on with this trial."""
        return ray.get(self.broker.report.remote(self.slot, row))

    def failed(self, spec: TrialSpec, reason: str) -> None:
        """All ranks agree that this trial cannot go on; rank 0 reports it."""
        if self.world.rank == 0:
            ray.get(self.broker.failed.remote(self.slot, spec.trial_id, spec.attempt, reason))

    def checkpoint_lost(self, spec: TrialSpec, reason: str) -> None:
        """All ranks agree that a checkpoint is lost: this trial goes back an epoch."""
        if self.world.rank == 0:
            ray.get(
                self.broker.checkpoint_lost.remote(self.slot, spec.trial_id, spec.attempt, reason)
            )

    def trouble(self, spec: TrialSpec, problem: BaseException) -> None:
        """Report an exception before it ends the group; any rank may see it first."""
        logging.getLogger(__name__).error("trial %s", spec.trial_id, exc_info=problem)
        lines = str(problem).strip().splitlines() or [""]
        reason = f"{type(problem).__name__}: {lines[0]}"
        self.broker.trouble.remote(self.slot, spec.trial_id, reason)
        time.sleep(0.2)

    def note(self, text: str) -> None:
        """A line for the live progress (features, loading)."""
        self.broker.note.remote(self.slot, text)

    def give_up(self, sentence: str) -> None:
        """End the sweep with a sentence for the user."""
        ray.get(self.broker.give_up.remote(sentence))


class Watchdog:
    """Ends the process after `patience` s without a step: Ray only sees whether the actor lives."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.last = time.monotonic()
        self.ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def tick(self) -> None:
        """Called at every step and at every wait for a trial."""
        self.last = time.monotonic()

    def stop(self) -> None:
        """No more watching."""
        self.ended.set()

    def _watch(self) -> None:
        while not self.ended.wait(min(self.patience / 4, 30.0)):
            if time.monotonic() - self.last > self.patience:
                logging.getLogger(__name__).error(
                    "no step for %.0f s; ending the process", self.patience
                )
                os._exit(1)
