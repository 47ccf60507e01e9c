"""What the model reads before it answers, and how an answer is read.

The texts are data (`prompts.yaml`, or a user's own file of that form). A text is tokenised as what
stands before the audio, the placeholders, and what stands after; the placeholders are expanded here
to the clip's number of audio tokens, so that nothing depends on the legacy merging of transformers.
A label's verbaliser is its word; the labels' first tokens must differ, because a prediction is the
softmax over them at the answer position.

A transcript is data, not markup: special tokens are taken from the text of the prompt alone, and a
transcript that spells one (`<|im_end|>`, `<|AUDIO|>`) is read as the characters that it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ermgap.config import MODALITIES, SPEECH, SPEECH_AND_TEXT, safe_yaml
from ermgap.errors import UserError
from ermgap.registry import Registry

AUDIO, AUDIO_BOS, AUDIO_EOS = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
END = "<|im_end|>"
LONGEST = 1000  # characters of a transcript that are read; MELD's longest has 400
FILE = Path(__file__).with_name("prompts.yaml")


@dataclass(frozen=True)
class Wording:
    """What stands around the audio in one language and modality.

    Attributes:
        before: token ids before the placeholders.
        after: what follows them: runs of token ids, and texts to be filled with the transcript.
    """

    before: tuple[int, ...]
    after: tuple[tuple[int, ...] | str, ...]


@dataclass(frozen=True)
class Prompt:
    """Token ids around the audio, and of every answer.

    Attributes:
        prefix, suffix: ids before and after the audio placeholders, for speech alone in a language
            without a wording of its own; empty where the prompt has no such text.
        audio: id of the placeholder.
        answers: per label, the ids of its word followed by the end token.
        wordings: by (language, modality); the language "" is any other.
        tokenizer: reads transcripts; None where there are none.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    audio: int
    answers: tuple[tuple[int, ...], ...]
    wordings: Mapping[tuple[str, str], Wording] = field(default_factory=dict, repr=False)
    tokenizer: object = field(default=None, repr=False)

    @property
    def first_tokens(self) -> list[int]:
        """Per label, the id whose logit at the answer position is the label's score."""
        return [answer[0] for answer in self.answers]

    def length(self, audio_tokens: int) -> int:
        """Tokens up to and including the answer position, for speech alone."""
        return len(self.prefix) + audio_tokens + len(self.suffix)

    def around(
        self, *, language: str = "", modality: str = SPEECH, transcript: str = ""
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids before and after the audio placeholders, for one utterance."""
        wording = self.wordings.get((language, modality)) or self.wordings.get(("", modality))
        if wording is None:
            if modality == SPEECH and not self.wordings:
                return self.prefix, self.suffix
            raise UserError(
                f"the prompt has no text for {modality} in the language {language!r}; "
                "write one for it or under default, or use chat."
            )
        after: list[int] = []
        for piece in wording.after:
            ids = piece if isinstance(piece, tuple) else self._filled(piece, transcript)
            after.extend(ids)
        return wording.before, tuple(after)

    def _filled(self, text: str, transcript: str) -> tuple[int, ...]:
        return plain_ids(self.tokenizer, text.replace("{transcript}", clean(transcript)))


def read(file: Path = FILE) -> dict[str, dict[str, dict[str, str]]]:
    """Texts of a file by prompt, modality and language ("" for the default).

    Raises:
        UserError: the file cannot be read, or a text lacks `{audio}` or holds what it must not.
    """
    try:
        told = safe_yaml.read(file.read_text(encoding="utf-8"))
        prompts = told["prompts"]
        found = {
            name: {modality: _by_language(text) for modality, text in texts.items()}
            for name, texts in prompts.items()
        }
    except (OSError, ValueError, yaml.YAMLError) as problem:  # such as 2020-13-45
        line = safe_yaml.one_line(str(problem))
        raise UserError(f"the prompts in {file} cannot be read ({line}); mend it.") from problem
    except (TypeError, KeyError, AttributeError) as problem:
        raise UserError(
            f"{file} is no file of prompts; it holds `prompts:`, under it names, and under each "
            f"name a text for {SPEECH} and {SPEECH_AND_TEXT}, as ermgap/model/prompts.yaml does."
        ) from problem
    for name, texts in found.items():
        for modality, languages in texts.items():
            for text in languages.values():
                _check(text, f"the prompt {name!r} in {file.name}", modality)
    return found


def version() -> int:
    """Version of the shipped texts."""
    return int(yaml.safe_load(FILE.read_text(encoding="utf-8"))["version"])


PROMPTS = Registry("prompt")


def find(name: str) -> dict[str, dict[str, str]]:
    """The texts of a prompt's name, or of the only prompt in a user's YAML file; UserError."""
    if not name.endswith((".yaml", ".yml")):
        return PROMPTS.find(name)
    held = read(Path(name).expanduser())
    if len(held) != 1:
        raise UserError(f"{name} holds {len(held)} prompts; a file of your own holds one.")
    return next(iter(held.values()))


def build(tokenizer, texts: Mapping[str, Mapping[str, str]], labels: Sequence[str]) -> Prompt:
    """Tokenise a prompt's texts for these labels.

    Raises:
        UserError: two labels share their first token, or the tokenizer lacks the audio placeholder.
    """
    audio = tokenizer.convert_tokens_to_ids(AUDIO)
    if audio is None or audio == tokenizer.unk_token_id:
        raise UserError(f"the backbone's tokenizer has no {AUDIO} token; use a Qwen2-Audio model.")
    wordings = {
        (language, modality): _wording(tokenizer, text, labels)
        for modality, languages in texts.items()
        for language, text in languages.items()
    }
    plain = wordings.get(("", SPEECH)) or Wording((), ())
    return Prompt(
        prefix=plain.before,
        suffix=tuple(token for piece in plain.after for token in piece),
        audio=audio,
        answers=_answers(tokenizer, labels),
        wordings=wordings,
        tokenizer=tokenizer,
    )


def _answers(tokenizer, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    end = tokenizer.convert_tokens_to_ids(END)
    answers = tuple((*plain_ids(tokenizer, label), end) for label in labels)
    seen: dict[int, str] = {}
    for label, answer in zip(labels, answers, strict=True):
        if answer[0] in seen:
            raise UserError(
                f"the labels {seen[answer[0]]!r} and {label!r} begin with the same token, so they "
                "cannot be told apart at the answer position; rename one in data.labels."
            )
        seen[answer[0]] = label
    return answers


def _wording(tokenizer, text: str, labels: Sequence[str]) -> Wording:
    before, after = text.replace("{labels}", ", ".join(labels)).split("{audio}")
    pieces: list[tuple[int, ...] | str] = []
    for part, special in _parts(tokenizer, after):
        open_ = "{transcript}" in part and not special
        ids = part if open_ else _ids_of(tokenizer, part, special=special)
        if pieces and isinstance(pieces[-1], tuple) and isinstance(ids, tuple):
            pieces[-1] += ids
        else:
            pieces.append(ids)
    start = [
        token
        for part, special in _parts(tokenizer, before)
        for token in _ids_of(tokenizer, part, special=special)
    ]
    return Wording(tuple(start), tuple(pieces))


def _parts(tokenizer, text: str) -> list[tuple[str, bool]]:
    """A prompt's text cut at its special tokens: (part, whether it is one)."""
    added = tokenizer.get_added_vocab()
    marks = "|".join(re.escape(token) for token in sorted(added, key=len, reverse=True))
    parts = re.split(f"({marks})", text) if added else [text]
    return [(part, part in added) for part in parts if part]


def _ids_of(tokenizer, part: str, *, special: bool) -> tuple[int, ...]:
    return (tokenizer.get_added_vocab()[part],) if special else plain_ids(tokenizer, part)


def plain_ids(tokenizer, text: str) -> tuple[int, ...]:
    """Token ids of a text in which no special token is recognised, whatever it spells."""
    ids = tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    added = tokenizer.get_added_vocab()
    if not set(ids) & set(added.values()):
        return ids
    # An added token that is not declared special is matched all the same: take it apart.
    for token in sorted(added, key=len, reverse=True):
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    ids = tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    held = set(added.values())
    return tuple(token for token in ids if token not in held)


def clean(transcript: str) -> str:
    """A transcript as one line without control characters, at most `LONGEST` characters."""
    shown = "".join(
        " " if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") else sign
        for sign in transcript[: 4 * LONGEST]
    )
    return " ".join(shown.split())[:LONGEST]


def _by_language(text: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(text, str):
        return {"": text}
    # YAML reads the key `no`, which is Norwegian, as false.
    named = {"default": "", False: "no"}
    return {named.get(language, str(language)): str(t) for language, t in text.items()}


def _check(text: str, where: str, modality: str) -> None:
    wanted = int(modality == SPEECH_AND_TEXT)
    if modality not in MODALITIES:
        raise UserError(
            f"{where} has a text for {modality!r}; write {SPEECH} or {SPEECH_AND_TEXT}."
        )
    if text.count("{audio}") != 1 or AUDIO in text:
        raise UserError(f"{where} ({modality}) must hold {{audio}} once, and no {AUDIO} beside it.")
    if text.count("{transcript}") != wanted or "{transcript}" in text.split("{audio}")[0]:
        raise UserError(
            f"{where} ({modality}) must hold {{transcript}} "
            f"{'once, after {audio}' if wanted else 'nowhere: that is ' + SPEECH_AND_TEXT}."
        )


PROMPTS.update(read())
