"""A run is a function of its configuration: resumed or repeated, it gives the same bits.

On the random backbone and 60 tones, in one process, without Ray.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_run
import torch
from tiny_run import Trained, job

from ermgap import metrics
from ermgap.distributed import World
from ermgap.records import Storage
from ermgap.training import checkpoint, trainer, trial_state
from ermgap.training.context import TrainingContext
from ermgap.training.evaluation import label_log_probabilities
from ermgap.training.gradients import learning_rate


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tiny_run.tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def room(table, cache):
    """The backbone in float32 and what a sweep shares, without a storage."""
    speech = tiny_run.speech("float32")
    return speech, TrainingContext(*tiny_run.splits(table, speech, cache=cache), Storage(""))


# The same run -------------------------------------------------------------------------------------

KINDS = {
    "adaptive weight, several passes": {
        "objective.schedule": "adaptive",
        "objective.lambda_0": 0.1,
        "objective.eta": 20.0,
        "objective.every": 2,
        "train.micro_batch": 4,
    },
    "linear weight, answer loss": {"objective.schedule": "linear", "objective.loss_over": "answer"},
    "early stopping": {"train.patience": 2, "train.lr": 1e-4, "train.epochs": 6},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(room, tmp_path, kind):
    def snapshot(row: dict) -> None:
        shutil.copytree(tmp_path / "whole", tmp_path / str(row["epoch"]))

    whole = Trained(room, job(KINDS[kind]), tmp_path / "whole", committed=snapshot)
    assert len(whole.rows) >= 3 and whole.rows[-1]["last"]
    if kind == "early stopping":
        assert len(whole.rows) < 6, "it did not stop early"
    for epoch in range(1, len(whole.rows)):
        other = {"adapter.r": 2, "train.epochs": 1, "train.batch": 36, "train.seed": epoch}
        Trained(room, job(other), tmp_path / f"other-{epoch}")
        resumed = Trained(room, job(KINDS[kind], epoch=epoch), tmp_path / str(epoch))
        assert resumed.results == whole.results[epoch:]
        assert resumed.files == whole.files


def test_in_bfloat16_a_resumed_run_is_bit_equal_too(table, cache, tmp_path):
    speech = tiny_run.speech("bfloat16")
    room = speech, TrainingContext(*tiny_run.splits(table, speech, cache=cache), Storage(""))
    whole = Trained(room, job(), tmp_path / "whole")
    Trained(room, job(), tmp_path / "parts", until=2)
    resumed = Trained(room, job(epoch=2), tmp_path / "parts")
    assert resumed.results == whole.results[2:] and resumed.files == whole.files


def test_a_configuration_gives_the_same_bits_first_and_fifth(room, tmp_path):
    others = (
        {"adapter.r": 7, "adapter.dropout": 0.5, "train.seed": 3},
        {"objective.loss": "erm", "adapter.train_projector": False},
        {"adapter.targets": ["gate_proj"], "objective.loss_over": "answer"},
        {"train.lr": 1e30},  # fails
    )
    first = Trained(room, job(), tmp_path / "first")
    for number, changes in enumerate(others):
        Trained(room, job({"train.epochs": 1} | changes), tmp_path / str(number))
    fifth = Trained(room, job(), tmp_path / "fifth")
    assert len(first.rows) == 4 and fifth.results == first.results
    assert fifth.files == first.files
    other = Trained(room, job({"train.seed": 1}), tmp_path / "seed")
    assert other.results != first.results and other.files["adapter"] != first.files["adapter"]


def test_a_row_has_the_first_the_mean_and_the_next_fairness_weight_of_a_rising_schedule(
    room, tmp_path
):
    changes = {
        "objective.schedule": "linear",
        "objective.lambda_max": 2.0,
        "objective.ramp": 1.0,
        "train.epochs": 2,
    }
    run = Trained(room, job(changes), tmp_path)
    steps = -(-len(room[1].train) // run.job.config.train.batch)
    assert steps > 1
    for epoch, row in enumerate(run.rows):
        at = [2.0 * (epoch * steps + step) / (2 * steps) for step in range(steps + 1)]
        assert row["lambda"] == pytest.approx(at[0])
        assert row["lambda_mean"] == pytest.approx(np.mean(at[:-1]))
        assert row["lambda_next"] == pytest.approx(at[-1])


def test_training_lowers_the_loss_and_the_weight_follows_the_dev_gap(room, tmp_path):
    changes = {
        "objective.schedule": "adaptive",
        "objective.eta": 4.0,
        "objective.epsilon": 0.1,
        "train.epochs": 6,
        "train.lr": 3e-3,
    }
    run = Trained(room, job(changes), tmp_path)
    assert run.rows[-1]["train_loss"] < 0.6 * run.rows[0]["train_loss"]
    weights = [0.0]
    for row in run.rows:
        assert row["lambda"] == pytest.approx(weights[-1])
        weights.append(float(np.clip(weights[-1] + 4.0 * (row["dev"]["max_gap"] - 0.1), 0, 5)))
        assert row["lambda_next"] == pytest.approx(weights[-1])
    assert len(set(weights)) > 2, "the gap never left its bounds"
    assert set(run.rows[0]["losses"]) == {
        f"{language}/speech/{gender}" for language in ("de", "en") for gender in ("female", "male")
    }
    groups = list(run.rows[0]["losses"].values())  # of equal sizes
    assert np.mean(groups) == pytest.approx(run.rows[0]["train_loss"])


# Selection, stopping ------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch):
    """Dev metrics with these values of W-F1, one an evaluation."""

    evaluate = metrics.evaluate

    def of(*series: float, name: str = "w_f1") -> None:
        left = list(series)
        monkeypatch.setattr(
            trial_state.metrics, "evaluate", lambda *a, **k: evaluate(*a, **k) | {name: left.pop(0)}
        )

    return of


@pytest.mark.parametrize("rule", ["w_f1", "acc"])
def test_the_best_epoch_is_selected_kept_on_disk_and_ends_the_run_by_patience(
    room, tmp_path, scripted, rule
):
    changes = {"train.epochs": 6, "train.select": rule, "train.patience": 3}
    scripted(0.3, 0.5, 0.5, 0.4, 0.2, 0.9, name=rule)
    run = Trained(room, job(changes), tmp_path / "stopped")
    assert [row["selected"]["epoch"] for row in run.rows] == [1, 2, 2, 2, 2]
    assert [row["last"] for row in run.rows] == [False] * 4 + [True]
    assert all(row["selected"][rule] == row["dev"][rule] for row in run.rows[:2])
    scripted(*[0.1] * 6, name="no_metric")
    second = Trained(
        room, job({"train.epochs": 6, "train.select": "last"}), tmp_path / "last", until=2
    )
    assert [row["selected"]["epoch"] for row in second.rows] == [1, 2]
    assert run.files == second.files, "the files are not those of epoch 2"


def test_the_predictions_file_gives_the_selected_epochs_metrics(room, tmp_path):
    run = Trained(room, job({"train.lr": 0.03}), tmp_path)
    scores = [row["dev"]["w_f1"] for row in run.rows]
    best = int(np.argmax(scores))
    assert run.rows[-1]["selected"]["epoch"] == best + 1
    dev = metrics.evaluate(run.predictions, labels=tiny_run.LABELS, min_support=1)
    assert json.dumps(dev) == json.dumps(run.rows[best]["dev"])
    logp = run.predictions.filter(like="logp_")
    assert np.exp(logp.to_numpy(float)).sum(1) == pytest.approx(np.ones(len(logp)), abs=1e-6)
    assert (logp.idxmax(axis=1).str.removeprefix("logp_") == run.predictions["prediction"]).all()
    assert set(run.predictions["split"]) == {"dev"} and len(run.predictions) == 24


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [({"train.keep_epochs": True}, [1, 2, 3, 4]), ({"sweep.stop_after": 1}, [1, 3]), ({}, [])],
)
def test_predictions_of_the_rungs_or_of_every_epoch_are_kept(room, tmp_path, changes, epochs):
    run = Trained(room, job(changes), tmp_path)
    path = next((tmp_path / "predictions").glob("*.rungs.parquet"), None)
    assert (path is None) == (epochs == [])
    if path is None:
        return
    for after in (None, 2):  # again, from the second epoch: nothing of later ones is left twice
        if after:
            Trained(room, job(changes, epoch=after), tmp_path)
        kept = pd.read_parquet(path)
        assert list(dict.fromkeys(kept["epoch"])) == epochs and len(kept) == 24 * len(epochs)
        for epoch, part in kept.groupby("epoch"):
            dev = metrics.evaluate(part, labels=tiny_run.LABELS, min_support=1)
            assert json.dumps(dev) == json.dumps(run.rows[epoch - 1]["dev"])


def test_dev_scores_know_no_dropout_and_no_batches(room, tmp_path):
    speech, context = room
    Trained(room, job({"adapter.dropout": 0.5, "train.epochs": 1}), tmp_path)
    found = []
    for batch in (1, 5, 64, 64):
        speech.training = True
        found.append(label_log_probabilities(speech, context.dev, world=World(), batch=batch)[0])
    assert np.array_equal(found[2], found[3])
    assert np.abs(found[0] - found[2]).max() < 1e-5 > np.abs(found[1] - found[2]).max()
    saved = Trained.at(tmp_path).predictions.filter(like="logp_").to_numpy()
    assert np.abs(saved - found[2]).max() < 1e-5


def test_a_run_that_is_told_to_stop_stops_and_can_go_on(room, tmp_path):
    run = Trained(room, job(), tmp_path, until=2)
    assert [(row["epoch"], row["last"]) for row in run.rows] == [(1, False), (2, False)]
    assert [row["epoch"] for row in Trained(room, job(epoch=2), tmp_path).rows] == [3, 4]
    assert not Trained(room, job(epoch=4), tmp_path).rows, "a finished run has nothing to do"


def test_a_heartbeat_comes_at_every_step(room, tmp_path):
    ticks = []
    Trained(room, job({"train.epochs": 2}), tmp_path, tick=lambda: ticks.append(1))
    assert len(ticks) >= 2 * (36 // 9 + 1)


# Failure ------------------------------------------------------------------------------------------


def test_a_learning_rate_far_too_large_fails_the_run_with_its_reason_and_no_row(room, tmp_path):
    run = Trained(room, job({"train.lr": 1e30}), tmp_path)
    assert "not finite in epoch 1" in run.failure and "learning rate" in run.failure
    assert not run.rows and not list(tmp_path.rglob("*.p*"))


def test_weights_ruined_by_the_last_step_are_noticed_on_dev(room, tmp_path):
    run = Trained(room, job({"train.lr": 1e30, "train.epochs": 1, "train.batch": 36}), tmp_path)
    assert "a dev score is not finite" in run.failure and not run.rows


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_one_number_that_is_not_finite_fails_the_run_and_keeps_what_was_committed(
    room, tmp_path, monkeypatch, what
):
    steps, exact = [], trainer.accumulate_gradients

    def broken(speech, *arguments, **named):
        sums, value, raised = exact(speech, *arguments, **named)
        steps.append(value)
        if len(steps) == 8:  # the last of epoch 2, so that no later one can show it
            value = value * math.nan if what == "loss" else value
            if what == "gradient":
                speech.trainable()[0][1].grad[0] = math.inf
        return sums, value, raised

    monkeypatch.setattr(trainer, "accumulate_gradients", broken)
    run = Trained(room, job(), tmp_path / "broken")
    assert run.failure.startswith("the objective is not finite in epoch 2")
    monkeypatch.undo()
    good = Trained(room, job(), tmp_path / "good", until=1)
    assert run.results == good.results and run.files == good.files


def test_a_gap_that_no_cell_defines_fails_the_run_with_its_reason(table, room, tmp_path):
    speech, context = room
    lonely = (table["split"] == "train") | (
        (table["gender"] == "female") == (table["language"] == "de")
    )
    train_, dev, cells = tiny_run.splits(table[lonely], speech, cache=tmp_path / "features")
    run = Trained(
        (speech, TrainingContext(train_, dev, cells, Storage(""))), job(), tmp_path / "run"
    )
    assert "no cell has utterances of two sides of gender" in run.failure and not run.rows


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("truncated", "epoch-0001.pt is damaged"),
        ("foreign", "epoch-0001.pt is damaged"),
        ("missing", "epoch-0001.pt is missing"),
        ("other configuration", "other parameters"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_fails_the_run_with_its_reason(
    room, tmp_path, damage, reason
):
    Trained(room, job(), tmp_path, until=1)
    path = tmp_path / checkpoint.name_of("t0000", 1)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "foreign":
        torch.save({"epoch": 1, "path": Path("code")}, path)  # needs code to be read
    elif damage == "missing":
        path.unlink()
    changes = {"adapter.r": 4} if damage == "other configuration" else {}
    run = Trained(room, job(changes, epoch=1), tmp_path)
    assert reason in run.failure and not run.rows
    told = []  # with somebody to tell, what is lost is no failure; another configuration's is
    run = Trained(
        room,
        job(changes, epoch=1),
        tmp_path,
        checkpoint_lost=lambda one, why: told.append((one.epoch, why)),
    )
    lost = damage != "other configuration"
    assert not run.rows and (run.failure is None) == lost
    assert [epoch for epoch, _ in told] == [1] * lost and all(reason in why for _, why in told)


def test_the_last_two_checkpoints_are_kept_whatever_an_attempt_before_left(tmp_path):
    store = Storage(tmp_path)
    for epoch in (1, 2, 3, 4):
        checkpoint.save(store, "t", epoch, {"epoch": epoch})
    names = {path.name for path in (tmp_path / "checkpoints" / "t").iterdir()}
    assert names == {"epoch-0003.pt", "epoch-0004.pt"}
    for epoch in (1, 2):
        checkpoint.save(store, "t", epoch, {"epoch": epoch})
        assert checkpoint.load(store, "t", epoch) == {"epoch": epoch}
    assert checkpoint.load(store, "t", 1) == {"epoch": 1}


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing():
    rates = [learning_rate(step, 40, peak=2.0, warmup=0.25) for step in range(40)]
    assert rates[:11] == pytest.approx(np.linspace(0, 2, 12)[1:])
    assert rates[10:] == pytest.approx(1 + np.cos(np.pi * np.arange(30) / 30))
    assert learning_rate(0, 40, peak=2.0, warmup=0.0) == 2.0
