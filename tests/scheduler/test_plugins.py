"""A loss, a weight schedule and a corpus from a plugin file, through `sweeps/train.py`.

Every path is relative to the working directory, which is not that of Ray's workers: the plugin's,
the corpus's, the prompt's and the backbone's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from real_sweep import ROOT, RealSweep, rows_of

from ermgap.model import prompts
from ermgap.model.backbones import random_tiny

EPOCHS = 3
LAMBDA = 4.0
LABELS = ("anger", "joy")
SETTINGS = (
    "plugins=[additions.py]",
    "backbone.name=qwen2-audio-7b",  # whatever model lies in the folder
    "backbone.path=model",
    "backbone.prompt=words/mine.yaml",
    f"train.epochs={EPOCHS}",
    "objective.loss=worst_group",
    "objective.schedule=square",
    f"objective.lambda_max={LAMBDA}",
    f"data.labels=[{','.join(LABELS)}]",
    "train.batch=64",  # one step an epoch, so that a row's losses make up its objective
    "train.patience=9",
)


def write_clips(folder: Path) -> set[str]:
    """Noise under the names that the plugin's loader reads; returns their stems."""
    folder.mkdir()
    random, names = np.random.default_rng(0), set()
    for language in ("de", "en"):
        for gender in ("female", "male"):
            for speaker in ("a", "b", "c", "d"):
                for number, emotion in enumerate(LABELS * 2):
                    name = f"{language}_{gender}_{emotion}_{speaker}_{number}"
                    soundfile.write(folder / f"{name}.wav", 0.1 * random.normal(size=8000), 16000)
                    names.add(name)
    return names


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RealSweep:
    folder = tmp_path_factory.mktemp("plugins")
    clips = write_clips(folder / "clips")
    shutil.copy(ROOT / "tests" / "plugins" / "additions.py", folder)
    random_tiny.save(folder / "model", layers=2, window_s=2)
    (folder / "words").mkdir()
    text = {"mine": prompts.PROMPTS["short"]}
    (folder / "words" / "mine.yaml").write_text(yaml.safe_dump({"prompts": text}))
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    arguments = ["--smoke-test", "--data", "named=clips", "--out", "out", *settings]
    with RealSweep(folder, "train.py", *arguments) as sweep:
        sweep.status = sweep.ends()
        sweep.clips = clips
    return sweep


def test_the_run_ends_well_with_one_trial(run: RealSweep) -> None:
    assert run.status == 0, run.said
    assert (run.out / "DONE").exists()
    assert {row["trial_id"] for row in run.rows()} == {"t0000"}
    assert [row["epoch"] for row in rows_of(run.rows(), "t0000")] == list(range(1, EPOCHS + 1))


def test_the_corpus_of_the_plugin_is_what_was_trained_on(run: RealSweep) -> None:
    table = pd.read_parquet(run.out / "table.parquet")
    assert set(table["utterance_id"]) <= {f"named/{name}" for name in run.clips}
    assert set(table["corpus"]) == {"named"} and len(table) == 48
    predicted = pd.read_parquet(run.out / "predictions" / "t0000.parquet")
    assert set(predicted["utterance_id"]) == set(table.loc[table["split"] == "dev", "utterance_id"])


def test_the_weight_follows_the_schedule_of_the_plugin(run: RealSweep) -> None:
    weights = [row["lambda"] for row in rows_of(run.rows(), "t0000")]
    expected = [LAMBDA * (epoch / EPOCHS) ** 2 for epoch in range(EPOCHS)]
    assert weights == pytest.approx(expected, rel=1e-12)


def test_the_objective_is_the_loss_of_the_plugin(run: RealSweep) -> None:
    for row in rows_of(run.rows(), "t0000"):
        expected = (1 + row["lambda"]) * max(row["losses"].values())
        assert row["objective"] == pytest.approx(expected, rel=1e-12)
        assert row["objective"] > row["train_loss"]
