"""Voxtral answering in its own words: the second row of the paper's table.

    voxtral                     Voxtral-Mini-3B of the hub
    voxtral=FOLDER              a copy on disk
    voxtral=ORG/NAME[@REV]      another one of the hub

Its processor reads Mistral's own tokenizer file with mistral-common, of the extra `voxtral` (on
Python 3.12 and older it installs a numpy below 2.4, which works too). Every clip fills windows of
30 s, 375 audio tokens each, so a short clip costs as much as a long one. Control tokens come from
the structure of the chat alone: mistral-common recognises none in a transcript.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import soundfile

from ermgap.baselines import Context
from ermgap.baselines.generated import GeneratingSystem
from ermgap.config import Backbone
from ermgap.corpora import audio
from ermgap.errors import missing_extra

VOXTRAL = "mistralai/Voxtral-Mini-3B-2507"
WINDOW_FRAMES = 3000  # log-mel frames of 30 s, to which the processor pads


def available() -> bool:
    """Whether mistral-common is installed, in a release that transformers accepts."""
    from transformers.utils import is_mistral_common_available

    return is_mistral_common_available()


class Voxtral(GeneratingSystem):
    """A Voxtral with its processor; UserError when it or mistral-common is absent."""

    system = "voxtral"
    classes = "VoxtralForConditionalGeneration", "VoxtralProcessor"

    def __init__(self, argument: str | None, context: Context) -> None:
        if not available():
            raise missing_extra("voxtral", ModuleNotFoundError(name="mistral-common"))
        super().__init__(argument, context)
        self.make_greedy(self.tokenizer.eos_token_id)

    def own_location(self, settings: Backbone) -> tuple[Path | str, str | None]:
        """Voxtral-Mini of the hub."""
        return VOXTRAL, None

    def inputs(self, clips: list[np.ndarray], questions: list[str]):
        """See `GeneratingSystem.inputs`."""
        chats = [
            [{"role": "user", "content": [_audio_part(clip), {"type": "text", "text": text}]}]
            for clip, text in zip(clips, questions, strict=True)
        ]
        inputs = self.processor.apply_chat_template(chats)
        tower, windows = self.model.config.audio_config, len(inputs["input_features"]) // len(clips)
        # The projector joins several positions of the tower into one token.
        tokens = windows * (WINDOW_FRAMES // 2 * tower.hidden_size // tower.intermediate_size)
        return self.checked(inputs, [tokens] * len(clips), "its tokenizer is another model's")


def _audio_part(samples: np.ndarray) -> dict:
    """A clip as the part of a message, bit for bit (a 32-bit WAV, so nothing is resampled)."""
    file = io.BytesIO()
    soundfile.write(file, samples, audio.RATE, format="WAV", subtype="FLOAT")
    return {"type": "audio", "base64": base64.b64encode(file.getvalue()).decode()}
