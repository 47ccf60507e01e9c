"""Slots: worker groups that live as long as the sweep.

A TorchTrainer per trial costs 17 s of start and stop on two idle cores, leaks placement groups when
stopped from outside, and can deadlock. So each slot is one `TorchTrainer.fit()` in a thread of the
driver whose workers (ermgap/training.py) take configurations from the broker; a Tune trial
(trials.py) only offers its configurations and waits.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import ray
from ray import train
from ray.train.torch import TorchTrainer

from ermgap import training
from ermgap.errors import UserError
from sweeps import network
from sweeps.broker import Broker
from sweeps.trials import NAMESPACE

# A whole CPU a worker would leave nothing for the trials, which then wait for ever without an
# error.
WORKER_CPUS = 0.9
CONCURRENCY = 256  # of the broker's methods, at least: each slot and each trial waits in one


@dataclass(frozen=True)
class Layout:
    """How a sweep fills the machine: `slots` groups of `workers` workers of `threads` threads."""

    slots: int
    workers: int
    threads: int
    gpu: bool

    @property
    def bundle(self) -> dict[str, float]:
        """Resources of one slot."""
        bundle = {"CPU": WORKER_CPUS * self.workers}
        return bundle | ({"GPU": float(self.workers)} if self.gpu else {})

    def __str__(self) -> str:
        device = "GPU" if self.gpu else f"{self.threads} CPU thread{'s' * (self.threads > 1)}"
        return (
            f"{self.slots} at a time, each on {self.workers} worker{'s' * (self.workers > 1)} "
            f"with {device}"
        )


def plan_layout(
    *, cpus: int, gpus: int, memory_gb: float, trials: int, slots: int | None, workers: int
) -> Layout:
    """As many slots as the devices carry; on CPUs a core and 2 GB a worker, at most 8 slots.

    Raises:
        UserError: more slots or workers are asked for than there are devices.
    """
    devices = gpus or cpus
    fitting = devices // workers
    if fitting < 1 or (slots or 1) > fitting:
        raise UserError(
            f"{slots or 1} slot(s) of {workers} worker(s) do not fit on {devices} "
            f"{'GPU' if gpus else 'CPU'}(s); lower sweep.slots or sweep.workers."
        )
    if slots is None:
        # A core for each: a step's many small operations share a second thread badly. Two slots
        # of one thread train 1.8 times as fast as one slot of two in bfloat16, 1.3 in float32.
        roomy = fitting if gpus else min(fitting, 8, max(1, int(memory_gb // (2 * workers))))
        slots = min(roomy, trials)
    threads = max(1, cpus // (slots * workers))
    return Layout(slots, workers, threads if not gpus else min(threads, 8), bool(gpus))


def start_broker(name: str, directory: Path, *, slots: int, lag: int | None = None):
    """The broker as a named actor on the driver's node; returns its handle."""
    return (
        ray.remote(Broker)
        .options(
            name=name,
            namespace=NAMESPACE,
            num_cpus=0,
            max_concurrency=max(CONCURRENCY, 4 * slots),
            label_selector={ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()},
        )
        .remote(str(directory), lag=lag)
    )


class Trainer(TorchTrainer):
    """A TorchTrainer without the helpers that a slot has no use for, each a process to start.

    There is no Ray dataset. Where Ray is our own and dies with the driver (`alone`), nobody needs
    to clean up after a controller that died. A version of Ray that makes its callbacks elsewhere
    keeps them all.
    """

    alone = False

    def _create_default_callbacks(self) -> list:
        useless = {"DatasetsCallback"} | (
            {"PlacementGroupCleanerCallback"} if self.alone else set()
        )
        every = super()._create_default_callbacks()
        return [callback for callback in every if type(callback).__name__ not in useless]


class Slots:
    """The threads that hold a sweep's slots.

    Args:
        layout: how many, and of what size.
        broker: name of the broker actor.
        folder: scratch space of Ray Train on the driver's disk.
        alone: Ray was started for this sweep.
    """

    def __init__(self, layout: Layout, *, broker: str, folder: Path, alone: bool) -> None:
        self.layout, self.broker, self.folder, self.alone = layout, broker, folder, alone
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def grow(self) -> None:
        """Start each slot whose bundle the cluster has by now: nothing may be pending at close."""
        have = ray.cluster_resources()
        while len(self.threads) < self.layout.slots and all(
            have.get(name, 0) + 1e-6 >= amount * (len(self.threads) + 1)
            for name, amount in self.layout.bundle.items()
        ):
            name = f"slot-{len(self.threads)}"
            thread = threading.Thread(target=self._hold, args=(name,), name=name, daemon=True)
            self.threads.append(thread)
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether any slot still runs."""
        return any(thread.is_alive() for thread in self.threads)

    def join(self, timeout: float) -> None:
        """Wait until the slots have closed (the broker told them to)."""
        end = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _hold(self, name: str) -> None:
        layout = self.layout
        trainer = Trainer(
            training.worker,
            train_loop_config={
                "broker": self.broker,
                "namespace": NAMESPACE,
                "slot": name,
                "threads": layout.threads,
            },
            torch_config=network.Connected(),
            scaling_config=train.ScalingConfig(
                num_workers=layout.workers,
                use_gpu=layout.gpu,
                resources_per_worker={"CPU": WORKER_CPUS} | ({"GPU": 1} if layout.gpu else {}),
            ),
            run_config=train.RunConfig(
                name=name,
                storage_path=str(self.folder),
                failure_config=train.FailureConfig(max_failures=-1),
            ),
        )
        trainer.alone = self.alone
        try:
            trainer.fit()
        except BaseException as problem:
            logging.getLogger(__name__).debug("%s ended", name, exc_info=True)
            self.errors.append(problem)
        finally:
            # What it still holds goes to another slot.
            ray.get_actor(self.broker, namespace=NAMESPACE).left.remote(name)
