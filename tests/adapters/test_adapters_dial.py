"""What answers at a position of a line is the model with both updates in these shares."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny_run
import torch
from saved_adapters import saved
from tiny_run import LABELS, WINDOW_S

from ermgap import config
from ermgap.adapters import (
    line_file,
    load_adapter,
    load_line,
    lower_end,
    position_of,
    require_line,
)
from ermgap.distributed import World
from ermgap.errors import UserError
from ermgap.model.lora import PROJECTOR
from ermgap.training.evaluation import label_log_probabilities

# Of both ends: r, alpha, whether the projector is trained.
ENDS = {
    "alike": ((4, None, True), (4, None, True)),
    "other ranks": ((2, 5, True), (6, 3, True)),
    "one projector": ((3, None, False), (5, 7, True)),
    "no projector": ((3, 4, False), (2, None, False)),
}
POSITIONS = (0.0, 0.3, 1.0, 1.4)


def config_of(r: int = 3, alpha: int | None = None, projector: bool = True) -> config.Config:
    return config.Config().replace(
        {
            "backbone.name": "random-tiny",
            "backbone.window_s": WINDOW_S,
            "data.labels": list(LABELS),
            "adapter.r": r,
            "adapter.alpha": alpha,
            "adapter.train_projector": projector,
        }
    )


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: [
            saved(folder / name / f"t{number:04d}", config_of(*end), seed=number)
            for number, end in enumerate(pair)
        ]
        for name, pair in ENDS.items()
    }


@pytest.fixture(scope="module")
def speech():
    return tiny_run.speech("float64")


@pytest.fixture(scope="module")
def examples(speech, tmp_path_factory):
    table = tiny_run.tones(tmp_path_factory.mktemp("tones"), train=1, dev=1)
    return tiny_run.splits(table, speech, cache=tmp_path_factory.mktemp("features"))[0]


def scores(speech, examples) -> np.ndarray:
    return label_log_probabilities(speech, examples, world=World(), batch=5)


def dense(pair, position: float):
    """The backbone in float64 whose own weights are W + (1 - a) dW_lower + a dW_upper."""
    speech = tiny_run.speech("float64")
    pretrained = {name: value.clone() for name, value in speech.model.named_parameters()}
    for folder, share in zip(pair, (1 - position, position), strict=True):
        load_adapter(speech, folder)
        [adapter], r = speech.adapters, speech.adapters[0].settings.r
        alpha = adapter.settings.alpha or 2 * r
        with torch.no_grad():
            for path in adapter.paths:
                update = (
                    adapter.parameters[f"{path}.lora_B.weight"]
                    @ adapter.parameters[f"{path}.lora_A.weight"]
                )
                speech.model.get_parameter(f"{path}.weight").add_(share * alpha / r * update)
            for name in adapter.parameters:
                if name.startswith(PROJECTOR):
                    moved = adapter.parameters[name] - pretrained[name]
                    speech.model.get_parameter(name).add_(share * moved)
    speech.adapters = []
    return speech


@pytest.mark.parametrize("name", ENDS)
def test_logits_are_those_of_the_dense_sum_of_both_updates(name, ends, speech, examples):
    load_line(speech, *ends[name], POSITIONS)
    made = scores(speech, examples)
    for position, answers in zip(POSITIONS, made, strict=True):
        wanted = scores(dense(ends[name], position), examples)[0]
        np.testing.assert_allclose(answers, wanted, atol=1e-9)
    assert np.abs(np.diff(made, axis=0)).max(axis=(1, 2)).min() > 1e-3, "positions are alike"


@pytest.mark.parametrize("name", ENDS)
def test_the_ends_are_the_adapters_themselves_and_one_pass_is_as_many(name, ends, examples):
    speech = tiny_run.speech("float64")
    load_line(speech, *ends[name], POSITIONS)
    together = scores(speech, examples)
    for folder, at in zip(ends[name], (0, 2), strict=True):
        load_adapter(speech, folder)
        np.testing.assert_allclose(together[at], scores(speech, examples)[0], atol=1e-9)
    for position, answers in zip(POSITIONS, together, strict=True):
        load_line(speech, *ends[name], [position])
        np.testing.assert_allclose(answers, scores(speech, examples)[0], atol=1e-9)


@pytest.mark.parametrize("name", ["other ranks", "one projector"])
def test_a_position_saved_as_an_adapter_is_read_by_peft(name, ends, speech, tmp_path):
    import peft
    from transformers import Qwen2AudioForConditionalGeneration

    from ermgap.model.backbones import BACKBONES

    load_line(speech, *ends[name], [0.7])
    speech.adapters[0].save(tmp_path, base="random-tiny")
    folder = BACKBONES.find("random-tiny")(speech.settings)
    base = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float64)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path, autocast_adapter_dtype=False)
    merged, reference = loaded.merge_and_unload(), dense(ends[name], 0.7).model
    theirs, wanted = dict(merged.named_parameters()), dict(reference.named_parameters())
    for path, value in wanted.items():
        torch.testing.assert_close(theirs[path], value, atol=1e-9, rtol=0)


# Mistakes -----------------------------------------------------------------------------------------


def changed(folder, place, change):
    shutil.copytree(folder, place)
    values = json.loads((place / "ermgap.json").read_text())
    change(values)
    (place / "ermgap.json").write_text(json.dumps(values))
    return place


@pytest.mark.parametrize(
    "section, key, value, what",
    [
        ("backbone", "layers", 7, "backbone"),
        ("prompt", "texts", {"speech": {"": "Other {audio}"}}, "prompt"),
        ("data", "labels", ["joy", "anger", "bored"], "labels"),
        ("adapter", "targets", ["q_proj"], "targets"),
    ],
)
def test_ends_of_different_models_make_no_line(section, key, value, what, ends, tmp_path):
    lower, upper = ends["alike"]
    require_line(lower, upper)
    other = changed(upper, tmp_path / "t0002", lambda v: v[section].__setitem__(key, value))
    with pytest.raises(UserError, match=f"they differ in their {what}"):
        require_line(lower, other)


@pytest.mark.parametrize("text", ["-0.1", "1.6", "nan", "half", ""])
def test_a_position_is_a_number_between_its_bounds(text):
    assert [position_of(text) for text in ("0", "1.5", 0.7)] == [0.0, 1.5, 0.7]
    with pytest.raises(UserError, match="position .* is not possible"):
        position_of(text)


def test_the_lower_end_is_the_one_that_its_file_names(ends, tmp_path):
    for folder in ends["alike"]:
        shutil.copytree(folder, tmp_path / folder.name)
    upper = tmp_path / "t0001"
    with pytest.raises(UserError, match="is the upper end of no dial"):
        lower_end(upper)
    (upper / "dial.json").write_text(line_file("t0000"))
    assert lower_end(upper).resolve() == (tmp_path / "t0000").resolve()
    shutil.rmtree(tmp_path / "t0000")
    with pytest.raises(UserError, match="copy its folder there"):
        lower_end(upper)
    (upper / "dial.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        lower_end(upper)
