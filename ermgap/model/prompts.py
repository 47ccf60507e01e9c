"""Prompts: the text that the model reads before it answers, and the tokens of the answers.

The texts are data (`prompts.yaml`, or a user's own file of that form). A text is tokenised in three
parts: before the audio, the audio placeholders, and after the audio. The placeholders are expanded
here to the clip's number of audio tokens, so that transformers need not merge anything. A label is
answered by its name; the labels' first tokens must differ, because a prediction is the softmax over
them at the answer position.

A transcript is data, not markup: special tokens are recognised in the text of the prompt alone, and
a transcript that spells one (`<|im_end|>`, `<|AUDIO|>`) is tokenised as plain characters.
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
LONGEST = 1000  # characters of a transcript that are used; MELD's longest has 400
FILE = Path(__file__).with_name("prompts.yaml")
# What follows the audio: runs of token ids, and texts to be filled in with the transcript.
Pieces = tuple[tuple[int, ...] | str, ...]
Text = tuple[tuple[int, ...], Pieces]  # what comes before the placeholders, and after them


@dataclass(frozen=True)
class Prompt:
    """A prompt tokenised in all its languages and modalities, with the answers.

    Attributes:
        prefix, suffix: ids before and after the audio placeholders, for speech alone in a language
            without a text of its own; empty where the prompt has no such text.
        audio: id of the placeholder.
        answers: per label, the ids of its name followed by the end token.
        texts: by (language, modality); the language "" is any other.
        tokenizer: reads transcripts; None where there are none.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    audio: int
    answers: tuple[tuple[int, ...], ...]
    texts: Mapping[tuple[str, str], Text] = field(default_factory=dict, repr=False)
    tokenizer: object = field(default=None, repr=False)

    @property
    def first_tokens(self) -> list[int]:
        """Per label, the id whose logit at the answer position is the label's score."""
        return [answer[0] for answer in self.answers]

    def around(
        self, *, language: str = "", modality: str = SPEECH, transcript: str = ""
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids before and after the audio placeholders, for one utterance."""
        text = self.texts.get((language, modality)) or self.texts.get(("", modality))
        if text is None:
            if modality == SPEECH and not self.texts:
                return self.prefix, self.suffix
            raise UserError(
                f"the prompt has no text for {modality} in the language {language!r}; "
                "write one for it or under default, or use chat."
            )
        before, pieces = text
        after: list[int] = []
        for piece in pieces:
            if isinstance(piece, str):
                filled = piece.replace("{transcript}", clean(transcript))
                piece = plain_ids(self.tokenizer, filled)
            after.extend(piece)
        return before, tuple(after)


def read(file: Path = FILE) -> dict[str, dict[str, dict[str, str]]]:
    """Texts of a file by prompt, modality and language ("" for the default).

    Raises:
        UserError: the file cannot be read, or a text lacks `{audio}` or holds what it must not.
    """
    try:
        names = safe_yaml.read(file.read_text(encoding="utf-8"))["prompts"]
        prompts = {
            name: {modality: _by_language(text) for modality, text in texts.items()}
            for name, texts in names.items()
        }
    except (OSError, ValueError, yaml.YAMLError) as problem:  # such as 2020-13-45
        line = safe_yaml.one_line(str(problem))
        raise UserError(f"the prompts in {file} cannot be read ({line}); fix it.") from problem
    except (TypeError, KeyError, AttributeError) as problem:
        raise UserError(
            f"{file} is not a file of prompts; write `prompts:`, below it names and below a name a "
            f"text for {SPEECH} and {SPEECH_AND_TEXT}, as in ermgap/model/prompts.yaml."
        ) from problem
    for name, texts in prompts.items():
        for modality, languages in texts.items():
            for text in languages.values():
                _check(text, f"the prompt {name!r} in {file.name}", modality)
    return prompts


def version() -> int:
    """Version of the shipped texts."""
    return int(yaml.safe_load(FILE.read_text(encoding="utf-8"))["version"])


PROMPTS = Registry("prompt")


def find(name: str) -> dict[str, dict[str, str]]:
    """The texts of a registered prompt, or of the only one in a user's YAML file."""
    if not name.endswith((".yaml", ".yml")):
        return PROMPTS.find(name)
    prompts = read(Path(name).expanduser())
    if len(prompts) != 1:
        raise UserError(f"{name} holds {len(prompts)} prompts; a file of your own holds one.")
    return next(iter(prompts.values()))


def question(modality: str) -> str:
    """What the prompt `chat` says to the model after the audio, without special tokens."""
    return PROMPTS["chat"][modality][""].split(AUDIO_EOS)[1].split(END)[0].strip()


def build(tokenizer, texts: Mapping[str, Mapping[str, str]], labels: Sequence[str]) -> Prompt:
    """Tokenise a prompt's texts for these labels.

    Raises:
        UserError: two labels share their first token, or the tokenizer lacks the audio placeholder.
    """
    audio = tokenizer.convert_tokens_to_ids(AUDIO)
    if audio is None or audio == tokenizer.unk_token_id:
        raise UserError(f"the backbone's tokenizer has no {AUDIO} token; use a Qwen2-Audio model.")
    tokenised = {
        (language, modality): _tokenised(tokenizer, text, labels)
        for modality, languages in texts.items()
        for language, text in languages.items()
    }
    prefix, after = tokenised.get(("", SPEECH), ((), ()))
    return Prompt(
        prefix=prefix,
        suffix=sum(after, ()),
        audio=audio,
        answers=_answers(tokenizer, labels),
        texts=tokenised,
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
                "cannot be distinguished at the answer position; rename one in data.labels."
            )
        seen[answer[0]] = label
    return answers


def _tokenised(tokenizer, text: str, labels: Sequence[str]) -> Text:
    before, after = text.replace("{labels}", ", ".join(labels)).split("{audio}")
    return sum(_pieces(tokenizer, before), ()), _pieces(tokenizer, after)


def _pieces(tokenizer, text: str) -> Pieces:
    """The text, cut at its special tokens; runs of ids are joined."""
    added = tokenizer.get_added_vocab()
    marks = "|".join(re.escape(token) for token in sorted(added, key=len, reverse=True))
    pieces: list[tuple[int, ...] | str] = []
    for part in filter(None, re.split(f"({marks})", text) if added else [text]):
        if "{transcript}" in part and part not in added:
            pieces.append(part)
            continue
        ids = (added[part],) if part in added else plain_ids(tokenizer, part)
        if pieces and isinstance(pieces[-1], tuple):
            pieces[-1] += ids
        else:
            pieces.append(ids)
    return tuple(pieces)


def plain_ids(tokenizer, text: str) -> tuple[int, ...]:
    """Token ids of a text in which no special token is recognised, even if it spells one."""

    def ids_of(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    ids, added = ids_of(text), tokenizer.get_added_vocab()
    special = set(added.values())
    if special.isdisjoint(ids):
        return ids
    # An added token that is not declared special is recognised all the same: split it.
    for token in sorted(added, key=len, reverse=True):
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return tuple(token for token in ids_of(text) if token not in special)


def clean(transcript: str) -> str:
    """A transcript as one line without control characters, at most `LONGEST` characters."""
    text = "".join(
        " " if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") else character
        for character in transcript[: 4 * LONGEST]
    )
    return " ".join(text.split())[:LONGEST]


def _by_language(text: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(text, str):
        return {"": text}
    keys = {"default": "", False: "no"}  # YAML reads the key `no`, which is Norwegian, as false
    return {keys.get(language, str(language)): str(t) for language, t in text.items()}


def _check(text: str, where: str, modality: str) -> None:
    count = int(modality == SPEECH_AND_TEXT)
    if modality not in MODALITIES:
        raise UserError(
            f"{where} has a text for {modality!r}; write {SPEECH} or {SPEECH_AND_TEXT}."
        )
    if text.count("{audio}") != 1 or AUDIO in text:
        raise UserError(f"{where} ({modality}) must hold {{audio}} once, and no {AUDIO} beside it.")
    if text.count("{transcript}") != count or "{transcript}" in text.split("{audio}")[0]:
        raise UserError(
            f"{where} ({modality}) must hold {{transcript}} "
            f"{'once, after {audio}' if count else 'nowhere: that is ' + SPEECH_AND_TEXT}."
        )


PROMPTS.update(read())
