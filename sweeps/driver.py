"""Run a sweep: start Ray, the broker and the slots, let Tune search, show how it goes.

The main thread watches; Tune and every slot run in threads. Ctrl-C, or SIGTERM from whoever takes
the machine back, lets the epochs in flight end.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ermgap import be_polite
from ermgap.config import Config
from ermgap.errors import UserError
from ermgap.records import Records

be_polite()  # before anything imports torch, here and in the processes that Ray starts
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Trials ask for slivers of a CPU: more processes may start than there are cores.
os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its boxes ignore verbose=0
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the broker writes the events
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

CLOSE_S = 60.0


@dataclass
class Session:
    """What a call of `run` did: `interrupted` by Ctrl-C (`hurried`: a second one), or ended."""

    interrupted: bool = False
    hurried: bool = False


class Background:
    """A function in a thread, and the error it ended with."""

    def __init__(self, function: Callable) -> None:
        self.error: BaseException | None = None
        self.function = function
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.function()
        except BaseException as problem:
            self.error = problem


def available(address: str | None) -> tuple[int, int, float]:
    """CPUs, GPUs and memory (GB) that a sweep may use: of the cluster, or of this machine."""
    import psutil

    if address:
        import ray

        have = ray.cluster_resources()
        return int(have.get("CPU", 0)), int(have.get("GPU", 0)), have.get("memory", 0) / 1e9
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus, _gpus(), psutil.virtual_memory().available / 1e9


def start_ray(address: str | None) -> None:
    """Join a cluster, or start Ray on this machine without dashboard.

    Raises:
        UserError: no cluster answers at the address.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address:
        polite = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        try:
            ray.init(address=address, runtime_env={"env_vars": polite}, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as problem:
            raise UserError(
                f"no Ray cluster answers at {address!r} ({str(problem).splitlines()[0]}); "
                "start one with 'ray up cluster/gpu.yaml', or leave --address out."
            ) from problem
        return
    cpus, _, _ = available(None)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # one process a slot less
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=200_000_000,
        **quiet,
    )


class RayInBackground:
    """Ray started by a thread that then sleeps: on Linux its processes die with that thread."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            start_ray(None)
        except BaseException as problem:
            self.error = problem
        self.ready.set()
        threading.Event().wait()


_starting: list[RayInBackground] = []


def begin(address: str | None) -> None:
    """Start Ray on this machine in the background: its processes come up beside our imports."""
    if not address and not _starting:
        _starting.append(RayInBackground())


def _join_ray(address: str | None) -> None:
    import ray

    for start in _starting:
        start.ready.wait()
        if start.error is not None:
            raise start.error
    if not ray.is_initialized():
        start_ray(address)


def run(
    config: Config, records: Records, *, address: str | None, wanted: Callable | None = None
) -> Session:
    """Search until `sweep.trials` trials have ended, or Ctrl-C.

    Args:
        config: of the sweep, equal to the records'.
        records: the sweep folder.
        address: of a running Ray cluster; None starts Ray here.
        wanted: makes the searcher from (config, trials); by default `RecordsSearcher`.

    Raises:
        UserError: the devices do not carry what is asked for, or a worker met a user's mistake.
    """
    import ray

    from sweeps import progress, search, slots, trials

    known = records.trials()
    left = config.sweep.trials - sum(trial.ended for trial in known)
    if left <= 0:
        return Session()
    _join_ray(address)
    layout = _layout(config, address, trials=left)
    print(f"trials: {left} to run, {layout}")
    _refuse_local_path_on_a_cluster(records, growing=bool(layout.gpu and address))
    folder = records.directory.absolute()  # the broker may start in another folder
    for killed in folder.glob(".ray-*"):  # of a session that was killed
        shutil.rmtree(killed, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=".ray-", dir=folder))
    name = f"broker-{os.getpid()}-{int(time.time())}"
    broker = slots.start_broker(name, folder)
    held = slots.Slots(layout, broker=name, folder=scratch)
    searcher = (wanted or search.RecordsSearcher)(config, known)
    tuner = trials.tuner(
        searcher, trials=left, concurrent=layout.slots + 1, broker=name, folder=scratch
    )
    session = Session()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell made Python ignore them
        signal.signal(number, _interrupt)
    try:
        watch = progress.Progress(records, trials=config.sweep.trials, epochs=config.train.epochs)
        _watch(tuner, broker, held, searcher, watch, session)
    finally:
        ray.get(broker.close.remote())
        held.join(1.0 if session.hurried else CLOSE_S)
        if layout.gpu and address:
            from ray.autoscaler.sdk import request_resources

            request_resources(bundles=[])  # or the GPUs stay, and cost
        ray.kill(broker)
        shutil.rmtree(scratch, ignore_errors=True)
    return session


def require_devices(config: Config, address: str | None) -> None:
    """UserError if this machine does not carry the slots and workers that are asked for.

    A cluster is asked when it has answered: it may still grow.
    """
    if not address:
        _layout(config, None, trials=config.sweep.trials)


def _layout(config: Config, address: str | None, *, trials: int):
    """How to fill the devices; on a cluster that is yet to grow, what to ask it for."""
    from sweeps import slots

    cpus, gpus, memory = available(address)
    wanted = config.sweep
    if wanted.device == "gpu" and address:
        from ray.autoscaler.sdk import request_resources

        count = min(wanted.slots or max(1, gpus // wanted.workers), trials)
        layout = slots.Layout(count, wanted.workers, threads=4, gpu=True)
        request_resources(bundles=[layout.bundle] * count)
        return layout
    return slots.plan_layout(
        cpus=cpus,
        gpus=0 if wanted.device == "cpu" else gpus,
        memory_gb=memory,
        trials=trials,
        slots=wanted.slots,
        workers=wanted.workers,
    )


def _watch(tuner, broker, held, searcher, watch, session: Session) -> None:
    """Until Tune ends: show progress, start slots, pass Ctrl-C on, stop on a user's mistake."""
    import ray

    searching = Background(tuner.fit)
    while True:
        try:
            held.grow()
            searching.thread.join(1.0)
            status = ray.get(broker.status.remote())
            watch.update(status)
            if status["fatal"]:
                searcher.interrupted = True
                watch.finish()
                raise UserError(status["fatal"])
            if not searching.thread.is_alive():
                break
            if held.threads and not held.alive:
                raise UserError(
                    f"every worker group ended before the sweep did ({held.errors or 'no error'}); "
                    "look into Ray's logs and continue with --resume."
                )
        except KeyboardInterrupt:
            watch.finish()
            print(
                "stopping after the epochs in flight; press Ctrl-C again to stop at once",
                flush=True,
            )
            if session.interrupted:
                session.hurried = True
                break
            session.interrupted = searcher.interrupted = True
            ray.get(broker.interrupt.remote())
    watch.finish()
    if searching.error is not None:
        raise searching.error


def _interrupt(signum, frame):
    raise KeyboardInterrupt


def _gpus() -> int:
    """GPUs of this machine, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return (
        len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if shutil.which("nvidia-smi") else 0
    )


def _refuse_local_path_on_a_cluster(records: Records, *, growing: bool) -> None:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if (len(nodes) > 1 or growing) and not records.sweep.get("storage"):
        raise UserError(
            f"the workers run on other nodes, and {records.directory} is a disk of this one "
            f"alone; "
            "give --storage a folder that all nodes mount."
        )
