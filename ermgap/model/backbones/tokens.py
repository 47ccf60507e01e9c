"""Tokenizers and processors of the backbones that we build: byte-level, with Qwen2-Audio's tokens.

Both `small` and `random-tiny` have the three audio tokens of Qwen2-Audio after their own vocabulary
and its chat template, so that one prompt serves them and the 7B model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ermgap.model.backbones.small_from_wheels import Tokens
from ermgap.model.prompts import AUDIO, AUDIO_BOS, AUDIO_EOS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2AudioProcessor

AUDIO_TOKENS = (AUDIO, AUDIO_BOS, AUDIO_EOS)


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


def processor(
    tokenizer: PreTrainedTokenizerFast, *, window_s: int, mel_bins: int
) -> Qwen2AudioProcessor:
    """A Qwen2-Audio processor that pads or cuts audio to `window_s` seconds of `mel_bins` bands."""
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(
        feature_size=mel_bins, chunk_length=window_s, return_attention_mask=True
    )
    processor = Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer)
    tokenizer.chat_template = processor.chat_template
    return processor
