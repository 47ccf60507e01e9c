"""Keeps the utterances whose emotion is one of the labels, under the label's spelling.

    kept = keep_labels(table, MELD_LABELS, emotions={"exc": "joy"})      # a Corpus
    canonical_emotion("HAP", language="en")      # "joy", a code of CREMA-D; "" if not listed

`data/emotion_words.yaml` has the words and codes of public corpora. What a corpus tells apart is
not merged: excitement is not joy, calm is not neutral, frustration not anger. A user's own map,
`data.emotions`, is for these and for codes of one letter or digit.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from ermgap.config import one_line, safe_yaml
from ermgap.corpora.table import Corpus, excluded_frame
from ermgap.errors import UserError

REASON = r"^emotion (['\"])(?P<emotion>.*)\1 is not one of the labels$"
MOST = 8  # emotions in a message
ALIASES = {
    "angry": "anger", "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "happiness": "joy", "happy": "joy", "joyful": "joy", "sad": "sadness", "surprised": "surprise",
}  # fmt: skip
ITALIAN_CODES = {"rab", "dis", "pau", "gio", "neu", "tri", "sor"}
FILE = Path(__file__).parent / "data" / "emotion_words.yaml"


def keep_labels(
    table: pd.DataFrame,
    labels: Sequence[str],
    *,
    emotions: Mapping[str, str | None] | None = None,
) -> Corpus:
    """The rows whose emotion is one of `labels`, spelt as there, with the exclusions and notes.

    `emotions` (emotion -> label, or None to exclude it) decides first. Else an emotion is a label
    if it is written like it but for case, accents and hyphens, or is another word or code for it
    (`canonical_emotion`), unless two labels share that meaning and neither is its usual name. Notes
    name the codes and foreign words that were understood, and the others if they are half the rows.
    """
    pairs = list(zip(table["emotion"], table["language"], strict=True))
    own = {normalize(emotion): label for emotion, label in (emotions or {}).items()}
    label_of = {pair: _label(*pair, labels=labels, own=own) for pair in set(pairs)}
    label = pd.Series([label_of[pair] for pair in pairs], index=table.index, dtype=str)
    known = label != ""
    excluded = table.loc[~known, ["corpus", "path"]].assign(
        reason=[f"emotion {name!r} is not one of the labels" for name in table["emotion"][~known]]
    )
    return Corpus(
        table=table[known].assign(emotion=label[known]).reset_index(drop=True),
        excluded=excluded_frame(excluded),
        notes=tuple(_notes(table, label)),
    )


def _label(emotion: str, language: str, *, labels: Sequence[str], own: Mapping) -> str:
    """The label that a corpus's emotion stands for, or ""."""
    key = normalize(emotion)
    if key in own:
        return own[key] or ""
    name = canonical_emotion(emotion, language=language)
    same = [label for label in labels if normalize(label) == key]
    if named := [label for label in (emotion, *same, name) if label in labels]:
        return named[0]
    alike = [label for label in labels if name and canonical_emotion(label) == name]
    return alike[0] if len(alike) == 1 else ""


def _notes(table: pd.DataFrame, label: pd.Series) -> Iterator[str]:
    name, emotion = ", ".join(pd.unique(table["corpus"])), table["emotion"]
    key = emotion.map(normalize)
    renamed = ~key.isin(ALIASES) & (label != "") & (key != label.map(normalize))
    pairs = Counter(zip(emotion[renamed], label[renamed], strict=True))
    if pairs:
        listed = ", ".join(f"{one_line(own)} as {label}" for (own, label), _ in pairs.most_common())
        yield f"emotions of {name} were read as labels: {listed}"
    unknown = Counter(emotion[label == ""])
    if unknown and (2 * unknown.total() >= len(table) or label[label != ""].nunique() < 2):
        yield (
            f"{unknown.total()} of {len(table)} utterances of {name} are excluded, since their "
            f"emotions are not labels: {emotion_hint(unknown)}"
        )


def emotion_hint(unknown: Mapping[str, int]) -> str:
    """Emotions that are no labels, with counts, and how to map them; without a full stop."""
    counts = Counter(unknown).most_common()
    listed = ", ".join(f"{one_line(name, longest=40)} {n}" for name, n in counts[:MOST])
    more = f" and {len(counts) - MOST} others" if len(counts) > MOST else ""
    example = json.dumps(one_line(counts[0][0], longest=40), ensure_ascii=False)
    return (
        f"{listed}{more}; name them in data.labels, or say which label each stands for, such as "
        f"--set 'data.emotions={{{example}: LABEL}}'"
    )


def normalize(text: str) -> str:
    """A word as it is compared: without case, accents, hyphens and underscores, in one form."""
    parted = unicodedata.normalize("NFKD", text.casefold()).replace("ł", "l")
    bare = re.sub("[\u0300-\u036f]", "", parted)  # Latin, Greek and Cyrillic marks, not kana's
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", bare)).strip()


@cache
def by_language() -> dict[str, dict[str, str]]:
    """The emotion of each normalized word, by language."""
    emotions = {
        language: {normalize(text): name for name, texts in lists.items() for text in texts}
        for language, lists in safe_yaml.read(FILE.read_text(encoding="utf-8")).items()
    }
    emotions["en"] = {name: name for name in emotions["en"].values()} | ALIASES | emotions["en"]
    return emotions


def canonical_emotion(text: str, *, language: str = "") -> str:
    """The emotion that a word or code stands for, in MELD's terms where it has one; "" if unknown.

    Its own language decides, then English, then all others if they agree; but codes of Italian
    count in Italian only.
    """
    key, emotions = normalize(text), by_language()
    for own in (language, "en"):
        if key in emotions.get(own, {}):
            return emotions[own][key]
    if key in ITALIAN_CODES:
        return ""
    meanings = {names[key] for names in emotions.values() if key in names}
    return meanings.pop() if len(meanings) == 1 else ""


def require_two_emotions(table: pd.DataFrame, excluded: pd.DataFrame) -> None:
    """Raise UserError unless two emotions or more are in both train and dev.

    With fewer, every model gives the majority's answer and every trial is degenerate. `excluded`
    has the emotions that are no labels, for the message.
    """
    splits = table["split"]
    counts = {name: Counter(table["emotion"][splits == name]) for name in ("train", "dev")}
    if len(set(counts["train"]) & set(counts["dev"])) >= 2:
        return
    tally = "; ".join(
        f"{name}: {', '.join(f'{e} {n}' for e, n in count.most_common(MOST)) or 'none'}"
        for name, count in counts.items()
    )
    unknown = Counter(excluded["reason"].str.extract(REASON)["emotion"].dropna())
    remedy = "give both splits utterances of two emotions or more"
    if unknown:
        remedy = (
            f"{unknown.total()} utterances were excluded, since their emotions are not labels: "
            f"{emotion_hint(unknown)}"
        )
    raise UserError(
        f"fewer than two emotions are in both train and dev ({tally}), so that a model has nothing "
        f"to tell apart; {remedy}."
    )
