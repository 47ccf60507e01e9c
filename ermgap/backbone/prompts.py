"""What the model reads before it answers, and how an answer is read.

A prompt is a template with one `{audio}`; it is tokenised as prefix + audio placeholders + suffix,
the placeholders being expanded here to the clip's number of audio tokens, so that nothing depends
on the legacy merging of transformers. A label's verbaliser is its word; the labels' first tokens
must differ, because a prediction is the softmax over them at the answer position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ermgap.errors import UserError
from ermgap.registry import Registry

AUDIO, AUDIO_BOS, AUDIO_EOS = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
END = "<|im_end|>"

PROMPTS = Registry("prompt")
PROMPTS["short"] = (
    "<|im_start|>user\n<|audio_bos|>{audio}<|audio_eos|>\nEmotion?<|im_end|>\n<|im_start|>assistant\n"
)
PROMPTS["chat"] = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nAudio 1: <|audio_bos|>{audio}<|audio_eos|>\n"
    "Which emotion does the speaker express? Answer with one word of: {labels}.<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@dataclass(frozen=True)
class Prompt:
    """Token ids around the audio, and of every answer.

    Attributes:
        prefix, suffix: ids before and after the audio placeholders.
        audio: id of the placeholder.
        answers: per label, the ids of its word followed by the end token.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    audio: int
    answers: tuple[tuple[int, ...], ...]

    @property
    def first_tokens(self) -> list[int]:
        """Per label, the id whose logit at the answer position is the label's score."""
        return [answer[0] for answer in self.answers]

    def length(self, audio_tokens: int) -> int:
        """Number of tokens up to and including the answer position."""
        return len(self.prefix) + audio_tokens + len(self.suffix)


def build(tokenizer, template: str, labels: Sequence[str]) -> Prompt:
    """Tokenise a template for these labels.

    Raises:
        UserError: two labels share their first token, or the tokenizer lacks the audio placeholder.
    """
    audio = tokenizer.convert_tokens_to_ids(AUDIO)
    if audio is None or audio == tokenizer.unk_token_id:
        raise UserError(f"the backbone's tokenizer has no {AUDIO} token; use a Qwen2-Audio model.")
    before, after = template.format(audio=AUDIO, labels=", ".join(labels)).split(AUDIO)
    end = tokenizer.convert_tokens_to_ids(END)
    answers = tuple((*_ids(tokenizer, label), end) for label in labels)
    seen: dict[int, str] = {}
    for label, answer in zip(labels, answers, strict=True):
        if answer[0] in seen:
            raise UserError(
                f"the labels {seen[answer[0]]!r} and {label!r} begin with the same token, so they "
                f"cannot "
                "be told apart at the answer position; rename one in data.labels."
            )
        seen[answer[0]] = label
    return Prompt(_ids(tokenizer, before), _ids(tokenizer, after), audio, answers)


def _ids(tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
