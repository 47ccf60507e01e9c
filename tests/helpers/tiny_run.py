"""The random backbone and a corpus of tones: what tests of the model and of the loop run on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

from ermgap import config
from ermgap.distributed import World
from ermgap.model import prompts, qwen2_audio
from ermgap.model.batches import IndexedUtterances, cells_of
from ermgap.model.features import store as features
from ermgap.records import Storage
from ermgap.training import model_card
from ermgap.training.trainer import TrialSpec, train

WINDOW_S = 2
LABELS = ("anger", "joy", "bored")  # the last has several tokens: it is no word of random-tiny
PITCH_HZ = {"anger": 300.0, "joy": 520.0, "bored": 900.0}


def tones(folder: Path, *, train: int = 3, dev: int = 2, seed: int = 0) -> pd.DataFrame:
    """A table with so many noisy tones per language, gender and label; the label sets the pitch."""
    random, rows = np.random.default_rng(seed), []
    for language in ("de", "en"):
        for gender in ("female", "male"):
            for label in LABELS:
                for i in range(train + dev):
                    split = "train" if i < train else "dev"
                    rows.append((language, gender, label, split, len(rows)))
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for language, gender, label, split, number in rows:
        length = random.uniform(0.2, 1.2)
        path = folder / f"{number:03d}.wav"
        time = np.arange(int(16000 * length)) / 16000
        pitch = PITCH_HZ[label] * (1.2 if gender == "female" else 1.0)
        noise = random.normal(size=len(time)) * (0.3 if gender == "female" else 0.02)
        soundfile.write(path, 0.2 * np.sin(2 * np.pi * pitch * time) + 0.1 * noise, 16000)
        made.append(
            {
                "utterance_id": f"tones/{number:03d}",
                "corpus": "tones",
                "language": language,
                "gender": gender,
                "emotion": label,
                "speaker": f"{language}-{gender}-{split}",
                "group": f"{language}-{gender}-{split}",
                "split": split,
                "path": str(path),
                "start_s": 0.0,
                "end_s": len(time) / 16000,
                "transcript": "",
                "synthetic": True,
            }
        )
    return pd.DataFrame(made)


def speech(dtype: str = "float32", *, labels=LABELS, name: str = "random-tiny", **changes):
    """The backbone on the CPU, without an adapter."""
    settings = config.Backbone(name=name, window_s=WINDOW_S, dtype=dtype, **changes)
    return qwen2_audio.load(settings, labels=labels, device=torch.device("cpu"))


def splits(table: pd.DataFrame, model, *, cache: Path):
    """The utterances of train and dev, and their cells, with features extracted into `cache`."""
    store = features.ensure(
        table,
        model.model,
        model.extractor,
        revision="tests",
        window_s=WINDOW_S,
        dtype=str(model.dtype).removeprefix("torch."),
        device="cpu",
        cache=cache,
    )
    cells = cells_of(table, ["speech"])
    made = [
        IndexedUtterances(
            table[table["split"] == split],
            store=store,
            prompt=model.prompt,
            labels=LABELS,
            cells=cells,
        )
        for split in ("train", "dev")
    ]
    return *made, cells


def in_processes(work, size: int, *arguments) -> None:
    """Run `work(rank, size, *arguments)` in `size` processes; raises what one of them raises.

    They are forked from a server that has imported everything: six workers take seconds otherwise.
    """
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["pandas", "pytest", "transformers.models.qwen2_audio.modeling_qwen2_audio"]
    )
    torch.multiprocessing.start_processes(
        work, (size, *arguments), nprocs=size, start_method="forkserver"
    )


CLOCK = ("seconds", "train_seconds", "eval_seconds", "utterances_per_second")
CLOCK += ("peak_memory_mb", "time", "attempt")
BASE = {
    "data.labels": list(LABELS),
    "data.min_support": 1,
    "adapter.r": 3,
    "objective.loss": "minmaxgap",
    "objective.lambda_max": 5.0,
    "train.epochs": 4,
    "train.batch": 9,
    "train.lr": 1e-2,
}


def job(
    changes: dict | None = None, *, epoch: int = 0, trial_id: str = "t0000", **more
) -> TrialSpec:
    """`BASE` with changes by dotted key, from a committed epoch."""
    settings = config.Config().replace(BASE | (changes or {}))
    return TrialSpec(trial_id, settings, epoch=epoch, attempt=2 if epoch else 1, **more)


class Trained:
    """One run to its end: the rows it committed, why it failed if it did, and its files.

    `room` is the backbone and the training context; `committed` is called with every row.
    """

    def __init__(
        self,
        room,
        job: TrialSpec,
        storage: Path,
        *,
        until: int | None = None,
        world: World | None = None,
        committed: Callable[[dict], None] = lambda row: None,
        tick: Callable[[], None] = lambda: None,
        checkpoint_lost: Callable[[TrialSpec, str], None] | None = None,
    ) -> None:
        speech, context = room
        self.rows, self.storage, self.job, self.failure = [], storage, job, None

        def report(row: dict) -> bool:
            self.rows.append(json.loads(json.dumps(row)))
            committed(row)
            return row["epoch"] != until

        def failed(job: TrialSpec, reason: str) -> None:
            self.failure = reason

        train(
            job,
            speech=speech,
            context=dataclasses.replace(context, storage=Storage(storage)),
            world=world or World(),
            report=report,
            failed=failed,
            checkpoint_lost=checkpoint_lost,
            tick=tick,
        )

    @classmethod
    def at(cls, storage: Path, rows: Sequence[dict] = ()) -> Trained:
        """A run that has ended already, to read its files and, if given, its rows."""
        made = cls.__new__(cls)
        made.rows, made.storage, made.job, made.failure = list(rows), storage, job(), None
        return made

    @property
    def results(self) -> list[str]:
        """Rows without times, as text, so that NaN equals NaN."""
        return [
            json.dumps({k: v for k, v in row.items() if k not in CLOCK}, indent=1)
            for row in self.rows
        ]

    @property
    def files(self) -> dict[str, bytes]:
        """Bytes of the predictions and of the adapter."""
        adapter = self.storage / "adapters" / self.job.trial_id / "adapter_model.safetensors"
        return {"adapter": adapter.read_bytes(), "predictions": self._parquet.read_bytes()}

    @property
    def predictions(self) -> pd.DataFrame:
        return pd.read_parquet(self._parquet)

    @property
    def _parquet(self) -> Path:
        return self.storage / "predictions" / f"{self.job.trial_id}.parquet"


def with_card(run: Trained, one: TrialSpec, table: pd.DataFrame, place: Path) -> Path:
    """Write the model card of a run that ended well; the adapter's folder, whole as a sweep's."""
    assert run.failure is None
    folder, row = place / "adapters" / "t0000", run.rows[-1]
    facts = model_card.CardFacts(
        trial_id="t0000",
        config=one.config,
        utterances=table,
        dev=row["dev"],
        epoch=row["selected"]["epoch"],
        base="",
        prompt=prompts.find(one.config.backbone.prompt),
    )
    model_card.write(folder, facts=facts)
    return folder
