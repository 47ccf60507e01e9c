"""What a sweep runs on: the devices of this machine or of a cluster, and Ray there."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ermgap import let_idle_threads_sleep
from ermgap.errors import UserError, first_line, in_shell
from sweeps.scheduler.machines import devices, local_ray

let_idle_threads_sleep()  # before anything imports torch, here and in the processes that Ray starts
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Trials ask for slivers of a CPU: more processes may start than there are cores.
os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its boxes ignore verbose=0
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the broker writes the events
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

HEAD_S = 40.0  # without an answer; a head that only restarts is back by then
LOOK_S = 2.0  # from one look at it to the next


class Background:
    """A function in a thread, and the error it ended with.

    `stay`: the thread sleeps afterwards: on Linux the processes that Ray starts die with it.
    """

    def __init__(self, function: Callable, *, stay: bool = False) -> None:
        self.error: BaseException | None = None
        self.function, self.stay = function, stay
        self.ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.function()
        except BaseException as problem:
            self.error = problem
        self.ended.set()
        if self.stay:
            threading.Event().wait()


def available(address: str | None) -> tuple[list[dict], float, str]:
    """Resources of each node that a sweep may use, their memory in GB, and why no GPU is here.

    Those of Ray where it runs, else of this machine, with which Ray is going to be started.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] if _is_up() else []
    if address:
        return nodes, sum(node.get("memory", 0) for node in nodes) / 1e9, ""
    here = devices.here()
    mine = {"CPU": here.cpus, "GPU": here.gpus}
    return nodes or [mine], here.memory_gb, here.why_no_gpu


def start_ray(address: str | None) -> None:
    """Join a cluster, or start Ray on this machine without dashboard.

    Raises:
        UserError: no cluster answers at the address, or Ray does not start here.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    # It shows tracebacks of processes that it starts again, and of its own files on a full disk.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address:
        polite = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        try:
            ray.init(address=address, runtime_env={"env_vars": polite}, **quiet)
        except Exception as problem:  # Ray raises bare ones, too
            raise UserError(
                f"no Ray cluster answers at {address!r} ({first_line(problem)}); "
                "start one with 'ray up cluster/gpu.yaml', or leave --address out."
            ) from problem
        return
    here = devices.here()
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # one process a slot less
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # until an end is noticed
    local_ray.start(
        lambda: ray.init(
            address="local",
            num_cpus=here.cpus,
            num_gpus=here.gpus,
            include_dashboard=False,
            object_store_memory=200_000_000,
            **quiet,
        )
    )
    _start_coordinator()


def _start_coordinator() -> None:
    """Start an actor that every controller of Ray Train asks first, and would wait for."""
    try:
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )

        get_or_create_autoscaling_coordinator()
    except Exception:  # another version of Ray: it starts when it is asked
        logging.getLogger(__name__).debug("no coordinator was started", exc_info=True)


_starting: list[Background] = []


def begin(address: str | None) -> None:
    """Start Ray on this machine in the background: its processes come up beside our imports."""
    if not address and not _starting:
        _starting.append(Background(lambda: start_ray(None), stay=True))


def join_ray(address: str | None) -> None:
    """Wait for what `begin` started, or start Ray now; UserError as `start_ray`."""
    import ray

    for start in _starting:
        start.ended.wait()
        if start.error is not None:
            raise start.error
    if not ray.is_initialized():
        start_ray(address)


def _is_up() -> bool:
    import ray

    return ray.is_initialized() and all(start.ended.is_set() for start in _starting)


def watch_head(sentence: str, *, silent: float = HEAD_S) -> None:
    """End this process with `sentence` when the cluster's head has not answered for `silent` s.

    Ray would end it, too, after a minute, but without a message.
    """
    import ray

    host, port = ray.get_runtime_context().gcs_address.rsplit(":", 1)

    def watch() -> None:
        heard = time.monotonic()
        while ray.is_initialized():
            try:
                socket.create_connection((host.strip("[]"), int(port)), 5).close()
                heard = time.monotonic()
            except OSError:
                if time.monotonic() - heard > silent:
                    print(f"\nerror: {sentence}", file=sys.stderr, flush=True)
                    os._exit(2)
            time.sleep(LOOK_S)

    threading.Thread(target=watch, name="head", daemon=True).start()


def head_lost(address: str, folder: Path) -> str:
    """What to say where the head of a cluster is lost; `folder` is that of the results."""
    return (
        f"the head of the cluster at {address} does not answer any more; start it again, then "
        f"continue with --resume {in_shell(folder)}."
    )


def leave() -> None:
    """End what `begin` started while the caller goes on: at the interpreter's end it takes 2 s."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():  # it may not have been needed after all
        gc.collect()  # what refers to Ray's objects, before and not while it goes
        atexit.register(Background(ray.shutdown).ended.wait)


def refuse_local_path(folder: Path, storage: str | None, *, growing: bool) -> None:
    """UserError where workers on other nodes would write to a disk of this node alone."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if (len(nodes) > 1 or growing) and not storage:
        raise UserError(
            f"the workers run on other nodes, and {folder} is a disk of this one alone; "
            "give --storage a folder that all nodes mount, or a bucket (s3://BUCKET/PREFIX)."
        )
