"""The backbone `random-tiny`: the structure of Qwen2-Audio with random weights, for tests.

    folder(settings)     # a second to build, under 1 MB, no wheels and no network

It has learnt nothing: use it for tests of code, never to report a number. Its vocabulary is the 256
bytes and `WORDS`, each with and without a space before it, so that the first tokens of labels
differ, as with real tokenizers.
"""

from __future__ import annotations

from pathlib import Path

from ermgap.errors import UserError
from ermgap.model import cached_folder
from ermgap.model.backbones import building
from ermgap.model.backbones.small_from_wheels import Tokens

RECIPE = 1
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = (
    "anger disgust fear joy neutral sadness surprise "  # MELD's seven
    "angry boredom calm contempt excited fearful frustration happiness happy sad surprised"
).split()


def folder(settings) -> Path:
    """The folder of `random-tiny` for `settings.layers` and `settings.window_s` (seconds)."""
    check_window(settings)
    shape = {"layers": settings.layers, "window_s": settings.window_s}
    return cached_folder.build_once(
        f"random-tiny-{settings.layers}x{settings.window_s}s-r{RECIPE}",
        build=lambda path: save(path, **shape),
    )


def check_window(settings) -> None:
    """Raise UserError for a window that the audio tower does not take."""
    if not 1 <= settings.window_s <= 30:
        raise UserError(
            f"backbone.window_s is {settings.window_s}; the tower takes 1 to 30 seconds."
        )


def save(path: Path, *, layers: int, window_s: int) -> None:
    """Write the model (float32 safetensors, seeded) and its processor to the folder `path`."""
    tokenizer = building.tokenizer(vocabulary())
    # 0.1 instead of 0.02: at 64 dimensions the outputs then differ visibly between inputs
    model = building.model(
        tokenizer,
        window_s=window_s,
        audio={
            "d_model": 32,
            "num_mel_bins": 80,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
        },
        text={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
        },
        initializer_range=0.1,
    )
    building.save(model, tokenizer, path, window_s=window_s)


def vocabulary() -> Tokens:
    """Special tokens, the 256 bytes, and `WORDS` with and without a leading space (written `Ġ`)."""
    from tokenizers.pre_tokenizers import ByteLevel

    whole = [prefix + name for name in WORDS for prefix in ("", "Ġ")]
    return Tokens(
        names=[*SPECIAL, *sorted(ByteLevel.alphabet()), *whole],
        merges=[],
        special=list(SPECIAL),
        bos=1,
        eos=2,
        pad=2,
        unknown=0,
    )
