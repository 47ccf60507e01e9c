"""Configurations trained in the same passes are, each of them, what they are alone.

On the random backbone and 60 tones, in float64: each member's rows, adapter and predictions equal
those of its solo run to rounding.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_run
import torch
from safetensors.torch import load_file
from tiny_run import Trained, job

from ermgap import config
from ermgap.distributed import World
from ermgap.records import Storage
from ermgap.training.context import Material
from ermgap.training.trainer import train

KINDS = {
    "erm": {"objective.loss": "erm", "train.lr": 3e-3},
    "wide": {"adapter.r": 7, "adapter.alpha": 5, "adapter.dropout": 0.4, "train.clip_norm": 0.1},
    "adaptive": {
        "objective.schedule": "adaptive",
        "objective.eta": 20.0,
        "adapter.dropout": 0.0,
        "train.weight_decay": 0.5,
    },
    "early": {"train.patience": 1, "train.lr": 1e-4, "adapter.r": 1},
}
SHARED = {
    "one pass": {},
    "several passes": {"train.micro_batch": 4},
    "answer loss, all targets": {
        "objective.loss_over": "answer",
        "adapter.targets": ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"],
    },
    "frozen projector, recomputed": {
        "adapter.train_projector": False,
        "adapter.targets": ["o_proj", "down_proj", "k_proj"],
        "train.recompute": True,
    },
}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    speech = tiny_run.speech("float64")
    table = tiny_run.tones(tmp_path_factory.mktemp("tones"))
    splits = tiny_run.splits(table, speech, cache=tmp_path_factory.mktemp("features"))
    return speech, Material(*splits, Storage.at(""))


class Ganged:
    """A gang to its end: rows and failures by trial."""

    def __init__(self, room, jobs, storage: Path, *, until: int | None = None) -> None:
        speech, material = room
        self.rows, self.failures = {one.trial_id: [] for one in jobs}, {}

        def report(row: dict) -> bool:
            self.rows[row["trial_id"]].append(json.loads(json.dumps(row)))
            return row["epoch"] != until

        def failed(one, reason: str) -> None:
            self.failures[one.trial_id] = reason

        material = dataclasses.replace(material, storage=Storage.at(storage))
        train(jobs, speech=speech, material=material, world=World(), report=report, failed=failed)


def gang_of(changes: dict[str, dict], *, epoch: int = 0):
    return [
        dataclasses.replace(job(one, epoch=epoch), trial_id=name) for name, one in changes.items()
    ]


def adapter(storage: Path, trial: str) -> dict[str, torch.Tensor]:
    return load_file(storage / "adapters" / trial / "adapter_model.safetensors")


def assert_like_solo(room, tmp_path, ganged: Ganged, name: str, changes: dict) -> None:
    alone = dataclasses.replace(job(changes), trial_id=name)
    solo = Trained(room, alone, tmp_path / f"solo-{name}")
    rows = ganged.rows[name]
    assert len(rows) == len(solo.rows) and rows[-1]["last"] == solo.rows[-1]["last"]
    for mine, alone in zip(rows, solo.rows, strict=True):
        for key in ("objective", "train_loss", "lambda", "lambda_next"):
            assert mine[key] == pytest.approx(alone[key], rel=1e-9)
        assert mine["losses"] == pytest.approx(alone["losses"], rel=1e-9)
        assert mine["dev"]["acc"] == alone["dev"]["acc"]
        assert mine["selected"]["epoch"] == alone["selected"]["epoch"]
    mine, alone = adapter(tmp_path / "gang", name), adapter(tmp_path / f"solo-{name}", name)
    assert mine.keys() == alone.keys()
    for key in mine:
        assert mine[key].shape == alone[key].shape, "padding was written"
        error = (mine[key] - alone[key]).abs().max()
        assert float(error) <= 1e-9 * float(alone[key].abs().max().clamp(min=1e-3)), key
    assert max(float(value.abs().max()) for value in mine.values()) > 0.1


@pytest.mark.parametrize("kind", SHARED)
def test_each_member_is_trained_as_if_it_were_alone(room, tmp_path, kind):
    changes = {name: SHARED[kind] | own for name, own in KINDS.items()}
    ganged = Ganged(room, gang_of(changes), tmp_path / "gang")
    assert {row["gang"] for row in ganged.rows["erm"]} > {4}, "the gang never shrank"
    for name, own in changes.items():
        assert_like_solo(room, tmp_path, ganged, name, own)


def test_a_member_that_fails_leaves_the_others_as_they_are(room, tmp_path):
    changes = {"bad": {"train.lr": 1e30}, "good": {}, "late": KINDS["wide"]}
    ganged = Ganged(room, gang_of(changes), tmp_path / "gang")
    assert set(ganged.failures) == {"bad"} and not ganged.rows["bad"]
    assert "not finite in epoch 1" in ganged.failures["bad"]
    for name in ("good", "late"):
        assert_like_solo(room, tmp_path, ganged, name, changes[name])


def test_a_gang_goes_on_from_its_checkpoints_and_from_some_of_them(room, tmp_path):
    changes = {name: KINDS[name] for name in ("erm", "wide", "adaptive")}
    first = Ganged(room, gang_of(changes), tmp_path / "gang", until=2)
    left = {name: changes[name] for name in ("wide", "adaptive")}
    second = Ganged(room, gang_of(left, epoch=2), tmp_path / "gang")
    for name in left:
        first.rows[name] += second.rows[name]
        assert_like_solo(room, tmp_path, first, name, changes[name])


def test_a_missing_checkpoint_fails_its_member_alone(room, tmp_path):
    changes = {name: KINDS[name] for name in ("erm", "wide")}
    Ganged(room, gang_of(changes), tmp_path / "gang", until=2)
    (tmp_path / "gang" / "checkpoints" / "erm" / "epoch-0002.pt").unlink()
    ganged = Ganged(room, gang_of(changes, epoch=2), tmp_path / "gang")
    assert "epoch-0002.pt is missing" in ganged.failures["erm"]
    assert [row["epoch"] for row in ganged.rows["wide"]] == [3, 4]


def test_companions_may_differ_in_what_is_their_own_and_in_nothing_else():
    plain = config.Config()
    for changes in KINDS.values():
        assert config.companions(plain, plain.replace(changes))
    for key, value in {
        "train.batch": 16,
        "train.seed": 1,
        "train.epochs": 3,
        "adapter.targets": ["q_proj"],
        "objective.loss_over": "answer",
        "backbone.layers": 3,
        "data.fold": 1,
    }.items():
        assert not config.companions(plain, plain.replace({key: value})), key
