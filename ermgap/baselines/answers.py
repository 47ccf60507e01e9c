"""A model's answer in its own words, read as one of the labels or as none.

    parse_answer("The speaker sounds angry.", ("anger", "joy"))    # "anger"
    parse_answer("I can't determine emotions.", ("anger", "joy"))  # "(refused)"

Models that generate seldom answer with one word. Nothing is guessed: two emotions without a clear
choice are no answer. The three constants are no labels, so `ermgap.metrics` counts them as wrong,
in a class of their own.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from ermgap.baselines import emotion_terms as terms
from ermgap.corpora.labels import ALIASES

UNPARSABLE = "(unparsable)"  # an answer that names no label, or several
REFUSED = "(refused)"  # the model declined
FAILED = "(failed)"  # the call never succeeded, so there is no answer

LONGEST = 4000  # characters of an answer that are read, half from each end
REACH = 8  # words between a denial and what it denies: "not what I would call an angry voice"
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


def parse_answer(text: str | None, labels: Sequence[str]) -> str:
    """The label that `text` names, UNPARSABLE, or REFUSED.

    Understood: capitals, quotes, markdown, JSON, "Answer: ...", sentences, inflections, the
    labels' names in English, German and Japanese, and denials ("not angry but sad").
    """
    text, vocabulary = _normalised(text), _Vocabulary(tuple(labels))
    if (value := _json_value(text)) is not None:
        text = value
    for part in _candidates(text):
        if len(affirmed := vocabulary.affirmed(part)) == 1:
            return affirmed.pop()
    declined = _refusal(_without_quotations(text)) or re.match(terms.APOLOGIES, text)
    return REFUSED if declined else UNPARSABLE


# The text ---------------------------------------------------------------------------------------


def _normalised(text: str | None) -> str:
    """`text` in lower case with ASCII quotes, without what a model thinks in <think> tags."""
    text = unicodedata.normalize("NFKC", text if isinstance(text, str) else "").casefold()
    text = re.sub(r"<think>.*?(?:</think>|$)", " ", text, flags=re.DOTALL)
    if len(text) > LONGEST:  # an answer stands at the beginning or at the end
        text = text[: LONGEST // 2] + "\n" + text[-LONGEST // 2 :]
    text = re.sub("[’‘`´]", "'", re.sub("[“”„«»「」『』]", '"', text))
    text = re.sub("[^\\S\n]+", " ", text)
    return text.strip().strip("\"'").strip()


def _json_value(text: str) -> str | None:
    """The answer in a JSON object in `text`, None where there is no object."""
    match = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        value = json.loads(match[0]) if match else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    answers = [value[key] for key in terms.JSON_KEYS if key in value]
    return re.sub(r'["\\[\]]', " ", json.dumps(answers[:1] or [value], ensure_ascii=False))


def _candidates(text: str) -> Iterator[str]:
    """Parts of `text` to search, the most explicit first; the first that names one label counts."""
    refused = _refusal(_without_quotations(text))
    if refused:
        text = "".join(_besides_refusal(text))
    for after in re.split(terms.MARKERS, text)[:0:-1]:
        yield re.split(r"[.!?\n。]", after.strip(" *_:\"'\n"), maxsplit=1)[0]
    yield "\n".join(line for line in text.splitlines() if len(re.findall(r"\w+", line)) == 1)
    yield "\n".join(re.findall(r"\*\*([^*]+)\*\*", text))
    unquoted = _without_quotations(text)
    if refused:  # what else is said may be an example ("texts such as ..."), unless it turns
        yield " ".join(re.split(terms.CONTRASTS, unquoted)[1:])
        return
    yield unquoted
    yield from re.split(terms.CONCLUSIONS, unquoted)[:0:-1]


def _besides_refusal(text: str) -> Iterator[str]:
    """The sentences of `text`; of one that declines, what follows its "but", with the "but"."""
    for sentence in re.split(r"(?<=[.!?。\n])", text):
        matches = [re.search(pattern, sentence) for pattern in terms.REFUSALS]
        ends = [match.end() for match in matches if match]
        turn = re.search(terms.CONTRASTS, sentence[max(ends) :]) if ends else None
        if not ends:
            yield sentence
        elif turn:
            yield sentence[max(ends) + turn.start() :]


def _without_quotations(text: str) -> str:
    """`text` without quotations of several words: what the speaker says, not how."""
    return re.sub(r'"[^"\n]*\s[^"\n]*"', " ", text)


def _refusal(text: str) -> bool:
    return any(re.search(pattern, text) for pattern in terms.REFUSALS)


# The emotions ------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
class _Vocabulary:
    """The words for one set of labels; finds the labels that a text affirms."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.spaced = _forms(labels, _spaced_forms)
        # A label's own name always means that label, even where it is a synonym of another.
        self.spaced |= {label.casefold(): label for label in labels}
        self.inside = _forms(labels, lambda emotion: terms.JAPANESE.get(emotion, "").split())
        longest_first = sorted(self.spaced, key=len, reverse=True)
        forms = "|".join(re.escape(form) for form in longest_first)
        # Japanese writes no space around a Latin word, so only Latin letters bound one.
        letter = "[a-z0-9à-ÿ]"
        self.tokens = re.compile(rf"(?<!{letter})(?:{forms})(?!{letter})|{letter}+|\S|\n")

    def affirmed(self, text: str) -> set[str]:
        """The labels that `text` (as `_normalised` returns it) names without denying them."""
        return {*self._spaced(text), *self._inside(text)}

    def _spaced(self, text: str) -> Iterator[str]:
        text = re.sub(terms.IDIOMS, " ", text)
        text = re.sub(r"n't\b|\bcannot\b", " not ", text)  # each denial as this word
        text = re.sub("|".join(terms.NEGATING_PHRASES), " not ", text)
        tokens = self.tokens.findall(text)
        reach = 0  # words that a denial still applies to
        for token, following in pairwise([*tokens, ""]):
            if token in self.spaced:
                if not reach:
                    yield self.spaced[token]
            elif token in terms.NEGATORS:
                reach = 0 if following in terms.NOT_DENIED else REACH
            elif token in terms.LINKS:
                if following not in self.spaced and following not in terms.LINKS | terms.CARRIERS:
                    reach = 0
            elif token in terms.TURNS or token in ".;:!?()。、\n":
                reach = 0
            else:
                reach = max(reach - 1, 0)

    def _inside(self, text: str) -> Iterator[str]:
        for idiom in terms.JAPANESE_IDIOMS:
            text = text.replace(idiom, " ")
        for form, label in self.inside.items():
            for match in re.finditer(re.escape(form), text):
                if not re.match(terms.JAPANESE_DENIAL, text[match.end() :]):
                    yield label


def _forms(labels: Sequence[str], forms_of) -> Mapping[str, str]:
    """Every form of every label's emotion (joy for the label happiness) -> the first such label."""
    label_of: dict[str, str] = {}
    for label in labels:
        emotion = ALIASES.get(label.casefold(), label.casefold())
        for form in forms_of(emotion):
            label_of.setdefault(form, label)
    return label_of


def _spaced_forms(emotion: str) -> Iterator[str]:
    yield from terms.ENGLISH.get(emotion, "").split()
    yield from (other for other, name in ALIASES.items() if name == emotion)
    for stem in terms.GERMAN.get(emotion, "").split():
        for form in (stem + ending for ending in terms.GERMAN_ENDINGS):
            yield from {form, form.translate(_UMLAUTS)}
