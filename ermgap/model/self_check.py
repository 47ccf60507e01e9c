"""A check that a backbone works, when it is loaded and before hours are spent on it.

    check(speech, missing=report["missing_keys"])     # raises UserError, one sentence

A broken model trains silently: transformers fills tensors that the checkpoint lacks with random
numbers, 5.10.0 to 5.10.3 tied the head to the embeddings, and another extractor's settings give
features of another length. Two test signals of a second go through extractor, tower and decoder,
one of them also through the tower's whole window. No random state is read or changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ermgap.errors import UserError
from ermgap.model.features.audio_tower import RATE, audio_tower, encode, log_mel, tower_output

if TYPE_CHECKING:
    from ermgap.model.qwen2_audio import SpeechLLM

SIGNAL_S = 1
FRAMES = 100 * SIGNAL_S  # log-mel frames, of 10 ms each
CLOSE = 0.05  # bfloat16 and TF32 differ by up to 0.01 between lengths; another structure by 1


def placeholders(frames: int) -> int:
    """Audio tokens (placeholders in the prompt) of a clip with so many valid log-mel frames."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


@torch.no_grad()
def check(speech: SpeechLLM, *, missing: Iterable[str] = ()) -> None:
    """Raise UserError unless the backbone is complete, and its logits finite and based on audio.

    `missing` are the weights that transformers did not find (`missing_keys` of
    `from_pretrained(..., output_loading_info=True)`).
    """
    check_weights(speech.model, missing, name=speech.settings.name)
    _check_head(speech)
    try:
        first, second = (_features(speech, signal) for signal in _signals())
        _check_tower(speech, first)
        _check_logits(speech, _logits(speech, first), _logits(speech, second))
    except torch.OutOfMemoryError:
        raise  # of the device, not of the model
    except (RuntimeError, ValueError, IndexError) as problem:
        reason = " ".join(str(problem).split()).split(". ")[0].rstrip(".")
        fault = f"cannot process a second of sound ({reason})"
        _require(False, speech.settings.name, fault)


def check_weights(model: nn.Module, missing: Iterable[str], *, name: str) -> None:
    """Raise UserError for missing weights that transformers has filled with random numbers.

    Others are fine: a tied weight shares the memory of one that was loaded, and a buffer that is
    computed (rotary frequencies) is not in the state dict.
    """
    state, missing = model.state_dict(), set(missing)
    loaded = {value.data_ptr() for key, value in state.items() if key not in missing}
    random = sorted(key for key in missing if key in state and state[key].data_ptr() not in loaded)
    if random:
        others = f" and {len(random) - 1} more" if len(random) > 1 else ""
        _require(False, name, f"lacks the weights {random[0]}{others}, which would be random")


def _require(sound: bool | Tensor, name: str, fault: str) -> None:
    """UserError that says what the backbone does wrong, unless it is sound."""
    if not sound:
        raise UserError(
            f"the backbone {name!r} {fault}; download its files again, and use a transformers that "
            "constraints.txt allows."
        )


def _check_head(speech: SpeechLLM) -> None:
    model = speech.model
    tied = model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    fault = "has its head tied to its embeddings, against its configuration"
    _require(model.config.text_config.tie_word_embeddings or not tied, speech.settings.name, fault)


def _signals() -> tuple[np.ndarray, np.ndarray]:
    """Noise and a tone, float32 [16000] each."""
    time = np.arange(RATE * SIGNAL_S) / RATE
    noise = np.random.default_rng(0).normal(size=len(time))
    return tuple((0.1 * x).astype(np.float32) for x in (noise, np.sin(2 * np.pi * 440 * time)))


def _features(speech: SpeechLLM, signal: np.ndarray) -> Tensor:
    """The tower's output [T, d] as the feature store keeps it; UserError for an unexpected T."""
    tower = audio_tower(speech.model)
    mel, count = log_mel(speech.extractor, signal)
    counted = int(tower._get_feat_extract_output_lengths(torch.tensor(FRAMES))[1])
    features = encode(tower, mel[None], [count])[0]
    wanted = placeholders(FRAMES)
    for number in (counted, count // 2, len(features)):
        fault = f"makes {number} tokens of a second of sound, not {wanted}: its feature extractor"
        _require(number == wanted, speech.settings.name, f"{fault} is another model's")
    return features


def _check_tower(speech: SpeechLLM, features: Tensor) -> None:
    """Compare our short pass through the tower with transformers' own over the whole window."""
    inputs = speech.extractor(
        [_signals()[0]],
        sampling_rate=RATE,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    mel = inputs["input_features"].to(speech.device, speech.dtype)
    whole, valid = tower_output(
        audio_tower(speech.model), mel, inputs["attention_mask"].to(speech.device)
    )
    expected = whole[0, : int(valid[0])]
    same = expected.shape == features.shape
    if same:  # relative root mean square; what is not finite is left to `_check_logits`
        error = (features.double() - expected.double()).norm() / expected.double().norm()
        same = not error > CLOSE
    fault = "gives other audio features here than by transformers' own code"
    _require(same, speech.settings.name, fault)


def _logits(speech: SpeechLLM, features: Tensor) -> Tensor:
    """Logits [V] at the answer position of the prompt with this audio, by transformers."""
    core, prompt = speech.model.model, speech.prompt
    ids = [*prompt.prefix, *[prompt.audio] * len(features), *prompt.suffix]
    embeddings = core.get_input_embeddings()(torch.tensor([ids], device=speech.device))
    start = len(prompt.prefix)
    embeddings[0, start : start + len(features)] = core.multi_modal_projector(features)
    states = core.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return speech.model.lm_head(states[0, -1])


def _check_logits(speech: SpeechLLM, first: Tensor, second: Tensor) -> None:
    name, both = speech.settings.name, torch.stack([first, second])
    _require(both.isfinite().all(), name, "answers with numbers that are not finite")
    _require(first.max() != first.min(), name, "gives every token the same score")
    # The same shapes go through the same kernels: without an influence of the audio, equal bits.
    fault = "ignores the audio: noise and a tone get the same scores"
    _require(not torch.equal(first, second), name, fault)
