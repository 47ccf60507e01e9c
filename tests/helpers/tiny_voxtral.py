"""A Voxtral of the true structure with random weights, and a tokenizer file in Mistral's format.

    save(folder)     # a folder for VoxtralForConditionalGeneration.from_pretrained, under 1 MB

The vocabulary is the 256 bytes behind the control tokens of Voxtral's own file, at their places.
`StandIn` does what the processor does with this vocabulary where mistral-common is not installed;
where it is, a test holds the two equal.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import soundfile
import torch

AUDIO, BEGIN_AUDIO = 24, 25
SPECIAL = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] "
    "[/TOOL_RESULTS] [TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] "
    "[SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT] <SPECIAL_20> <SPECIAL_21> <SPECIAL_22> "
    "<SPECIAL_23> [AUDIO] [BEGIN_AUDIO] <SPECIAL_26> <SPECIAL_27> <SPECIAL_28> <SPECIAL_29> "
    "<SPECIAL_30> <SPECIAL_31> <SPECIAL_32> <SPECIAL_33> [TRANSCRIBE]"
).split()
BYTES = len(SPECIAL)  # id of the byte 0
MEL_BINS = 128
WINDOW = 480000  # samples of 30 s
BEGIN, END, OPEN, CLOSE, PAD = 1, 2, 3, 4, 11


def save(folder: Path) -> Path:
    """Write model, feature extractor and tokenizer; returns the folder."""
    from transformers import VoxtralForConditionalGeneration, WhisperFeatureExtractor

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = VoxtralForConditionalGeneration(_config())
    model.save_pretrained(folder)
    ears = WhisperFeatureExtractor(feature_size=MEL_BINS, sampling_rate=16000, hop_length=160)
    ears.save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(_tokenizer()), encoding="utf-8")
    return folder


def _config():
    """One layer each; four positions of the tower make an audio token, as in the real one."""
    from transformers import VoxtralConfig

    audio = {
        "hidden_size": 16,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_mel_bins": MEL_BINS,
        "initializer_range": 0.3,
        "vocab_size": 64,
    }
    text = {
        "model_type": "llama",
        "vocab_size": BYTES + 256,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 4096,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 11,
    }
    return VoxtralConfig(
        audio_config=audio, text_config=text, audio_token_id=AUDIO, initializer_range=0.3
    )


def _tokenizer() -> dict:
    """Version 7, with the section on audio that Voxtral's file has."""
    vocabulary = [
        {"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode(), "token_str": None}
        for i in range(256)
    ]
    special = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(SPECIAL)]
    return {
        "type": "Tekken",
        "version": 1,
        "config": {
            "pattern": r"\S+|\s+",
            "num_vocab_tokens": 256,
            "default_vocab_size": BYTES + 256,
            "default_num_special_tokens": BYTES,
            "version": "v7",
        },
        "vocab": vocabulary,
        "special_tokens": special,
        "audio": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "chunk_length_s": 30.0,
            "audio_encoding_config": {
                "num_mel_bins": MEL_BINS,
                "hop_length": 160,
                "window_size": 400,
            },
        },
    }


class StandIn:
    """The processor without mistral-common: chats of one message, a clip and a text."""

    def __init__(self, folder: Path) -> None:
        from transformers import WhisperFeatureExtractor

        self.ears = WhisperFeatureExtractor.from_pretrained(folder)
        self.tokenizer = self
        self.eos_token_id, self.pad_token_id, self.padding_side = END, PAD, "right"

    @classmethod
    def from_pretrained(cls, folder, **known) -> StandIn:
        return cls(folder)

    def apply_chat_template(self, chats):
        from transformers import BatchFeature

        rows, mels = [], []
        for (message,) in chats:
            sound, text = message["content"]
            samples, _ = soundfile.read(
                io.BytesIO(base64.b64decode(sound["base64"])), dtype="float32"
            )
            windows = -(-len(samples) // WINDOW)
            heard = self.ears(
                samples, sampling_rate=16000, truncation=False, pad_to_multiple_of=WINDOW
            )
            mel = torch.as_tensor(heard["input_features"]).reshape(MEL_BINS, windows, 3000)
            mels.append(mel.transpose(0, 1))
            asked = [BYTES + byte for byte in text["text"].encode()]
            rows.append([BEGIN, OPEN, BEGIN_AUDIO, *[AUDIO] * 375 * windows, *asked, CLOSE])
        longest = max(map(len, rows))
        assert self.padding_side == "left"
        ids = [[PAD] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        told = {"input_ids": ids, "attention_mask": mask, "input_features": torch.cat(mels)}
        return BatchFeature(told, tensor_type="pt")

    def batch_decode(self, rows, *, skip_special_tokens: bool) -> list[str]:
        kept = [[i - BYTES for i in row if i >= BYTES] for row in rows]
        return [bytes(row).decode(errors="replace") for row in kept]
