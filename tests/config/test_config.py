"""Configurations: what is written comes back, and every mistake is told by its dotted key."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import yaml

from ermgap import config
from ermgap.config import Config, differing_keys
from ermgap.errors import UserError

PRESETS = sorted((Path(__file__).parents[2] / "sweeps" / "presets").glob("*.yaml"))
SECTIONS = [f.name for f in dataclasses.fields(Config) if f.name != "plugins"]

# Dotted key -> values that the documentation rules out.
MISTAKES = {
    "data.corpora": [[], 3, [3]],
    "data.labels": [
        ["joy"],
        ["joy", "joy"],
        ["joy", "joy", "anger"],
        [True, False],
        ["joy", "<|AUDIO|>"],
        ["joy", "{audio}"],
        ["joy", " "],
    ],  # fmt: skip
    "data.emotions": [{"exc": "delight"}, {"exc": ["joy"]}, {3: "joy"}, ["joy"]],
    "data.modalities": [["text"], ["speech", "multimodal"], [], ["speech", "speech"]],
    "data.genders": [3],
    "data.strict": ["yes", 1, None],
    "data.outside": ["yes", 1, None],
    "data.folds": [1, 0, 2.5, None],
    "data.fold": [-1, 4, "0"],
    "data.test": ["yes", 1, None],
    "data.split_seed": [0.5, -1],
    "data.min_support": [0],
    "data.cell_support": [0],
    "data.limit": ["all", 0, -5],
    "backbone.name": [7],
    "backbone.layers": [0, -2, "2"],
    "backbone.window_s": [3, 0, 31, 4.0],
    "backbone.dtype": ["half"],
    "adapter.r": [0, True],
    "adapter.alpha": [0, 1.5],
    "adapter.dropout": [1.0, -0.1, "much"],
    "adapter.targets": [[]],
    "adapter.train_projector": ["false"],
    "objective.p": [0.5],
    "objective.estimator": [3],
    "objective.relative": ["yes"],
    "objective.ema": [1.0, -0.1],
    "objective.dro_eta": [0, -1],
    "objective.dro_c": [-1],
    "objective.lambda_max": [-1, float("inf"), float("nan"), ".nan"],
    "objective.lambda_0": [-0.1, 10.5],
    "objective.start": [-0.1, 1.1],
    "objective.ramp": [0, 1.1],
    "objective.eta": [0],
    "objective.epsilon": [-0.01],
    "objective.every": [0],
    "objective.gap": ["w_f1"],
    "objective.loss_over": ["tokens"],
    "train.epochs": [0, 1.5],
    "train.batch": [0],
    "train.micro_batch": [0],
    "train.eval_batch": [0],
    "train.lr": [0, -1e-3, "fast", [1], 10**400],
    "train.weight_decay": [-0.1],
    "train.warmup": [1.0, -0.1],
    "train.clip_norm": [0],
    "train.patience": [0],
    "train.seed": [-1],
    "train.select": ["max_gap"],
    "sweep.trials": [0],
    "sweep.objectives": [["acc"], ["acc", "acc"], ["acc", "speed"], ["acc"] * 4],
    "sweep.seed": [-1],
    "sweep.cell": ["de", "/speech", "de/text", 3],
    "sweep.floor": [-0.1, 1.5, "half"],
    "sweep.constraints": [{"speed": 1}, {"acc": "high"}, {"acc": True}, [0.5]],
    "train.keep_epochs": ["some"],
    "sweep.erm_share": [-0.1, 1.1],
    "sweep.deterministic": ["some"],
    "sweep.dial": ["some"],
    "sweep.stop_after": [0, -1, 1.5],
    "sweep.stop_factor": [1, 0, 2.5],
    "sweep.stop_margin": [-0.1, "wide"],
    "sweep.attempts": [0],
    "sweep.trunks": [-1, 0.5],
    "sweep.workers": [0],
    "train.recompute": ["often"],
    "train.parallel": ["tensor", "fsdp"],  # the latter with one worker
    "sweep.slots": [0],
    "sweep.third_trial": [["minmaxgap"], "minmaxgap"],
    "sweep.points": [[1], {"erm": "plain"}],
    "objective.sides": ["better", True],
    "objective.attribute": [[], "speaker", "a/b", "logp_joy", ["age", "age"], 3],
    "data.attributes": [[], ["gender", "emotion"], [""], ["age", "age"]],
    "data.unknown": ["maybe", True],
    "data.provenance": [{"gender": "hearsay"}, ["gender"]],
    "data.speaker_support": [0, 1.5],
    "sweep.device": ["tpu"],
    "sweep.space": [[1, 2], "wide"],
    "plugins": [3],
}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_and_what_yaml_makes_of_it_are_the_same_configuration(preset):
    loaded = config.load(preset)
    text = yaml.safe_dump(loaded.to_dict())
    assert config.from_dict(yaml.safe_load(text)) == loaded
    assert differing_keys(loaded.to_dict(), yaml.safe_load(text)) == []


def test_the_presets_of_the_design_are_all_there():
    assert {"demo", "small", "paper"} <= {path.stem for path in PRESETS}


def test_the_paper_preset_holds_the_papers_numbers():
    loaded = config.load(next(path for path in PRESETS if path.stem == "paper"))
    assert (loaded.adapter.r, loaded.adapter.alpha, loaded.adapter.dropout) == (16, 32, 0.05)
    train = loaded.train
    assert (train.epochs, train.batch, train.lr, train.weight_decay) == (20, 64, 5e-5, 0.01)
    assert (train.patience, loaded.objective.loss_over) == (5, "answer")
    objective = loaded.objective
    assert (objective.epsilon, objective.lambda_max, objective.p) == (0.02, 10, 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in MISTAKES.items() for value in values],
    ids=lambda part: str(part)[:24],
)
def test_a_value_that_is_ruled_out_is_refused_by_its_key(key, value):
    with pytest.raises(UserError) as refused:
        Config().replace({key: value})
    message = str(refused.value)
    assert key in message and "\n" not in message and message.endswith(".")


def test_every_key_has_a_mistake_in_the_list_above_or_takes_any_value_of_its_type():
    keys = {
        f"{section}.{field.name}"
        for section in SECTIONS
        for field in dataclasses.fields(getattr(Config(), section))
    }
    free = {"backbone.path", "backbone.revision", "backbone.prompt", "objective.loss"}
    free |= {"objective.schedule", "sweep.sampler"}
    assert keys - free <= set(MISTAKES)


@pytest.mark.parametrize("seed", range(20))
def test_one_unknown_key_at_any_depth_is_named(seed):
    rng = random.Random(seed)
    values = Config().to_dict()
    section = rng.choice([None, *SECTIONS])
    name = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz_", k=rng.randint(1, 9))) + "9"
    (values if section is None else values[section])[name] = 1
    with pytest.raises(UserError, match=name if section is None else rf"{section}\.{name}"):
        config.from_dict(values, where="here.yaml")


def test_a_misspelt_key_is_told_the_nearest_one():
    with pytest.raises(UserError, match=r"has no key train\.epoch; did you mean train\.epochs\?"):
        Config().replace({"train.epoch": 3})


@pytest.mark.parametrize("wrong", [3, "x", [1], False, 0, ""])
def test_a_section_that_holds_a_value_is_refused(wrong):
    with pytest.raises(UserError, match="train"):
        config.from_dict({"train": wrong})


@pytest.mark.parametrize("text", ["5e-5", "5.0e-5", "0.00005", "5E-5"])
def test_a_number_may_be_written_with_an_exponent(tmp_path, text):
    preset = tmp_path / "mine.yaml"
    preset.write_text(f"train:\n  lr: {text}\n")
    assert config.load(preset).train.lr == 5e-5
    assert config.load(preset, [f"train.lr={text}"]).train.lr == 5e-5


def test_a_setting_changes_one_value_and_an_empty_section_keeps_its_defaults(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("data:\ntrain:\n")
    changed = config.load(preset, ["data.folds=5", "train.lr=1", "sweep.space.lr=[1e-4, 1e-3]"])
    assert config.load(preset) == Config()
    expected = Config().replace(
        {"data.folds": 5, "train.lr": 1.0, "sweep.space": {"lr": ["1e-4", "1e-3"]}}
    )
    assert changed == expected


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("train.lr", "--set train.lr"),
        ("=3", "--set =3"),
        ("train.lr.x=3", "train.lr.x"),
        ("train.lr=[", "--set train.lr="),
        ("train.lr=2020-13-45", "--set train.lr=2020-13-45"),
        ("train=3", "train"),
        ("nothing.here=1", "nothing"),
    ],
)
def test_a_setting_of_another_form_is_refused_in_its_own_words(setting, named):
    with pytest.raises(UserError) as refused:
        config.load(next(path for path in PRESETS if path.stem == "demo"), [setting])
    assert named in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [b"- a\n- b\n", b"words", b"a: [", b"\xff\xfe\x00", b"a: 2020-13-45", b"{[1]: 2}", b"1: 2"],
)
def test_a_preset_that_is_no_configuration_is_refused_by_its_path(tmp_path, content):
    preset = tmp_path / "mine.yaml"
    preset.write_bytes(content)
    with pytest.raises(UserError) as refused:
        config.load(preset)
    assert str(preset) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("seed", range(20))
def test_differences_names_exactly_the_keys_that_changed(seed):
    rng = random.Random(seed)
    changes = {
        "data.folds": 5,
        "data.corpora": ["manifest=x"],
        "adapter.r": 3,
        "objective.loss": "other",
        "train.lr": 0.5,
        "train.micro_batch": 2,
        "sweep.floor": 0.1,
        "sweep.space": {"lr": False},
        "plugins": ["p.py"],
    }
    keys = rng.sample(sorted(changes), rng.randint(0, len(changes)))
    old, new = Config(), Config().replace({key: changes[key] for key in keys})
    assert differing_keys(old.to_dict(), new.to_dict()) == sorted(keys)
    assert differing_keys(new.to_dict(), old.to_dict()) == sorted(keys)


def test_replacing_values_leaves_the_original_as_it_was():
    original = config.from_dict({"sweep": {"space": {"lr": [1, 2]}}})
    before = original.to_dict()
    original.replace({"sweep.space.lora_r": False, "train.lr": 1.0, "data.labels": ["a", "b"]})
    assert original.to_dict() == before
