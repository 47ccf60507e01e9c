"""Voxtral answering in its own words: the second row of the paper's table.

    voxtral                     Voxtral-Mini-3B of the hub
    voxtral=FOLDER              a copy on disk
    voxtral=ORG/NAME[@REV]      another one of the hub

Its processor reads Mistral's own tokenizer file with mistral-common, an optional package (it takes
numpy back below 2.4 on Python 3.12 and older, which all else here bears). Every clip fills windows
of 30 s, 375 audio tokens each, so a short clip costs as much as a long one. Control tokens come
from the structure of the chat alone: mistral-common recognises none in a transcript.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from ermgap.baselines import Context, System
from ermgap.baselines.arguments import named, place
from ermgap.baselines.generated import Answering, greedy, readable
from ermgap.corpora import audio
from ermgap.errors import UserError
from ermgap.model.qwen2_audio import resolve_dtype
from ermgap.model.self_check import check_weights

VOXTRAL = "mistralai/Voxtral-Mini-3B-2507"
PACKAGE = "mistral-common[audio]>=1.11.7"  # the oldest that transformers 5.23 takes
WINDOW_FRAMES = 3000  # log-mel of 30 s, which the processor fills up


def make(argument: str | None, context: Context) -> System:
    """Voxtral-Mini, or the model of `argument`; UserError when it or mistral-common is absent."""
    if not available():
        raise UserError(f"voxtral needs a package more: pip install '{PACKAGE}'.")
    folder, revision = (VOXTRAL, None) if argument is None else place(argument)
    settings, device = context.config.backbone, torch.device(context.device)
    return Voxtral(
        folder,
        revision=revision,
        name=named("voxtral", argument),
        labels=context.labels,
        window_s=settings.window_s,
        dtype=resolve_dtype(settings.dtype, device),
        device=context.device,
    )


def available() -> bool:
    """Whether mistral-common is installed, in a release that transformers takes."""
    from transformers.utils import is_mistral_common_available

    return is_mistral_common_available()


class Voxtral(Answering):
    """A Voxtral with its processor; made by `make`."""

    def __init__(
        self,
        folder: Path | str,
        *,
        revision: str | None,
        name: str,
        labels: Sequence[str],
        window_s: float,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        from transformers import VoxtralForConditionalGeneration, VoxtralProcessor

        with readable(folder, system="voxtral") as known:
            # "main" is the default of the tokenizer; it takes no None
            known["revision"] = revision or "main"
            self.processor = VoxtralProcessor.from_pretrained(folder, **known)
            model, told = VoxtralForConditionalGeneration.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                output_loading_info=True,
                **known,
            )
        check_weights(model, told["missing_keys"], name=str(folder))
        self.model = model.to(device).eval()
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"
        ends = [self.tokenizer.eos_token_id]
        greedy(self.model, stops=ends, pad=self.tokenizer.pad_token_id)
        super().__init__(name, labels=labels, window_s=window_s)

    def answer(self, clips: list[np.ndarray], questions: list[str]) -> list[str]:
        """One batch, padded on the left."""
        inputs = self.inputs(clips, questions)
        made = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(made.tolist(), skip_special_tokens=True)

    def inputs(self, clips: list[np.ndarray], questions: list[str]):
        """What `generate` takes, on the model's device; UserError for other audio tokens."""
        chats = [
            [{"role": "user", "content": [_sound(clip), {"type": "text", "text": asked}]}]
            for clip, asked in zip(clips, questions, strict=True)
        ]
        inputs = self.processor.apply_chat_template(chats)
        held = (inputs["input_ids"] == self.model.config.audio_token_id).sum(1).tolist()
        windows = len(inputs["input_features"]) // len(clips)
        if held != [windows * self._window_tokens()] * len(clips):
            raise UserError(
                f"{self.name} got {held[0]} audio tokens where the model gives "
                f"{windows * self._window_tokens()}; its tokenizer is another model's."
            )
        return inputs.to(self.model.device, self.model.dtype)

    def _window_tokens(self) -> int:
        """Audio tokens of a window: the projector takes several of the tower's positions as one."""
        heard = self.model.config.audio_config
        return WINDOW_FRAMES // 2 * heard.hidden_size // heard.intermediate_size


def _sound(samples: np.ndarray) -> dict:
    """A clip as the part of a message, to the bit (32-bit WAV, so nothing is resampled)."""
    file = io.BytesIO()
    soundfile.write(file, samples, audio.RATE, format="WAV", subtype="FLOAT")
    return {"type": "audio", "base64": base64.b64encode(file.getvalue()).decode()}
