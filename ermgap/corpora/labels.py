"""The emotions a model answers with, and the utterances whose emotion is one of them.

    kept = keep_labels(table, MELD_LABELS, emotions={"exc": "joy"})      # a Corpus
    require_two(split_table, kept.excluded)

The second refuses a split that leaves a model nothing to tell apart.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from ermgap.config import one_line
from ermgap.corpora.emotion_words import ALIASES, fold, meaning
from ermgap.corpora.table import Corpus, excluded_frame
from ermgap.errors import UserError

__all__ = ["ALIASES", "MELD_LABELS", "advice", "keep_labels", "require_two"]

MELD_LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
REASON = re.compile(r"emotion (['\"])(?P<word>.*)\1 is not one of the labels")
MOST = 8  # words in a message


def keep_labels(
    table: pd.DataFrame,
    labels: Sequence[str],
    *,
    emotions: Mapping[str, str | None] | None = None,
) -> Corpus:
    """The rows whose emotion is one of `labels`, spelt as there, with the exclusions and notes.

    `emotions` (word -> label, or None to leave the word out) decides first. Else an emotion is a
    label if it is written like it but for case, accents and hyphens, or is another word or code for
    it (`emotion_words`), unless two labels share that meaning and neither is its usual name. Notes
    name the codes and foreign words that were understood, and what is not if that is half the rows.
    """
    pairs = list(zip(table["emotion"], table["language"], strict=True))
    own = {fold(word): label for word, label in (emotions or {}).items()}
    read = {pair: _label(*pair, labels=labels, own=own) for pair in set(pairs)}
    emotion = pd.Series([read[pair] for pair in pairs], index=table.index, dtype=str)
    known = emotion != ""
    left_out = table.loc[~known, ["corpus", "path"]].assign(
        reason=[f"emotion {word!r} is not one of the labels" for word in table["emotion"][~known]]
    )
    return Corpus(
        table=table[known].assign(emotion=emotion[known]).reset_index(drop=True),
        excluded=excluded_frame([left_out]),
        notes=tuple(_notes(table, emotion)),
    )


def _label(word: str, language: str, *, labels: Sequence[str], own: Mapping) -> str:
    """The label that a word stands for, or ""."""
    key = fold(word)
    if key in own:
        return own[key] or ""
    if word in labels:
        return word
    for label in labels:
        if fold(label) == key:
            return label
    meant = meaning(word, language=language)
    if meant in labels:
        return meant
    alike = [label for label in labels if meant and meaning(label) == meant]
    return alike[0] if len(alike) == 1 else ""


def _notes(table: pd.DataFrame, emotion: pd.Series) -> list[str]:
    name = ", ".join(pd.unique(table["corpus"]))
    plain = table["emotion"].map(lambda word: fold(word) in ALIASES)
    renamed = ~plain & (emotion != "") & (table["emotion"].map(fold) != emotion.map(fold))
    read = Counter(zip(table["emotion"][renamed], emotion[renamed], strict=True))
    notes = []
    if read:
        words = ", ".join(f"{one_line(w)} as {label}" for (w, label), _ in read.most_common())
        notes.append(f"emotions of {name} were read as labels: {words}")
    unknown = Counter(table["emotion"][emotion == ""])
    if unknown and (2 * unknown.total() >= len(table) or emotion[emotion != ""].nunique() < 2):
        notes.append(
            f"{unknown.total()} of {len(table)} utterances of {name} are left out, since their "
            f"emotions are not labels: {advice(unknown)}"
        )
    return notes


def advice(unknown: Mapping[str, int]) -> str:
    """The words that are no labels, with counts, and how to make them some; without a full stop."""
    words = list(Counter(unknown).most_common())
    listed = ", ".join(f"{one_line(word, longest=40)} {n}" for word, n in words[:MOST])
    more = f" and {len(words) - MOST} other words" if len(words) > MOST else ""
    example = json.dumps(one_line(words[0][0], longest=40), ensure_ascii=False)
    return (
        f"{listed}{more}; name them in data.labels, or say which label each stands for, such as "
        f"--set 'data.emotions={{{example}: LABEL}}'"
    )


def require_two(table: pd.DataFrame, excluded: pd.DataFrame) -> None:
    """Raise UserError unless two emotions or more are in both train and dev.

    With fewer, every model gives the majority's answer and every trial is degenerate. `excluded`
    has the words that are no labels, for the message.
    """
    splits = table["split"]
    here = {name: Counter(table["emotion"][splits == name]) for name in ("train", "dev")}
    if len(set(here["train"]) & set(here["dev"])) >= 2:
        return
    tally = "; ".join(
        f"{name}: {', '.join(f'{e} {n}' for e, n in found.most_common(MOST)) or 'none'}"
        for name, found in here.items()
    )
    found = (REASON.fullmatch(reason) for reason in excluded["reason"])
    unknown = Counter(match["word"] for match in found if match)
    remedy = (
        f"{unknown.total()} utterances were left out, since their emotions are not labels: "
        f"{advice(unknown)}"
        if unknown
        else "give both splits utterances of two emotions or more"
    )
    raise UserError(
        f"fewer than two emotions are in both train and dev ({tally}), so that a model has nothing "
        f"to tell apart; {remedy}."
    )
