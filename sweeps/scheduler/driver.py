"""Run a sweep: start Ray, the broker and the slots, let Tune search, show how it goes.

The main thread watches; Tune and every slot run in threads. Ctrl-C, or SIGTERM from whoever takes
the machine back, lets the epochs in flight end; where none has begun it ends the sweep at once.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ermgap.errors import UserError
from sweeps.recording.timing import Session
from sweeps.scheduler.interrupts import Interrupts
from sweeps.scheduler.machines import autoscaler, machine
from sweeps.scheduler.machines.machine import begin, start_ray
from sweeps.scheduler.start_watch import StartWatch

if TYPE_CHECKING:  # pandas: half a second
    from ermgap.config import Config
    from ermgap.records import Records

__all__ = ["begin", "make_ready", "require_devices", "run", "start_ray"]

LOOK_S = 1.0  # from one look at the sweep to the next
CLOSE_S = 60.0  # the broker removes checkpoints, in a bucket one by one
ANSWER_S = 10.0  # for a broker that may have died


def run(
    config: Config,
    records: Records,
    *,
    address: str | None,
    make_searcher: Callable | None = None,
    leave: bool = True,
) -> Session:
    """Search until `sweep.trials` trials have ended, or Ctrl-C.

    Args:
        config: of the sweep, equal to the records'.
        records: the sweep folder.
        address: of a running Ray cluster; None starts Ray here.
        leave: end a Ray that was started here; another run is to follow otherwise.
        make_searcher: makes the searcher from (config, trials); by default `search.searcher`.

    Raises:
        UserError: the devices do not carry what is asked for, no worker group could begin, or a
            worker met a user's mistake.
    """
    session, ended = _run(config, records, address=address, make_searcher=make_searcher)
    if leave and ended and not address:
        machine.leave()
    return session


def _run(
    config: Config, records: Records, *, address: str | None, make_searcher: Callable | None
) -> tuple[Session, bool]:
    """`run`, and whether all that used Ray has ended.

    A frame of its own: a handle of an actor that is dropped while Ray shuts down ends the process.
    """
    import psutil

    from ermgap.records import Mirror, catch_up
    from sweeps.recording import progress
    from sweeps.scheduler import slots, trials
    from sweeps.search import order, proposals, warm_start
    from sweeps.search import searcher as search

    session = Session(begun=psutil.Process().create_time(), rows=len(records.rows()))
    known = records.trials()
    remaining = config.sweep.trials - sum(trial.ended for trial in known)
    if remaining <= 0:
        catch_up(records)
        return session, False
    storage = records.sweep.get("storage")
    layout = make_ready(config, address, records.directory, storage, trials=remaining, note=print)
    lag = order.lag_of(config, slots=layout.slots)
    if address:
        machine.watch_head(machine.head_lost(address, records.directory))
    # Each of `ends` runs, the last one first; signals raise only inside `interrupts.raised`.
    with Interrupts() as interrupts, ExitStack() as ends:
        mirror = Mirror(records)
        ends.callback(_close, mirror, session, interrupts)
        try:
            with interrupts.raised():
                scratch = _scratch(records.directory.absolute())
                ends.callback(shutil.rmtree, scratch, ignore_errors=True)
                name = f"broker-{os.getpid()}-{int(time.time())}"
                broker = slots.start_broker(
                    name, records.directory.absolute(), slots=layout.slots, lag=lag
                )  # which may start in another folder
                groups = slots.Slots(layout, broker=name, folder=scratch, alone=address is None)
                ends.callback(_end, broker, groups, session, interrupts)
                mirror.start()
                if layout.gpu and address:
                    ends.callback(autoscaler.clear)  # first of all: or the GPUs stay, and cost
                    autoscaler.ask(layout.worker, layout.slots * layout.workers)
                groups.grow()  # before the search: it takes longest
                if make_searcher is None:
                    before = warm_start.trials(records, config)
                    rule = records.rule(())
                    searcher = search.searcher(config, known, before, rule=rule, lag=lag)
                else:
                    searcher = make_searcher(config, known)
                searcher = proposals.LimitedStart(searcher, slots=layout.slots)
                tuner = trials.tuner(
                    searcher,
                    trials=remaining,
                    concurrent=order.concurrent(layout.slots),
                    broker=name,
                    folder=scratch,
                )
                watch = progress.Progress(
                    records, trials=config.sweep.trials, epochs=config.train.epochs
                )
                ends.callback(watch.finish)  # however it ends, the terminal is as it was
            _watch(tuner, broker, groups, searcher, watch, session, mirror, interrupts)
        except KeyboardInterrupt:
            session.interrupted = session.hurried = True
    return session, not session.hurried and not groups.alive


def make_ready(
    config: Config,
    address: str | None,
    folder: Path,
    storage: str | None,
    *,
    trials: int,
    note: Callable[[str], None] | None = None,
):
    """Wait for Ray and check all that can be checked before anything is written or asked for.

    Args:
        config: of the sweep.
        address: of a running Ray cluster; None: Ray is started here.
        folder: of the sweep.
        storage: of the sweep, None for its own folder.
        trials: number still to run.
        note: called with a line on what is going to run.

    Returns:
        The `slots.Layout`.

    Raises:
        UserError: Ray does not start, the devices do not carry it, or nodes share no folder.
    """
    machine.join_ray(address)
    # A deterministic sweep keeps its number of slots to the end.
    most = config.sweep.trials if config.sweep.deterministic else trials
    layout, reason = _layout(config, address, trials=most)
    machine.refuse_local_path(folder, storage, growing=bool(layout.gpu and address))
    if note:
        if reason and not layout.gpu and config.sweep.device == "auto":
            note(f"devices: the CPUs, since {reason}")
        note(f"trials: {trials} to run, {layout}")
    return layout


def require_devices(config: Config, address: str | None) -> None:
    """UserError if this machine does not carry the slots and workers that are asked for.

    A cluster is asked when it has answered: it may still grow.
    """
    if not address:
        _layout(config, None, trials=config.sweep.trials)


def _layout(config: Config, address: str | None, *, trials: int):
    """The `slots.Layout` on the devices that are there or may come; why no GPU is here, or ""."""
    from sweeps.scheduler import slots

    nodes, memory, reason = machine.available(address)
    sweep = config.sweep
    there = slots.room(nodes, gpu=True) // sweep.workers
    if sweep.device == "gpu" and address and (there or autoscaler.grows()):
        count = min(sweep.slots or max(1, there), trials)
        return slots.Layout(count, sweep.workers, threads=4, gpu=True), ""
    layout = slots.plan_layout(
        nodes,
        device=sweep.device,
        why_no_gpu=reason,
        memory_gb=memory,
        trials=trials,
        slots=sweep.slots,
        workers=sweep.workers,
    )
    return layout, reason


def _scratch(folder: Path) -> Path:
    """A new folder for Ray's own files; those of a session that was killed are removed."""
    for killed in folder.glob(".ray-*"):
        shutil.rmtree(killed, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=".ray-", dir=folder))


def _watch(
    tuner, broker, groups, searcher, watch, session: Session, mirror, interrupts: Interrupts
) -> None:
    """Until Tune ends: show progress, start slots, pass Ctrl-C on, stop on a user's mistake."""
    searching = machine.Background(tuner.fit)
    growing = groups.layout.gpu and not groups.alone
    start_watch = StartWatch(groups.layout, alone=groups.alone, asked=growing)
    while True:
        try:
            with interrupts.raised():
                groups.grow()
                searching.ended.wait(LOOK_S)
                status = _answer(broker.status)
                watch.update(status)
        except KeyboardInterrupt:
            watch.finish()
            if session.interrupted or not searcher.started:
                session.interrupted = session.hurried = True
                print("stopping", flush=True)
                return
            print(
                "stopping after the epochs in flight; press Ctrl-C again to stop at once",
                flush=True,
            )
            session.interrupted = searcher.source.interrupted = True
            _answer(broker.interrupt)
            continue
        searcher.started = searcher.started or bool(status["running"])
        if trouble := status["fatal"] or mirror.error:
            searcher.source.interrupted = True
            watch.finish()
            raise UserError(str(trouble))
        if searching.ended.is_set():
            break
        if groups.threads and not groups.alive:
            raise UserError(
                f"every worker group ended before the sweep did ({groups.errors or 'no error'}); "
                "look into Ray's logs and continue with --resume."
            )
        if line := start_watch.look(status, room=groups.room):
            watch.finish()
            print(line, flush=True)
    watch.finish()
    if searching.error is not None:
        raise searching.error


def _answer(method, timeout: float | None = None):
    """The broker's answer; UserError where it has died."""
    import ray

    try:
        return ray.get(method.remote(), timeout=timeout)
    except ray.exceptions.RayActorError as problem:
        raise UserError(
            "the process that writes the sweep's rows ended, most likely for want of memory on "
            "this node; make room and continue with --resume."
        ) from problem


# At the end: none of these may raise, or a later one would hide why the sweep ended --------------


def _end(broker, groups, session: Session, interrupts: Interrupts) -> None:
    """Close the slots and the broker."""
    import ray

    seen = interrupts.count
    try:
        with suppress(KeyboardInterrupt), interrupts.raised(kept=False):
            _answer(broker.close, ANSWER_S if session.hurried else CLOSE_S)
        if not session.hurried:
            groups.join(CLOSE_S, hurry=lambda: interrupts.count > seen)
        else:
            groups.join(1.0)
        session.moments = _answer(broker.history, ANSWER_S)
    except Exception:  # it has died, or its node has
        logging.getLogger(__name__).debug("the broker did not close", exc_info=True)
    session.slots = len(groups.threads)
    if not session.hurried:  # else Tune may still ask for it; it ends with this process
        with suppress(Exception):
            ray.kill(broker)


def _close(mirror, session: Session, interrupts: Interrupts) -> None:
    """Put the last rows into the bucket, after those of the slots; Ctrl-C leaves them."""
    try:
        with interrupts.raised(kept=False):
            mirror.close()
    except KeyboardInterrupt:
        print("the last rows are on this machine alone; --resume puts them into the bucket")
        session.interrupted = True
    session.closed = time.time()
