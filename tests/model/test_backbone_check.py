"""A backbone that cannot work is refused when it is loaded, in one sentence; a good one passes.

Each fault is made on a copy of `random-tiny`: in its files where a file can hold it, and in memory
where only another release of transformers could make it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_run
import torch
from safetensors.torch import load_file, save_file

from ermgap import config
from ermgap.errors import UserError
from ermgap.model.backbones import BACKBONES
from ermgap.model.self_check import check, placeholders

HEAD, WORDS = "lm_head.weight", "model.language_model.embed_tokens.weight"
PROJECTOR = "model.multi_modal_projector.linear"
QUERY = "model.language_model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of `random-tiny` to be spoilt."""
    source = BACKBONES.find("random-tiny")(config.Backbone(name="random-tiny", window_s=2))
    return Path(shutil.copytree(source, tmp_path / "model"))


def loaded(folder: Path, dtype: str = "float32"):
    """The backbone of a folder, and the names of the weights that it lacks."""
    from transformers import Qwen2AudioForConditionalGeneration

    _, told = Qwen2AudioForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    speech = tiny_run.speech(dtype, name="qwen2-audio-7b", path=str(folder))
    return speech, told["missing_keys"]


def refusal(folder: Path, dtype: str = "float32") -> str:
    """The one sentence with which the folder is refused."""
    with pytest.raises(UserError) as problem:
        speech, missing = loaded(folder, dtype)
        check(speech, missing=missing)
    return sentence(problem)


def sentence(problem) -> str:
    text = str(problem.value)
    assert "\n" not in text and text.endswith(".") and text.count(". ") == 0, text
    return text


def change(folder: Path, **tensors) -> None:
    """Rewrite the weights; a function of the old value, or None to drop it, by name in memory."""
    held = load_file(folder / "model.safetensors")
    for name, made in tensors.items():
        key = on_disk(held, name)
        value = held.pop(key)
        if made:
            held[key] = made(value.clone())
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def on_disk(held, name: str) -> str:
    """The name that a checkpoint has for it, with other prefixes than in memory."""
    tail = name.removeprefix("model.").removeprefix("language_model.")
    (key,) = (key for key in held if key == tail or key.endswith(f".{tail}"))
    return key


def configure(folder: Path, **values) -> None:
    """Change settings of the feature extractor on disk."""
    path = folder / "processor_config.json"
    told = json.loads(path.read_text())
    told["feature_extractor"] |= values
    path.write_text(json.dumps(told))


def first(value):
    """A function that puts `value` at a tensor's first place."""

    def put(tensor):
        tensor.view(-1)[0] = value
        return tensor

    return put


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["random-tiny", "small"])
def test_a_good_backbone_passes_and_no_random_state_moves(name, dtype):
    try:
        speech = tiny_run.speech(dtype, name=name, layers=2)
    except UserError as problem:
        pytest.skip(str(problem))
    before = torch.get_rng_state()
    check(speech)
    assert torch.equal(torch.get_rng_state(), before)
    assert not speech.adapters and not speech.training


def test_an_intact_folder_has_nothing_missing(folder):
    speech, missing = loaded(folder)
    check(speech, missing=missing)
    assert not missing


# Weights that are not there -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [QUERY, HEAD, "model.audio_tower.conv1.weight"])
def test_a_tensor_that_the_checkpoint_lacks_is_named(folder, name):
    change(folder, **{name: None})
    assert f"lacks the weights {name}, which would be random" in refusal(folder)


def test_many_missing_tensors_are_counted(folder):
    change(folder, **{f"{PROJECTOR}.weight": None, f"{PROJECTOR}.bias": None, QUERY: None})
    assert f"{QUERY} and 2 more" in refusal(folder)


def test_a_head_that_the_configuration_ties_but_nobody_filled_is_refused(folder):
    """transformers 5 leaves it random: the class declares no tied weights."""
    told = json.loads((folder / "config.json").read_text())
    told["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(told))
    change(folder, **{HEAD: None})
    assert HEAD in refusal(folder)


def test_names_that_are_filled_otherwise_are_not_missing(folder):
    speech, _ = loaded(folder)
    speech.model.config.text_config.tie_word_embeddings = True
    speech.model.lm_head.weight = speech.model.get_input_embeddings().weight
    check(speech, missing=[HEAD, "model.language_model.rotary_emb.inv_freq"])


def test_a_head_tied_against_the_configuration_is_refused(folder):
    speech, _ = loaded(folder)
    speech.model.lm_head.weight = speech.model.get_input_embeddings().weight
    with pytest.raises(UserError, match="head tied to its embeddings") as problem:
        check(speech)
    sentence(problem)


def test_a_head_that_only_equals_the_embeddings_passes(folder):
    """As in `small`, where it was copied from them."""
    held = load_file(folder / "model.safetensors")
    change(folder, **{HEAD: lambda _: held[on_disk(held, WORDS)].clone()})
    speech, missing = loaded(folder)
    check(speech, missing=missing)


# Weights that are wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [QUERY, HEAD, "model.audio_tower.conv2.bias"])
def test_numbers_that_are_not_finite_are_refused(folder, name, value):
    change(folder, **{name: first(value)})
    assert "not finite" in refusal(folder)


def test_a_head_of_zeros_is_refused(folder):
    change(folder, **{HEAD: torch.zeros_like})
    assert "gives every token the same score" in refusal(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_does_not_hear_is_refused(folder, dtype):
    change(folder, **{f"{PROJECTOR}.weight": torch.zeros_like})
    assert "ignores the audio" in refusal(folder, dtype)


# Another extractor, another tower -----------------------------------------------------------------


def test_another_hop_is_another_number_of_tokens(folder):
    configure(folder, hop_length=320)
    assert "makes 12 tokens of a second of sound, not 25" in refusal(folder)


@pytest.mark.parametrize("settings", [{"feature_size": 128}, {"chunk_length": 4}])
def test_an_extractor_that_does_not_fit_the_tower_is_refused(folder, settings):
    configure(folder, **settings)
    assert "cannot process a second of sound" in refusal(folder)


def test_another_stride_in_the_tower_is_refused(folder):
    speech, _ = loaded(folder)
    speech.model.model.audio_tower.conv2.stride = (4,)
    with pytest.raises(UserError, match="cannot process a second") as problem:
        check(speech)
    sentence(problem)


def test_a_tower_that_this_transformers_runs_otherwise_is_refused(folder):
    speech, _ = loaded(folder)
    tower = speech.model.model.audio_tower
    plain = type(tower).forward

    def twice(self, *given, **named):
        made = plain(self, *given, **named)
        made.last_hidden_state = made.last_hidden_state * 2
        return made

    tower.forward = twice.__get__(tower)
    with pytest.raises(UserError, match="gives other audio features") as problem:
        check(speech)
    sentence(problem)


def test_placeholders_are_the_tower_s_own_count(folder):
    tower = loaded(folder)[0].model.model.audio_tower
    frames = torch.arange(3, 3001)
    assert tower._get_feat_extract_output_lengths(frames)[1].tolist() == [
        placeholders(number) for number in range(3, 3001)
    ]
