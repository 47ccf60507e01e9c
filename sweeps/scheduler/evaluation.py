"""Systems asked on the workers, not on the driver: base models, adapters, models that generate.

    on_workers(requests, config=config, features=None, address=None, folder=folder, done=keep)

A driver runs on a cluster's CPU head, where a 7B model answers for days or not at all. So each
evaluator (evaluator.py) is an actor with the GPU, or the CPUs, of a worker. It loads a base model
once, sets one adapter after another into it, and maps the features of the sweep; the driver waits,
and writes what comes. Adapters travel as files: no worker need see a folder of the driver.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ermgap import baselines as systems
from ermgap.baselines import arguments
from ermgap.config import Config
from ermgap.errors import UserError
from ermgap.records import file_names
from sweeps.scheduler.evaluator import Evaluator
from sweeps.scheduler.extractor import Pool, pool_of
from sweeps.scheduler.interrupts import Interrupts
from sweeps.scheduler.machines import machine

MOST = 8  # evaluators, where `sweep.slots` does not say
CPU_SHARE = 0.9  # of each CPU, as a worker's: trials that are still ending hold a sliver
LOOK_S = 1.0  # from one look at the evaluators to the next
WAITING_S = 30.0  # without an evaluator, before a line says so
WITH_FOLDERS = ("adapter", "dial")  # systems whose arguments are adapters' folders
PARTS = (file_names.ADAPTER_SETTINGS, file_names.ADAPTER_WEIGHTS)  # of an adapter's folder


@dataclass(frozen=True, eq=False)
class Request:
    """A system, the utterances it is asked about, and the file that keeps its predictions.

    Attributes:
        spec: as in `--models`.
        utterances: rows of `ermgap.corpora.table`.
        kept: a Parquet file; None: whoever asks keeps them elsewhere.
        name: of its row in a table; None: the system says it.
    """

    spec: str
    utterances: pd.DataFrame
    kept: Path | None = None
    name: str | None = None


def require(config: Config, address: str | None) -> None:
    """UserError where no evaluator can begin, before anything is written."""
    machine.join_ray(address)
    _pool(1, config, address)


def on_workers(
    requests: Sequence[Request],
    *,
    config: Config,
    features: str | None,
    address: str | None,
    folder: Path,
    done: Callable[[Request, pd.DataFrame], None],
    note: Callable[[str], None] = print,
) -> None:
    """Ask every system on the workers, and give each table to `done` when it comes.

    Joins the Ray cluster at `address`, or starts Ray here. Whatever way this ends, no evaluator
    outlives it, so that a cluster may let its GPUs go.

    Args:
        config: of the run; device, slots and attempts of `sweep`, backbone, data and plugins count.
        features: the folder below which they are (`Records.features`); None: each node's cache.
        folder: of the results, for what a user is to continue.

    Raises:
        UserError: as the systems; also for processes that die again and again.
    """
    machine.join_ray(address)
    if address:
        machine.watch_head(machine.head_lost(address, folder))
    pool = _pool(len(requests), config, address)
    note(f"evaluation: {len(requests)} system{'s' * (len(requests) > 1)} to ask, {pool}")
    given = {"config": config.to_dict(), "folder": str(folder.absolute()), "pool": pool}
    given["features"] = features
    evaluators = EvaluatorPool(pool, given, ship=address is not None, note=note)
    with Interrupts() as interrupts:
        try:
            with interrupts.raised():
                evaluators.work(requests, attempts=config.sweep.attempts, done=done)
        finally:
            evaluators.end()


def _pool(requests: int, config: Config, address: str | None) -> Pool:
    return pool_of(config, address, chunks=min(requests, config.sweep.slots or MOST))


class EvaluatorPool:
    """The evaluators of one call. One that has not begun is given no work: it may never begin.

    Args:
        pool: how many, and what each holds.
        given: what an `Evaluator` is made from.
        ship: send adapters' files along instead of their paths.
        note: called with each line that an evaluator notes.
    """

    def __init__(self, pool: Pool, given: dict, *, ship: bool, note: Callable[[str], None]) -> None:
        self.pool, self.given, self.ship, self.note = pool, given, ship, note
        self.evaluators: list = []
        self.idle: list = []
        self.busy: dict = {}  # answer to come -> evaluator, request
        self.pending_notes: dict = {}  # notes to come -> evaluator
        self.passed_on: Counter = Counter()  # of each evaluator, the number of notes
        self.deaths: Counter = Counter()  # by what was asked; None: by none that had begun
        self.waits_since: float | None = time.monotonic()  # for the first to begin

    def work(self, requests: Sequence[Request], *, attempts: int, done: Callable) -> None:
        """Until all requests are answered; see `on_workers`."""
        import ray

        waiting = deque(requests)
        while waiting or self.busy:
            while len(self.evaluators) < min(self.pool.actors, len(waiting) + len(self.busy)):
                self._start()
            while waiting and self.idle:
                self._begin(waiting.popleft())
            if not self.busy:
                time.sleep(LOOK_S / 4)  # until one begins
            self._read_notes(attempts)
            if not self.busy:
                continue
            for reference in ray.wait(list(self.busy), timeout=LOOK_S)[0]:
                evaluator, request = self.busy.pop(reference)
                try:
                    answer = ray.get(reference)
                except ray.exceptions.RayTaskError:
                    raise  # the evaluator lives: a mistake in this program
                except ray.exceptions.RayError as death:
                    self._remove_dead(evaluator, request, attempts, death)
                    waiting.appendleft(request)
                    continue
                self.idle.append(evaluator)
                self._pass_on(evaluator, answer["notes"])
                if answer["mistake"]:
                    raise UserError(answer["mistake"])
                done(request, answer["table"])

    def end(self) -> None:
        """End every evaluator, at work or not."""
        import ray

        for evaluator in self.evaluators:
            ray.kill(evaluator)
        self.evaluators, self.idle, self.busy, self.pending_notes = [], [], {}, {}

    def _start(self) -> None:
        import ray

        cpus = 1 if self.pool.gpu else self.pool.cpus
        resources = {"num_cpus": CPU_SHARE * cpus, "num_gpus": int(self.pool.gpu)}
        # Beside the evaluation, one thread answers for the notes.
        made = ray.remote(Evaluator).options(max_concurrency=2, **resources)
        self.evaluators.append(made.remote(**self.given))
        self.pending_notes[self.evaluators[-1].noted.remote()] = self.evaluators[-1]

    def _begin(self, request: Request) -> None:
        evaluator = self.idle.pop()
        spec, files = _for_workers(request.spec, ship=self.ship)
        reference = evaluator.evaluate.remote(spec, request.utterances, request.name, files)
        self.busy[reference] = evaluator, request

    def _remove_dead(
        self, evaluator, request: Request | None, attempts: int, death: Exception
    ) -> None:
        """Forget an evaluator that died; UserError where that happens again and again."""
        import ray

        ray.kill(evaluator)
        self.evaluators.remove(evaluator)
        self.pending_notes = {
            reference: other
            for reference, other in self.pending_notes.items()
            if other != evaluator
        }
        logging.getLogger(__name__).debug("an evaluator died", exc_info=death)
        self.deaths[request] += 1
        if self.deaths[request] < attempts:
            return
        what = f"evaluated {request.name or request.spec}" if request else "was to evaluate"
        raise UserError(
            f"the process that {what} died {attempts} times, most likely for want of memory; take "
            "larger machines or a smaller backbone, and continue with --resume."
        ) from death

    def _read_notes(self, attempts: int) -> None:
        """Pass on what evaluators have noted since the last time; those that begin are idle."""
        import ray

        references = list(self.pending_notes)
        ready = (
            ray.wait(references, num_returns=len(references), timeout=0)[0] if references else []
        )
        for reference in ready:
            evaluator = self.pending_notes.pop(reference)
            try:
                texts = ray.get(reference)
            except ray.exceptions.RayError as death:
                at_work = [busy for busy, _ in self.busy.values()]
                if evaluator not in at_work:  # else its request will say so
                    self.idle = [idle for idle in self.idle if idle != evaluator]
                    self._remove_dead(evaluator, None, attempts, death)
                continue
            if evaluator not in self.passed_on:
                self.idle.append(evaluator)
                self.waits_since = None
            self._pass_on(evaluator, texts)
            self.pending_notes[evaluator.noted.remote()] = evaluator
        if self.waits_since and time.monotonic() - self.waits_since > WAITING_S:
            self.note(f"waiting until there is room for {self.pool}")
            self.waits_since = None

    def _pass_on(self, evaluator, texts: Sequence[str]) -> None:
        for text in texts[self.passed_on[evaluator] :]:
            self.note(text)
        self.passed_on[evaluator] = len(texts)


def _for_workers(spec: str, *, ship: bool) -> tuple[str, dict[str, dict[str, bytes]] | None]:
    """A spec that means the same in another folder, and adapters' files if they are to travel.

    The files are by their adapter's folder and their name.
    """
    spec = arguments.absolute(spec)
    system, _ = systems.parse(spec)
    if system not in WITH_FOLDERS or not ship:
        return spec, None
    files = {}
    for folder in arguments.places_of(spec)[1]:
        parts = [Path(folder) / name for name in PARTS]
        files[folder] = {path.name: path.read_bytes() for path in parts if path.is_file()}
    return spec, files
