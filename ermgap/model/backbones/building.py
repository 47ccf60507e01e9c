"""What the backbones that we build share: Qwen2-Audio's structure, a byte-level tokenizer, files.

Both `small` and `random-tiny` have the three audio tokens of Qwen2-Audio after their own vocabulary
and its chat template, so that one prompt serves them and the 7B model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ermgap.model.backbones.small_from_wheels import Tokens
from ermgap.model.prompts import AUDIO, AUDIO_BOS, AUDIO_EOS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2AudioForConditionalGeneration

AUDIO_TOKENS = (AUDIO, AUDIO_BOS, AUDIO_EOS)
POSITIONS_PER_SECOND = 50  # of the audio tower
SEED = 7  # of random weights


def tokenizer(tokens: Tokens) -> PreTrainedTokenizerFast:
    """SmolLM2's tokenisation (single digits, then GPT-2's byte-level BPE) over `tokens`.

    The audio tokens have the ids after the last of `tokens.names`, in the order of `AUDIO_TOKENS`.
    A vocabulary without merges holds bytes and whole words; a word in it is one token.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {name: i for i, name in enumerate(tokens.names)}
    merges = [tuple(merge.split(" ")) for merge in tokens.merges]
    base = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=not merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    base.decoder = decoders.ByteLevel()
    special = (*tokens.special, *AUDIO_TOKENS)
    base.add_special_tokens([AddedToken(name, special=True) for name in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=base,
        bos_token=tokens.names[tokens.bos],
        eos_token=tokens.names[tokens.eos],
        pad_token=tokens.names[tokens.pad],
        unk_token=tokens.names[tokens.unknown],
        additional_special_tokens=list(AUDIO_TOKENS),
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


def model(
    tokenizer: PreTrainedTokenizerFast, *, window_s: int, audio: dict, text: dict, **both
) -> Qwen2AudioForConditionalGeneration:
    """A Qwen2-Audio with random float32 weights from a fixed seed.

    `audio` and `text` are dimensions of the tower and of the decoder, as transformers calls them;
    `both` is set in all three configurations.
    """
    import torch
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2Config,
    )

    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    text = text | {name: getattr(tokenizer, name) for name in special}
    positions = POSITIONS_PER_SECOND * window_s
    tower = Qwen2AudioEncoderConfig(max_source_positions=positions, **audio, **both)
    both |= {"tie_word_embeddings": False}
    decoder = Qwen2Config(**text | both | {"vocab_size": len(tokenizer)})
    config = Qwen2AudioConfig(
        audio_config=tower.to_dict(),
        text_config=decoder.to_dict(),
        audio_token_index=tokenizer.convert_tokens_to_ids(AUDIO),
        dtype="float32",
        **both,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Qwen2AudioForConditionalGeneration(config)


def save(
    model: Qwen2AudioForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    *,
    window_s: int,
) -> None:
    """Write a model (safetensors) and its processor to the folder `path`.

    The processor pads or cuts audio to `window_s` seconds. On any rank of a process group:
    transformers writes on rank 0 alone, silently, but on a cluster each machine may have a cache of
    its own, and on one machine any rank may come first.
    """
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    model.should_save_on_this_rank = lambda is_main_process: True
    model.save_pretrained(path)
    if not any(path.glob("*.safetensors")):
        raise RuntimeError("transformers wrote no weights; build the backbone in one process")
    extractor = WhisperFeatureExtractor(
        feature_size=model.config.audio_config.num_mel_bins,
        chunk_length=window_s,
        return_attention_mask=True,
    )
    processor = Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer)
    tokenizer.chat_template = processor.chat_template
    processor.save_pretrained(path)
