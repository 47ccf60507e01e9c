"""A note on ids of speakers that differ in spelling alone: one voice may count as two people."""

from __future__ import annotations

import re
import unicodedata

import pandas as pd

MOST = 6  # people in the note, and ids of one
LONGEST = 80  # characters of an id


def spelling_notes(table: pd.DataFrame) -> list[str]:
    """A note that lists the ids which differ only in case, blanks, punctuation or zeros, if any do.

    Ids of speakers and of groups count; not an utterance's own, which stands for those not given.
    """
    alike: dict[tuple[str, ...], None] = {}
    for column in ("speaker", "group"):
        names = pd.unique(table.loc[table[column] != table["utterance_id"], column])
        spellings: dict[tuple[str, ...], list[str]] = {}
        for name in sorted(names):
            spellings.setdefault(_key(name), []).append(name)
        alike |= {tuple(same): None for same in spellings.values() if len(same) > 1}
    if not alike:
        return []
    listed = "; ".join(map(_listed, list(alike)[:MOST]))
    more = f"; and {len(alike) - MOST} more" if len(alike) > MOST else ""
    return [
        "ONE SPEAKER, SEVERAL IDS? These differ only in case, blanks, punctuation or zeros, yet "
        f"count as different people, on both sides of a split: {listed}{more}. Spell them alike "
        "where they are one voice"
    ]


def _listed(names: tuple[str, ...]) -> str:
    """The ids so that their difference shows: other forms of a letter are escaped."""
    same_letters = len({unicodedata.normalize("NFKC", name) for name in names}) < len(names)
    return " and ".join((ascii if same_letters else repr)(name[:LONGEST]) for name in names[:MOST])


def _key(name: str) -> tuple[str, ...]:
    """What alike ids have in common: `Spk_01`, `spk-1` and `SPK 1.0` are all (spk, 1)."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"(?<=\d)\.0+(?!\d)", "", text)  # a number that pandas held as float
    bare = "".join(" " if unicodedata.category(c)[0] in "ZPSC" else c for c in text)
    parts: list[str] = []
    for part in re.findall(r"\d+|[^\d\s]+", bare):
        if part[0].isdecimal():
            parts.append(part.lstrip("0") or "0")
        elif parts and not parts[-1][0].isdecimal():
            parts[-1] += part  # anna b is annab; 1 1 is not 11
        else:
            parts.append(part)
    return tuple(parts) or (name,)
