"""What a model said, read as one of the labels or as none.

    parse_answer("The speaker sounds angry.", ("anger", "joy"))    # "anger"
    parse_answer("I can't determine emotions.", ("anger", "joy"))  # "(refused)"

Models that generate do not answer with one word. The reading is strict where it has to guess:
two emotions without a clear choice are no answer. The three constants are no labels, so
`ermgap.metrics` counts them as wrong, in a class of their own; `tally` counts them for the table.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import pandas as pd

from ermgap.baselines import words
from ermgap.corpora.emotion_words import ALIASES

UNPARSABLE = "(unparsable)"  # an answer that names no label, or several
REFUSED = "(refused)"  # the model declined
FAILED = "(failed)"  # the call never succeeded, so there is no answer

LONGEST = 4000  # characters of an answer that are read
REACH = 8  # words between a denial and what it denies: "not what I would call an angry voice"
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


def parse_answer(text: str | None, labels: Sequence[str]) -> str:
    """The label that `text` names, UNPARSABLE, or REFUSED.

    Understood: capitals, quotes, markdown, JSON, "Answer: ...", sentences, inflections, the
    labels' words in English, German and Japanese, and denials ("not angry but sad").
    """
    text = _plain(text)
    vocabulary = _vocabulary(tuple(labels))
    if (value := _json_value(text)) is not None:
        text = value
    for part in _candidates(text):
        if len(named := vocabulary.affirmed(part)) == 1:
            return named.pop()
    return REFUSED if _declines(text) else UNPARSABLE


def tally(predictions: Iterable[str] | pd.DataFrame) -> dict[str, int]:
    """How many of the predictions (or of a predictions table) are none: constant -> count."""
    if isinstance(predictions, pd.DataFrame):
        predictions = predictions["prediction"]
    found = list(predictions)
    return {name: found.count(name) for name in (UNPARSABLE, REFUSED, FAILED)}


# The text ---------------------------------------------------------------------------------------


def _plain(text: str | None) -> str:
    """`text` in lower case and one kind of apostrophe and quotes, without a model's thoughts."""
    text = unicodedata.normalize("NFKC", text if isinstance(text, str) else "").casefold()
    text = re.sub(r"<think>.*?(?:</think>|$)", " ", text, flags=re.DOTALL)
    if len(text) > LONGEST:  # an answer stands at the beginning or at the end
        text = text[: LONGEST // 2] + "\n" + text[-LONGEST // 2 :]
    text = re.sub("[’‘`´]", "'", re.sub("[“”„«»「」『』]", '"', text))
    text = re.sub("[^\\S\n]+", " ", text)
    return text.strip().strip("\"'").strip()


def _json_value(text: str) -> str | None:
    """What a JSON object in `text` answers, None without one."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        value = json.loads(found[0]) if found else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    named = [value[key] for key in words.JSON_KEYS if key in value]
    return re.sub(r'["\\[\]]', " ", json.dumps(named[:1] or [value], ensure_ascii=False))


def _candidates(text: str) -> Iterator[str]:
    """Parts of `text` in which to look, the most explicit first; the first with one label wins."""
    refused = _refusal(_without_speech(text))
    if refused:
        text = "".join(_beyond_refusal(text))
    for after in re.split(words.MARKERS, text)[:0:-1]:
        yield re.split(r"[.!?\n。]", after.strip(" *_:\"'\n"), maxsplit=1)[0]
    yield "\n".join(line for line in text.splitlines() if len(re.findall(r"\w+", line)) == 1)
    yield "\n".join(re.findall(r"\*\*([^*]+)\*\*", text))
    unquoted = _without_speech(text)
    if refused:  # what else is said may be an example ("texts such as ..."), unless it turns
        yield " ".join(re.split(words.CONTRASTS, unquoted)[1:])
        return
    yield unquoted
    yield from re.split(words.CONCLUSIONS, unquoted)[:0:-1]


def _beyond_refusal(text: str) -> Iterator[str]:
    """The sentences of `text`; of one that declines, what follows its "but", with the "but"."""
    for sentence in re.split(r"(?<=[.!?。\n])", text):
        found = [re.search(pattern, sentence) for pattern in words.REFUSALS]
        ends = [match.end() for match in found if match]
        turn = re.search(words.CONTRASTS, sentence[max(ends) :]) if ends else None
        if not ends:
            yield sentence
        elif turn:
            yield sentence[max(ends) + turn.start() :]


def _without_speech(text: str) -> str:
    """`text` without quotations of several words: what the speaker says, not how."""
    return re.sub(r'"[^"\n]*\s[^"\n]*"', " ", text)


def _refusal(text: str) -> bool:
    return any(re.search(pattern, text) for pattern in words.REFUSALS)


def _declines(text: str) -> bool:
    return _refusal(_without_speech(text)) or re.match(words.APOLOGIES, text) is not None


# The words --------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _vocabulary(labels: tuple[str, ...]) -> _Vocabulary:
    return _Vocabulary(labels)


class _Vocabulary:
    """The words of one set of labels, and the emotions that a text affirms with them."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.spaced = _forms(labels, _spaced_forms)
        # A label's own word is its own, whatever else it may be another word for.
        self.spaced |= {label.casefold(): label for label in labels}
        self.inside = _forms(labels, lambda emotion: words.JAPANESE.get(emotion, "").split())
        longest_first = sorted(self.spaced, key=len, reverse=True)
        forms = "|".join(re.escape(form) for form in longest_first)
        # Japanese writes no space around a Latin word, so only Latin letters bound one.
        letter = "[a-z0-9à-ÿ]"
        self.tokens = re.compile(rf"(?<!{letter})(?:{forms})(?!{letter})|{letter}+|\S|\n")

    def affirmed(self, text: str) -> set[str]:
        """The labels that `text` (as `_plain` gives it) names without denying them."""
        return {*self._spaced(text), *self._inside(text)}

    def _spaced(self, text: str) -> Iterator[str]:
        tokens = self.tokens.findall(_unfolded(text))
        left = 0  # words that a denial still reaches
        for token, following in pairwise([*tokens, ""]):
            if token in self.spaced:
                if not left:
                    yield self.spaced[token]
            elif token in words.NEGATORS:
                left = 0 if following in words.NOT_DENIED else REACH
            elif token in words.LINKS:
                goes_on = following in self.spaced or following in words.LINKS | words.CARRIERS
                left = left if goes_on else 0
            elif token in words.TURNS or token in ".;:!?()。、\n":
                left = 0
            else:
                left = max(left - 1, 0)

    def _inside(self, text: str) -> Iterator[str]:
        for idiom in words.JAPANESE_IDIOMS:
            text = text.replace(idiom, " ")
        for form, label in self.inside.items():
            for found in re.finditer(re.escape(form), text):
                if not re.match(words.JAPANESE_DENIAL, text[found.end() :]):
                    yield label


def _unfolded(text: str) -> str:
    """`text` without idioms, every denial a word of its own."""
    text = re.sub(words.IDIOMS, " ", text)
    text = re.sub(r"n't\b|\bcannot\b", " not ", text)
    return re.sub("|".join(words.NEGATING_PHRASES), " not ", text)


def _forms(labels: Sequence[str], forms_of) -> Mapping[str, str]:
    """Every form of every label's emotion (joy for the label happiness) -> the first label."""
    found: dict[str, str] = {}
    for label in labels:
        emotion = ALIASES.get(label.casefold(), label.casefold())
        for form in forms_of(emotion):
            found.setdefault(form, label)
    return found


def _spaced_forms(emotion: str) -> Iterator[str]:
    yield from words.ENGLISH.get(emotion, "").split()
    yield from (other for other, name in ALIASES.items() if name == emotion)
    for word in words.GERMAN.get(emotion, "").split():
        for form in (word + ending for ending in words.GERMAN_ENDINGS):
            yield from {form, form.translate(_UMLAUTS)}
