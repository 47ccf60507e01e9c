"""Slots: worker groups that live as long as the sweep.

A TorchTrainer per trial costs 17 s of start and stop on two idle cores, leaks placement groups when
stopped from outside, and can deadlock. So each slot is one `TorchTrainer.fit()` in a thread of the
driver whose workers (ermgap/training/ray_worker.py) take trials from the broker; a Tune trial
(trials.py) only offers its hyperparameters and waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray import train
from ray.train.torch import TorchTrainer

from ermgap.errors import UserError
from ermgap.training import ray_worker
from sweeps.scheduler.broker import Broker
from sweeps.scheduler.machines import network
from sweeps.scheduler.trials import NAMESPACE

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
    def worker(self) -> dict[str, float]:
        """Resources of one worker; one node must have them."""
        return {"CPU": WORKER_CPUS} | ({"GPU": 1.0} if self.gpu else {})

    def __str__(self) -> str:
        device = "GPU" if self.gpu else f"{self.threads} CPU thread{'s' * (self.threads > 1)}"
        return (
            f"{self.slots} at a time, each on {self.workers} worker{'s' * (self.workers > 1)} "
            f"with {device}"
        )


def room(nodes: Sequence[Mapping[str, float]], *, gpu: bool) -> int:
    """Workers that nodes with these resources carry; each has a CPU, and a GPU, of one node.

    A worker asks for less than a CPU: what it leaves is for the trials.
    """
    names = ("CPU", "GPU") if gpu else ("CPU",)
    return sum(min(int(node.get(name, 0)) for name in names) for node in nodes)


def plan_layout(
    nodes: Sequence[Mapping[str, float]],
    *,
    device: str,
    memory_gb: float,
    trials: int,
    slots: int | None,
    workers: int,
    why_no_gpu: str = "",
) -> Layout:
    """As many slots as the nodes carry; on CPUs a core and 2 GB a worker, at most 8 slots.

    Args:
        nodes: resources of each (`CPU`, `GPU`), as Ray counts them.
        device: auto, cpu or gpu; auto takes GPUs where a node has one.
        memory_gb: free, of all nodes.
        trials: that are left; no more slots are made.
        slots: wanted; None: as many as fit.
        workers: of a slot.
        why_no_gpu: for the message where a GPU is asked for.

    Raises:
        UserError: more slots or workers are asked for than the nodes carry, or a GPU that none has.
    """
    gpu = device == "gpu" or (device == "auto" and room(nodes, gpu=True) > 0)
    cpus, gpus = (int(sum(node.get(name, 0) for node in nodes)) for name in ("CPU", "GPU"))
    if gpu and not gpus:
        cause = f" ({why_no_gpu})" if why_no_gpu else ""
        raise UserError(f"sweep.device is gpu, and no GPU is here{cause}; set it to auto or cpu.")
    fitting = room(nodes, gpu=gpu) // workers
    if fitting < 1 or (slots or 1) > fitting:
        there = f"{gpus} GPU(s) and {cpus}" if gpu else f"{cpus}"
        raise UserError(
            f"{slots or 1} slot(s) of {workers} worker(s) do not fit on {there} CPU(s); "
            "lower sweep.slots or sweep.workers."
        )
    if slots is None:
        # A core for each: a step's many small operations share a second thread badly. Two slots
        # of one thread train 1.8 times as fast as one slot of two in bfloat16, 1.3 in float32.
        roomy = fitting if gpu else min(fitting, 8, max(1, int(memory_gb // (2 * workers))))
        slots = min(roomy, trials)
    threads = max(1, cpus // (slots * workers))
    return Layout(slots, workers, threads if not gpu else min(threads, 8), gpu)


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
    """The threads that run a sweep's worker groups.

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
        self.room = 0  # workers that the nodes carry

    def grow(self) -> None:
        """Start each slot that the nodes carry by now: nothing may be pending at close."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.room = room(nodes, gpu=self.layout.gpu)
        while len(self.threads) < min(self.layout.slots, self.room // self.layout.workers):
            name = f"slot-{len(self.threads)}"
            thread = threading.Thread(target=self._hold, args=(name,), name=name, daemon=True)
            self.threads.append(thread)
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether any slot still runs."""
        return any(thread.is_alive() for thread in self.threads)

    def join(self, timeout: float, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """Wait until the slots have closed (the broker answers so), or until `hurry` is true."""
        end = time.monotonic() + timeout
        while self.alive and time.monotonic() < end and not hurry():
            time.sleep(0.05)

    def _hold(self, name: str) -> None:
        layout = self.layout
        trainer = Trainer(
            ray_worker.worker,
            train_loop_config={
                "broker": self.broker,
                "namespace": NAMESPACE,
                "slot": name,
                "threads": layout.threads,
                "gpu": layout.gpu,
            },
            torch_config=network.Connected(),
            scaling_config=train.ScalingConfig(
                num_workers=layout.workers,
                use_gpu=layout.gpu,
                resources_per_worker=layout.worker,
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
            with suppress(ValueError):  # the broker has gone, too
                # What it still holds goes to another slot.
                ray.get_actor(self.broker, namespace=NAMESPACE).slot_ended.remote(name)
