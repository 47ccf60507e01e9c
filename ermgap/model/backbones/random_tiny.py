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
from ermgap.model.backbones import tokens
from ermgap.model.backbones.small_from_wheels import Tokens

RECIPE = 1
SEED = 7
MEL_BINS = 80
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


def local(settings) -> Path | None:
    """The model folder `settings.path`, None if not set; UserError where it holds no model."""
    if settings.path is None:
        return None
    path = Path(settings.path).expanduser().absolute()
    if not (path / "config.json").is_file():
        raise UserError(
            f"backbone.path is {str(path)!r}, which holds no config.json; name a model's folder."
        )
    return path


def save(path: Path, *, layers: int, window_s: int) -> None:
    """Write the model (float32 safetensors, seeded) and its processor to the folder `path`."""
    import torch
    from transformers import Qwen2AudioForConditionalGeneration

    tokenizer = tokens.tokenizer(vocabulary())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = Qwen2AudioForConditionalGeneration(
            _model_config(tokenizer, layers=layers, window_s=window_s)
        )
    cached_folder.save(model, path)
    tokens.processor(tokenizer, window_s=window_s, mel_bins=MEL_BINS).save_pretrained(path)


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


def _model_config(tokenizer, *, layers: int, window_s: int):
    from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2Config

    # 0.1 instead of 0.02: at 64 dimensions the outputs then differ visibly between inputs
    audio = Qwen2AudioEncoderConfig(
        d_model=32,
        num_mel_bins=MEL_BINS,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        max_source_positions=50 * window_s,
        initializer_range=0.1,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    return Qwen2AudioConfig(
        audio_config=audio.to_dict(),
        text_config=text.to_dict(),
        audio_token_index=tokenizer.convert_tokens_to_ids(tokens.AUDIO),
        tie_word_embeddings=False,
        initializer_range=0.1,
        dtype="float32",
    )
