"""Run a sweep: start Ray, the broker and the slots, let Tune search, show how it goes.

The main thread watches; Tune and every slot run in threads. Ctrl-C, or SIGTERM from whoever takes
the machine back, lets the epochs in flight end.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ermgap.errors import UserError
from sweeps import machine
from sweeps.machine import begin, start_ray
from sweeps.timing import Session

if TYPE_CHECKING:  # pandas: half a second
    from ermgap.config import Config
    from ermgap.records import Records

__all__ = ["begin", "require_devices", "run", "start_ray"]

CLOSE_S = 60.0


def run(
    config: Config,
    records: Records,
    *,
    address: str | None,
    wanted: Callable | None = None,
    leave: bool = True,
) -> Session:
    """Search until `sweep.trials` trials have ended, or Ctrl-C.

    Args:
        config: of the sweep, equal to the records'.
        records: the sweep folder.
        address: of a running Ray cluster; None starts Ray here.
        leave: end a Ray that was started here; another run is to follow otherwise.
        wanted: makes the searcher from (config, trials); by default `search.searcher`.

    Raises:
        UserError: the devices do not carry what is asked for, or a worker met a user's mistake.
    """
    import psutil
    import ray

    from ermgap.mirror import Mirror
    from sweeps import earlier, order, progress, proposals, search, slots, trials

    session = Session(begun=psutil.Process().create_time(), rows=len(records.rows()))
    known = records.trials()
    left = config.sweep.trials - sum(trial.ended for trial in known)
    if left <= 0:
        return session
    gang = config.sweep.gang
    gangs = -(-left // gang)
    machine.join_ray(address)
    # A deterministic sweep keeps its number of slots to the end.
    most = config.sweep.trials if config.sweep.deterministic else gangs
    layout = _layout(config, address, trials=most)
    lag = order.lag_of(config, slots=layout.slots)
    print(f"trials: {left} to run, {layout}")
    machine.refuse_local_path(records, growing=bool(layout.gpu and address))
    if address:
        machine.watch_head(
            f"the head of the cluster at {address} does not answer any more; start it again, then "
            f"continue with --resume {records.directory}."
        )
    folder = records.directory.absolute()  # the broker may start in another folder
    for killed in folder.glob(".ray-*"):  # of a session that was killed
        shutil.rmtree(killed, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=".ray-", dir=folder))
    name = f"broker-{os.getpid()}-{int(time.time())}"
    broker = slots.start_broker(name, folder, slots=layout.slots, lag=lag)
    held = slots.Slots(layout, broker=name, folder=scratch, alone=address is None)
    mirror = Mirror(records).start()
    try:
        held.grow()  # first of all: it takes longest
        if wanted is None:
            before = earlier.trials(records, config)
            searcher = search.searcher(config, known, before, rule=records.rule(()), lag=lag)
        else:
            searcher = wanted(config, known)
        together = proposals.Together(searcher, gang=gang, trials=left, slots=layout.slots)
        tuner = trials.tuner(
            together,
            trials=gangs,
            concurrent=order.concurrent(config, slots=layout.slots),
            broker=name,
            folder=scratch,
        )
        for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell made Python ignore them
            signal.signal(number, _interrupt)
        watch = progress.Progress(records, trials=config.sweep.trials, epochs=config.train.epochs)
        _watch(tuner, broker, held, together, watch, session, mirror)
    finally:
        ray.get(broker.close.remote())
        held.join(1.0 if session.hurried else CLOSE_S)
        session.slots, session.moments = len(held.threads), ray.get(broker.history.remote())
        if layout.gpu and address:
            from ray.autoscaler.sdk import request_resources

            request_resources(bundles=[])  # or the GPUs stay, and cost
        ray.kill(broker)
        shutil.rmtree(scratch, ignore_errors=True)
        if leave and not address and not held.alive:
            machine.leave()
        mirror.close()  # after the last row of the slots
        session.closed = time.time()
    return session


def require_devices(config: Config, address: str | None) -> None:
    """UserError if this machine does not carry the slots and workers that are asked for.

    A cluster is asked when it has answered: it may still grow.
    """
    if not address:
        _layout(config, None, trials=-(-config.sweep.trials // config.sweep.gang))


def _layout(config: Config, address: str | None, *, trials: int):
    """How to fill the devices; on a cluster that is yet to grow, what to ask it for."""
    from sweeps import slots

    cpus, gpus, memory = machine.available(address)
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


def _watch(tuner, broker, held, together, watch, session: Session, mirror) -> None:
    """Until Tune ends: show progress, start slots, pass Ctrl-C on, stop on a user's mistake."""
    import ray

    searching = machine.Background(tuner.fit)
    while True:
        try:
            held.grow()
            searching.ended.wait(1.0)
            status = ray.get(broker.status.remote())
            watch.update(status)
            together.ahead = together.ahead or bool(status["running"])
            if trouble := status["fatal"] or mirror.error:
                together.one.interrupted = True
                watch.finish()
                raise UserError(str(trouble))
            if searching.ended.is_set():
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
            session.interrupted = together.one.interrupted = True
            ray.get(broker.interrupt.remote())
    watch.finish()
    if searching.error is not None:
        raise searching.error


def _interrupt(signum, frame):
    raise KeyboardInterrupt
