"""A crowd of fake trials: the real searcher, broker, records, journal and TensorBoard events in one
process, with coroutines where Tune's trials and the slots' workers would be. For bench_scale.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from ermgap import metrics
from ermgap.config import GENDERS, MELD_LABELS, METRICS, Config, load
from ermgap.records import Records
from sweeps.scheduler.broker import Broker
from sweeps.search import searcher as search
from sweeps.search.sampling.sampler import FrontSampler, UniformSampler

LANGUAGES, MODALITIES = ("de", "en", "ja"), ("speech", "speech+text")
SIZES = {"train": 23_368, "dev": 2_884, "test": 3_000}  # MELD-ST (arXiv 2603.21050)
EPOCH_S = 1.0  # of a fake epoch: a thousand slots ask for far more than can be answered
PRESETS = Path(__file__).resolve().parents[2] / "sweeps" / "presets"


def table(seed: int = 0) -> pd.DataFrame:
    """Utterances in the number, the columns and the lengths of words of MELD-ST."""
    rng, n = np.random.default_rng(seed), sum(SIZES.values())
    speaker = rng.integers(290, size=n)
    return pd.DataFrame(
        {
            "utterance_id": [f"meld_st/ENG_DEU/train_{i:05d}" for i in range(n)],
            "corpus": "meld_st",
            "language": rng.choice(LANGUAGES, n),
            "gender": np.where(speaker % 2, "female", "male"),
            "emotion": rng.choice(MELD_LABELS, n),
            "speaker": [f"speaker {i:03d}" for i in speaker],
            "group": [f"dialogue {i:04d}" for i in rng.integers(1400, size=n)],
            "split": np.repeat(list(SIZES), list(SIZES.values())),
            "path": [f"/data/MELD-ST/ENG_DEU/ENG/train/train_{i:05d}.wav" for i in range(n)],
            "start_s": 0.0,
            "end_s": rng.lognormal(1.0, 0.7, n).clip(0.3, 30.0),
            "transcript": ["What is it that he said to you when " + "x" * (i % 40)
                           for i in range(n)],
            "synthetic": False,
        }
    )  # fmt: skip


def settings(**changes) -> Config:
    """The preset `paper` with the default sampler and space."""
    return load(PRESETS / "paper.yaml").replace({"sweep.slots": None} | changes)


def create(folder: Path, config: Config) -> Records:
    """A sweep folder as `machine.begin` makes one."""
    objectives = list(config.sweep.objectives)
    described = {"config": config.to_dict(), "labels": list(MELD_LABELS), "n_dev": SIZES["dev"]}
    described |= {
        "objectives": objectives,
        "directions": {n: METRICS[n].direction for n in objectives},
    }
    described |= {"reference_point": {"acc": 0.25, "max_gap": 0.3}, "majority_rate": 0.25}
    return Records.create(folder, sweep=described | {"trials": config.sweep.trials}, table=table())


class Training:
    """What a worker would report: rows as ermgap/training makes them, at once."""

    def __init__(self, config: Config, seed: int = 0) -> None:
        self.epochs, self.rng = config.train.epochs, np.random.default_rng(seed)
        known = table().query("split == 'dev'")
        both = pd.concat([known.assign(modality=modality) for modality in MODALITIES])
        both = both.assign(label=both["emotion"], prediction=both["emotion"])
        for label in MELD_LABELS:
            both[f"logp_{label}"] = np.where(both["label"] == label, -0.5, -3.0)
        self.dev = metrics.evaluate(both, labels=MELD_LABELS, min_support=1)

    def row(self, job: dict, epoch: int) -> dict:
        """Of one epoch; better with a mild weight, and later."""
        hyperparameters, rng = job["hyperparameters"], self.rng
        weight = np.log10(hyperparameters.get("lambda_max", 0.003) / 0.003) / 3.5
        late = 1 - np.exp(-epoch / 5)
        rate = 0.1 * np.log(hyperparameters["lr"] / 5e-5) ** 2
        acc = late * (0.6 - 0.15 * weight**2 - rate) + rng.normal(0, 0.005)
        gap = 0.02 + (0.15 - 0.1 * weight) * late + abs(rng.normal(0, 0.01))
        scores = {"acc": float(acc), "w_f1": float(acc) * 0.97, "max_gap": float(gap)}
        scores |= {"worst_group_w_f1": float(acc) * 0.8, "max_loss_gap": float(rng.random())}
        gaps = {
            cell: {name: float(rng.random()) if isinstance(value, float) else value
                   for name, value in kept.items()}
            for cell, kept in self.dev["gaps"].items()
        }  # fmt: skip
        dev = self.dev | scores | {"gaps": gaps, "majority_rate": 0.25}
        losses = {f"{language}/{modality}/{gender}": float(rng.random()) for gender in
                  GENDERS for language in LANGUAGES for modality in MODALITIES}  # fmt: skip
        told = {"trial_id": job["trial_id"], "attempt": job["attempt"], "epoch": epoch}
        # Patience ends trials at all epochs from 6 on.
        over = int(job["trial_id"][1:]) * 7 % (self.epochs - 5) + 6
        told |= {"last": epoch == over, "config": hyperparameters, "losses": losses}
        told |= {"lambda": float(weight), "lambda_next": float(weight), "dev": dev}
        told |= {name: float(rng.random()) for name in ("objective", "train_loss", "seconds")}
        told |= {name: float(rng.random()) for name in ("train_seconds", "eval_seconds")}
        told |= {"utterances_per_second": 132.3, "peak_memory_mb": 64271.1, "time": time.time()}
        return told | {"selected": {"epoch": epoch} | scores}


class Clock:
    """Seconds and calls by name; `watch` wraps a method of a class as long as it is entered."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    @contextmanager
    def watch(self, name: str, owner, method: str, now: Callable = time.perf_counter):
        """Time every call of `owner.method`."""
        plain = getattr(owner, method)

        def timed(*arguments, **options):
            start = now()
            try:
                return plain(*arguments, **options)
            finally:
                self.seconds[name] += now() - start
                self.calls[name] += 1

        setattr(owner, method, timed)
        try:
            yield
        finally:
            setattr(owner, method, plain)


class Crowd:
    """`concurrent` slots, and as many trials at a time until `trials` have ended.

    Args:
        seconds: after which all is stopped.
    """

    def __init__(self, records: Records, config: Config, *, concurrent: int, seconds: float):
        self.config, self.concurrent, self.seconds = config, concurrent, seconds
        self.broker = Broker(str(records.directory))
        self.searcher, self.training = search.searcher(config), Training(config)
        self.reports: list[float] = []
        self.proposals: list[tuple[int, float]] = []  # ended trials, seconds
        self.memory: list[tuple[int, float]] = []  # reports, MB
        self.ended = 0

    async def play(self) -> None:
        """Until all have ended, or the time is over; then everything stops where it is."""
        self.search, self.full = asyncio.Lock(), asyncio.Event()
        self.begun, self.left = time.perf_counter(), self.config.sweep.trials
        slots = [asyncio.create_task(self._slot(f"slot-{n}")) for n in range(self.concurrent)]
        tuners = [asyncio.create_task(self._tune()) for _ in range(self.concurrent)]
        await asyncio.wait(tuners, timeout=self.seconds)
        self.seconds = time.perf_counter() - self.begun
        self.memory.append((len(self.reports), resident_mb()))
        # Rows whose events are not written yet; closing waits for them.
        self.behind = self.broker.ledger.events.writer._work_queue.qsize()
        for task in [*slots, *tuners]:
            task.cancel()
        await asyncio.gather(*slots, *tuners, return_exceptions=True)

    async def _tune(self) -> None:
        while self.left:
            self.left -= 1
            name = f"tune-{self.left}"
            async with self.search:  # one at a time, as Tune asks; a process of its own in truth
                start = time.perf_counter()
                proposal = await asyncio.to_thread(self.searcher.suggest, name)
                self.proposals.append((self.ended, time.perf_counter() - start))
            await self.broker.offer(proposal["trial_id"], proposal["hyperparameters"])
            if len(self.proposals) >= self.concurrent:
                self.full.set()
            outcome = None
            while outcome is None:
                outcome = await self.broker.outcome(proposal["trial_id"], 30.0)
            async with self.search:
                self.searcher.on_trial_complete(name, outcome)
            self.ended += 1

    async def _slot(self, slot: str) -> None:
        rng = np.random.default_rng(int(slot.removeprefix("slot-")))
        await self.full.wait()  # all train at once from the start
        while (answer := await self.broker.take(slot, 45.0))["kind"] != "close":
            if answer["kind"] == "wait":
                continue
            job, go_on = answer["trial"], True
            epoch = job["epoch"]
            while go_on:
                await asyncio.sleep(EPOCH_S * (0.5 + rng.random()))
                epoch += 1
                go_on = await self.broker.report(slot, self.training.row(job, epoch))
                self.reports.append(time.perf_counter() - self.begun)
                if len(self.reports) % 1000 == 1:
                    self.memory.append((len(self.reports), resident_mb()))


def resident_mb() -> float:
    """Of this process, now."""
    return psutil.Process().memory_info().rss / 1e6


def proposing(config: Config, *, known: int, pending: int, times: int) -> list[float]:
    """CPU seconds of each of `times` proposals with `known` ended and `pending` running trials."""
    searcher, training = search.RecordsSearcher(config), Training(config)
    plain, searcher.study.sampler = searcher.study.sampler, UniformSampler(config)
    for number in range(known + pending):  # drawn without a model: that would take long
        hyperparameters = searcher.suggest(str(number))["hyperparameters"]
        if number < known:
            job = {"trial_id": f"t{number:04d}", "attempt": 1, "hyperparameters": hyperparameters}
            row = training.row(job, config.train.epochs)
            searcher.on_trial_complete(str(number), {"status": "finished"} | row["selected"])
    assert isinstance(plain, FrontSampler)
    searcher.study.sampler, found = plain, []
    for number in range(times):
        plain.number, start = searcher.next_number, time.process_time()
        searcher.suggest(f"more-{number}")
        found.append(time.process_time() - start)
    return found
