"""A benchmark whose training and systems are made up, so that what surrounds them is quick to test.

    made = Fakes(tmp_path, monkeypatch)
    assert made.run("--folds", "3", "--models", "erm", "echo") == 0
    other = made.copied(tmp_path / "other", monkeypatch)        # to break, and to resume

The corpus is real, and so is everything in `sweeps/` but `driver.run` and `evaluation.on_workers`,
which answer for the slots and for the evaluators.
"""

from __future__ import annotations

import gc
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ermgap.baselines import SYSTEMS, Context, System, predictions_table
from ermgap.baselines.answers import FAILED
from sweeps import benchmark
from sweeps.recording.timing import Session
from sweeps.scheduler import driver, evaluation, evaluator
from sweeps.scoring import tables

LABELS = ("anger", "joy", "sadness")
# The two German women are held out in three folds: one of them twice.
SPEAKERS = {("de", "female"): 2, ("de", "male"): 4, ("en", "female"): 3, ("en", "male"): 5}
RIGHT = {"erm": 0.9, "reweight": 0.7, "groupdro": 0.5, "echo": 0.6}  # no two rows are alike


def corpus(folder: Path, *, splits: bool = False) -> Path:
    """Noise under a manifest, 6 clips a speaker; `splits`: with train, dev and test in it."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), ["path,language,emotion,gender,speaker,split"]
    for (language, gender), count in SPEAKERS.items():
        for number in range(count):
            split = ("train", "dev")[number] if number < 2 else "test"
            for clip, label in enumerate(LABELS * 2):
                name = f"{language}-{gender}-{number}-{clip}.wav"
                soundfile.write(folder / name, rng.normal(0, 0.1, 4000), 16000)
                person = f"{language}-{gender}-{number}"
                rows.append(f"{name},{language},{label},{gender},{person},{split * splits}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def guesses(ids: pd.Series, labels: pd.Series, *, name: str) -> list[str]:
    """An answer per utterance, the same whenever and wherever the row `name` is asked."""
    made = []
    for utterance, label in zip(ids, labels, strict=True):
        rng = np.random.default_rng(zlib.crc32(f"{name} {utterance}".encode()))
        made.append(label if rng.random() < RIGHT[name] else str(rng.choice(LABELS)))
    return made


class Fakes:
    """Stands for training and systems within one test.

    Attributes:
        trained: (fold, names) of every call for training, in order.
        asked: (name, utterance ids) of every system's answers, in order.
        predictions: by name, those that came to the last table.
        stop: fold in which Ctrl-C comes after the first of its rows; None: never.
        failed: names of rows whose training fails. missing: how many answers of `echo` fail.
    """

    def __init__(
        self,
        folder: Path,
        patch: pytest.MonkeyPatch,
        *,
        splits: bool = False,
        voices: Path | None = None,
    ) -> None:
        self.out = folder / "out"
        self.corpus = voices or corpus(folder / "voices", splits=splits)
        self.trained: list[tuple[int, list[str]]] = []
        self.asked: list[tuple[str, list[str]]] = []
        self.predictions: dict[str, pd.DataFrame] = {}
        self.stop: int | None = None
        self.failed: tuple[str, ...] = ()
        self.missing = 0
        write = tables.write
        patch.setattr(tables, "write", lambda rows, **more: (self._see(rows), write(rows, **more)))
        patch.setattr(driver, "begin", lambda address: None)
        patch.setattr(driver, "make_ready", lambda *given, **more: None)
        patch.setattr(driver, "run", self._train)
        patch.setattr(evaluation, "require", lambda config, address: None)
        patch.setattr(evaluation, "on_workers", here)
        patch.setitem(SYSTEMS, "echo", lambda argument, context: Fake("echo", self))
        patch.setitem(SYSTEMS, "adapter", self._adapter)

    def arguments(self, *more: str) -> list[str]:
        """Of the command, over the corpus."""
        labels = f"data.labels=[{','.join(LABELS)}]"
        fixed = ["--smoke-test", "--data", f"manifest={self.corpus}", "--set", labels]
        return [*fixed, "--set", "data.limit=null", "--out", str(self.out), *more]

    def copied(self, folder: Path, patch: pytest.MonkeyPatch) -> Fakes:
        """Others with a copy of what this one wrote, over the same corpus."""
        made = Fakes(folder, patch, voices=self.corpus)
        shutil.copytree(self.out, made.out)
        return made

    def run(self, *more: str) -> int:
        """A benchmark, begun."""
        self.forget()
        return benchmark.main(self.arguments(*more))

    def resume(self) -> int:
        """It goes on; what was trained and asked before is forgotten."""
        self.forget()
        return benchmark.main(["--resume", str(self.out)])

    def forget(self) -> None:
        """Count from now on."""
        gc.collect()  # the command's imports leave its frame in a cycle, and the lock with it
        self.trained, self.asked, self.predictions = [], [], {}

    def written(self) -> dict[str, bytes]:
        """The table's files."""
        return {path.name: path.read_bytes() for path in sorted(self.out.glob("benchmark.*"))}

    def _see(self, predictions) -> None:
        self.predictions = dict(predictions)

    def _train(self, config, records, *, address, leave) -> Session:
        fold, points = config.data.fold, enumerate(config.sweep.points)
        ended = {trial.trial_id for trial in records.trials() if trial.ended}
        untrained = [(i, name) for i, name in points if f"t{i:04d}" not in ended]
        self.trained.append((fold, [name for _, name in untrained]))
        stopped = fold == self.stop
        # Backwards: slots begin several at a time, so that rows come in any order.
        for number, name in untrained[::-1][: 1 if stopped else None]:
            self._end(records, f"t{number:04d}", name)
        return Session(begun=0.0, rows=0, interrupted=stopped)

    def _end(self, records, trial_id: str, name: str) -> None:
        row = {"trial_id": trial_id, "attempt": 1, "epoch": 1, "config": {}, "selected": {}}
        if name in self.failed:
            records.append(row | {"status": "failed", "reason": "it was not finite"})
            return
        table = records.table()
        dev = table[table["split"] == "dev"]
        made = answers(dev, modality="speech", name=name)
        path = records.storage / "predictions" / f"{trial_id}.parquet"
        path.parent.mkdir(exist_ok=True)
        made.to_parquet(path, index=False)
        # As `adapter=` reads it: whose adapter this is.
        (records.storage / "adapters" / trial_id).mkdir(parents=True)
        (records.storage / "adapters" / trial_id / "name").write_text(name)
        records.append(row | {"status": "finished"})

    def _adapter(self, argument, context) -> Fake:
        return Fake((Path(argument) / "name").read_text(), self)


class Fake(System):
    """Answers as `guesses`, and is counted."""

    def __init__(self, name: str, fakes: Fakes) -> None:
        self.name, self.row, self.fakes = name, name, fakes

    def predict(self, utterances, *, modality, note=lambda text: None) -> pd.DataFrame:
        self.fakes.asked.append((self.row, list(utterances["utterance_id"])))
        made = answers(utterances, modality=modality, name=self.row)
        if self.row == "echo":
            made.loc[made.index < self.fakes.missing, "prediction"] = FAILED
        return made


def here(requests, *, config, features, address, folder, done) -> None:
    """Stands for the workers: the systems are asked in this process."""
    context = Context(config.data.labels, config, "cpu", folder)
    for request in requests:
        options = {"context": context, "name": request.name, "note": print}
        done(request, evaluator.ask(request.spec, request.utterances, **options))


def answers(utterances: pd.DataFrame, *, modality: str, name: str) -> pd.DataFrame:
    """A predictions table of one row of the benchmark."""
    said = guesses(utterances["utterance_id"], utterances["emotion"], name=name)
    return predictions_table(utterances, modality=modality, prediction=said, labels=LABELS)
