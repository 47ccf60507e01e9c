"""A broker on a folder of its own, and rows as a worker reports them, for the tests of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import optuna
import pandas as pd

from ermgap.config import Config
from ermgap.records import Records
from sweeps.scheduler.broker import Broker

ERM = {"loss": "erm", "lr": 0.003}
FAIR = {"loss": "minmaxgap", "schedule": "linear", "lambda_max": 0.1, "lr": 0.001}
SOON = 0.02


def create(folder: Path, *, ranges: dict | None = None, **sweep) -> Path:
    config = Config().replace({f"sweep.{key}": value for key, value in sweep.items()})
    described = {"config": config.to_dict(), "labels": ["a", "b"], "trials": 10, "n_dev": 8}
    described |= {"objectives": ["acc", "max_gap"], "directions": {"acc": "max", "max_gap": "min"}}
    described |= {"reference_point": {"acc": 0.2, "max_gap": 0.3}, "majority_rate": 0.2}
    described |= {"space": ranges or {}}
    values = {"utterance_id": "u", "corpus": "c", "speaker": "s", "split": "dev"}
    table = pd.DataFrame([values])
    Records.create(folder, sweep=described, table=table)
    return folder


def on(folder: Path, story) -> None:
    """Run `story(broker)` to its end; a story that hangs fails."""

    async def play() -> None:
        await asyncio.wait_for(story(Broker(str(folder))), 60)

    asyncio.run(play())


async def take(broker: Broker, slot: str, timeout: float = SOON) -> dict:
    """The trial that a slot is handed, or the answer that there is none."""
    answer = await broker.take(slot, timeout)
    return answer.get("trial", answer)


def row(
    job: dict,
    epoch: int,
    *,
    last: bool = False,
    acc: float = 0.5,
    w_f1: float = 0.5,
    max_gap: float = 0.1,
) -> dict:
    """What a worker reports of an epoch (ermgap/training/trainer.py)."""
    scores = {"acc": acc, "w_f1": w_f1, "max_gap": max_gap, "worst_group_w_f1": 0.3}
    scores |= {"max_loss_gap": 0.2}
    dev = scores | {"majority_rate": 0.2, "gaps": {}}
    told = {key: job[key] for key in ("trial_id", "attempt")} | {"config": job["hyperparameters"]}
    told |= {"epoch": epoch, "last": last, "selected": {"epoch": epoch} | scores, "dev": dev}
    told |= {"lambda": 0.0, "train_loss": 1.0, "losses": {}, "utterances_per_second": 1.0}
    return told | {"peak_memory_mb": 1.0, "time": time.time()}


def rows(folder: Path) -> list[dict]:
    return Records.open(folder).rows()


def trial(folder: Path, trial_id: str):
    return next(t for t in Records.open(folder).trials() if t.trial_id == trial_id)


def study(folder: Path) -> optuna.Study:
    """The study in the sweep's journal, as optuna-dashboard reads it."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
    storage = optuna.storages.JournalStorage(backend)
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage)


def states(folder: Path) -> dict[str, str]:
    """Optuna's state of each trial in the journal, by our id."""
    return {t.user_attrs["trial_id"]: t.state.name for t in study(folder).get_trials()}
