"""The two models of `small` from the Hugging Face hub, for the backbone `small-hub`.

Files that were downloaded once are used without asking the hub, so a sweep keeps its weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ermgap.errors import UserError
from ermgap.model.backbones.small_from_wheels import Decoder, Tokens

WHISPER = "openai/whisper-tiny.en"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
FILES = ["*config.json", "model.safetensors", "tokenizer.json"]
DECODER_KEYS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads max_position_embeddings rms_norm_eps rope_parameters"
).split()


def snapshots() -> tuple[Path, Path]:
    """Folders of whisper-tiny.en and SmolLM2, each named by its commit.

    Raises UserError when they are neither in the hub's local cache nor can be downloaded.
    """
    return _snapshot(WHISPER), _snapshot(SMOLLM2)


def whisper_encoder(path: Path) -> dict[str, np.ndarray]:
    """Float32 tensors of the encoder, named as in transformers' `WhisperEncoder`."""
    from transformers import WhisperModel

    model = WhisperModel.from_pretrained(path, dtype="float32", use_safetensors=True)
    encoder = model.encoder
    return {name: value.numpy() for name, value in encoder.state_dict().items()}


def smollm2(path: Path) -> Decoder:
    """The decoder, converted to float32, and its vocabulary."""
    from transformers import LlamaModel

    model = LlamaModel.from_pretrained(path, dtype="float32", use_safetensors=True)
    state = model.state_dict()
    config = {key: getattr(model.config, key) for key in DECODER_KEYS}
    return Decoder(config=config, tokens=_tokens(path), tensor=lambda name: state[name].numpy())


def _snapshot(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=FILES, local_files_only=True))
    except Exception:  # not in the cache; why it cannot be downloaded, the next attempt says
        pass
    try:
        return Path(snapshot_download(repository, allow_patterns=FILES))
    except Exception as problem:
        raise UserError(
            f"{repository} cannot be downloaded from the hub ({type(problem).__name__}); "
            "connect to it once, or use backbone.name: small, whose weights come with `make setup`."
        ) from problem


def _tokens(path: Path) -> Tokens:
    file = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    roles = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = dict(file["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in file["added_tokens"]}

    def role(name: str) -> int:
        token = roles[f"{name}_token"]
        return ids[token["content"] if isinstance(token, dict) else token]

    merges = file["model"]["merges"]
    return Tokens(
        names=sorted(ids, key=ids.get),
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        special=[token["content"] for token in file["added_tokens"] if token["special"]],
        bos=role("bos"),
        eos=role("eos"),
        pad=role("pad"),
        unknown=role("unk"),
    )
