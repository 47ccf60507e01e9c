"""The emotion that a word or code of a public corpus stands for (`data/emotion_words.yaml`).

    canonical_emotion("HAP", language="en")      # "joy", a code of CREMA-D; "" if not listed

What a corpus tells apart is not merged: excitement is not joy, calm is not neutral, frustration not
anger. A user's own map, `data.emotions`, is for these and for codes of one letter or digit.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

from ermgap.config import safe_yaml

ALIASES = {
    "angry": "anger", "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "happiness": "joy", "happy": "joy", "joyful": "joy", "sad": "sadness", "surprised": "surprise",
}  # fmt: skip
ITALIAN_CODES = {"rab", "dis", "pau", "gio", "neu", "tri", "sor"}
FILE = Path(__file__).parent / "data" / "emotion_words.yaml"


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
