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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from ermgap.baselines import Context, System
from ermgap.baselines.arguments import model_location, row_name
from ermgap.baselines.generated import GeneratingSystem, loading, make_greedy
from ermgap.corpora import audio
from ermgap.errors import UserError, missing_extra
from ermgap.model.qwen2_audio import resolve_dtype
from ermgap.model.self_check import check_weights

VOXTRAL = "mistralai/Voxtral-Mini-3B-2507"
WINDOW_FRAMES = 3000  # log-mel frames of 30 s, to which the processor pads


def make(argument: str | None, context: Context) -> System:
    """Voxtral-Mini, or the model of `argument`; UserError when it or mistral-common is absent."""
    if not available():
        raise missing_extra("voxtral", ModuleNotFoundError(name="mistral-common"))
    folder, revision = (VOXTRAL, None) if argument is None else model_location(argument)
    settings, device = context.config.backbone, torch.device(context.device)
    return Voxtral(
        folder,
        revision=revision,
        name=row_name("voxtral", argument),
        labels=context.labels,
        window_s=settings.window_s,
        dtype=resolve_dtype(settings.dtype, device),
        device=context.device,
    )


def available() -> bool:
    """Whether mistral-common is installed, in a release that transformers accepts."""
    from transformers.utils import is_mistral_common_available

    return is_mistral_common_available()


class Voxtral(GeneratingSystem):
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

        with loading(folder, system="voxtral") as options:
            options["revision"] = revision or "main"  # the tokenizer does not accept None
            self.processor = VoxtralProcessor.from_pretrained(folder, **options)
            model, report = VoxtralForConditionalGeneration.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        check_weights(model, report["missing_keys"], name=str(folder))
        self.model = model.to(device).eval()
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"
        ends = [self.tokenizer.eos_token_id]
        make_greedy(self.model, stops=ends, pad=self.tokenizer.pad_token_id)
        super().__init__(name, labels=labels, window_s=window_s)

    def answer(self, clips: list[np.ndarray], questions: list[str]) -> list[str]:
        """One batch, padded on the left."""
        inputs = self.inputs(clips, questions)
        generated = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(generated.tolist(), skip_special_tokens=True)

    def inputs(self, clips: list[np.ndarray], questions: list[str]):
        """The inputs of `generate`, on the model's device; UserError if audio tokens are off."""
        chats = [
            [{"role": "user", "content": [_audio_part(clip), {"type": "text", "text": text}]}]
            for clip, text in zip(clips, questions, strict=True)
        ]
        inputs = self.processor.apply_chat_template(chats)
        counts = (inputs["input_ids"] == self.model.config.audio_token_id).sum(1).tolist()
        expected = len(inputs["input_features"]) // len(clips) * self._window_tokens()
        if counts != [expected] * len(clips):
            raise UserError(
                f"{self.name} got {counts[0]} audio tokens where the model gives {expected}; its "
                "tokenizer is another model's."
            )
        return inputs.to(self.model.device, self.model.dtype)

    def _window_tokens(self) -> int:
        """Audio tokens of a window: the projector joins several positions of the tower into one."""
        tower = self.model.config.audio_config
        return WINDOW_FRAMES // 2 * tower.hidden_size // tower.intermediate_size


def _audio_part(samples: np.ndarray) -> dict:
    """A clip as the part of a message, bit for bit (a 32-bit WAV, so nothing is resampled)."""
    file = io.BytesIO()
    soundfile.write(file, samples, audio.RATE, format="WAV", subtype="FLOAT")
    return {"type": "audio", "base64": base64.b64encode(file.getvalue()).decode()}
