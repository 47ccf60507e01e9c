"""Which loader reads `NAME=PATH`, and that the corpora of one run can be told apart.

    given = resolve("ased=DIR", "ased", Path("DIR"), CORPORA)   # loader "manifest", source "ased"
    refuse_repeats([given, ...])

A corpus's source goes before the ids of its utterances and speakers: speaker 01 of two corpora is
two people.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from ermgap.config import one_line, quoted
from ermgap.corpora.clip_paths import respelt
from ermgap.errors import UserError

NAMED = ("manifest", "hf")  # loaders whose corpora can have any name


@dataclass(frozen=True)
class Given:
    """One corpus of a run.

    Attributes:
        name: as the user wrote it.
        word, path: its two halves.
        loader: the key of CORPORA that reads it.
        source: what goes before the ids of its utterances and speakers.
    """

    name: str
    word: str
    path: Path | None
    loader: str
    source: str

    @property
    def place(self) -> str:
        """The file or folder that is read, with links followed; "" where none was given."""
        from ermgap.corpora import manifest

        if self.path is None:
            return ""
        return os.path.realpath(
            manifest.file_of(self.path) if self.loader == "manifest" else self.path
        )

    @property
    def folder(self) -> str:
        """The folder that a manifest lies in, with links followed; "" for other corpora."""
        return os.path.dirname(self.place) if self.loader == "manifest" else ""


def resolve(name: str, word: str, path: Path | None, loaders: Iterable[str]) -> Given:
    """The corpus that `word` and `path` (of `corpora.parse`) stand for.

    Raises UserError for a word that is none of `loaders` if the path holds neither a manifest.csv
    nor a saved dataset.
    """
    from ermgap.corpora import hf, manifest

    if word in loaders:
        own = {"manifest": manifest.source_of, "hf": hf.source_of}.get(word)
        return Given(name, word, path, word, own(path) if own and path is not None else word)
    if os.path.isfile(manifest.file_of(path)):
        return Given(name, word, path, "manifest", word)
    if hf.is_saved(path):
        return Given(name, word, path, "hf", word)
    near = difflib.get_close_matches(word.casefold(), loaders, n=1)
    other = None if os.path.exists(path) else respelt(path.absolute())
    absent = f"does not exist, but {one_line(str(other))} does" if other else "does not exist"
    held = "holds no manifest.csv and no saved dataset" if os.path.exists(path) else absent
    raise UserError(
        f"there is no corpus called {quoted(word)}, and {one_line(str(path))} {held}; "
        + (f"did you mean {near[0]!r}?" if near else "name a folder that holds one.")
    )


def refuse_repeats(given: Sequence[Given]) -> None:
    """Raise UserError for two corpora that are one, or whose ids would not differ."""
    for first, second in combinations(given, 2):
        free = first.loader in NAMED and second.loader in NAMED
        if first.word == second.word and not free:
            raise UserError(
                f"the corpus {second.word!r} is named twice; name it once (a folder with a "
                "manifest.csv may have any name)."
            )
        if first.loader == second.loader and first.place == second.place:
            raise UserError(f"{_both(first, second)} are the same corpus; name it once.")
        if first.source == second.source:
            raise UserError(
                f"{_both(first, second)} would both be the corpus {quoted(first.source)}, their "
                f"speakers taken for the same; {_remedy(first, second)}."
            )


def refuse_shared_speakers(given: Sequence[Given], tables: Sequence[pd.DataFrame]) -> None:
    """Raise UserError where speakers of two corpora, one of a free name, can be mixed up.

    That is an id in both tables (source a with speaker b_1, source a_b with speaker 1), and one
    that two manifests of the same folder give, perhaps to the same person.
    """
    parts = [
        (one, set(table["speaker"]) | set(table["group"]))
        for one, table in zip(given, tables, strict=True)
    ]
    for (first, mine), (second, theirs) in combinations(parts, 2):
        if not {first.loader, second.loader} & {*NAMED}:
            continue
        if first.folder and first.folder == second.folder:
            mine, theirs = (
                {name.removeprefix(f"{one.source}_") for name in names}
                for one, names in ((first, mine), (second, theirs))
            )
        if shared := mine & theirs:
            raise UserError(
                f"{_both(first, second)} both have the speaker or group {quoted(min(shared))}; "
                f"{_remedy(first, second)}."
            )


def _both(first: Given, second: Given) -> str:
    return f"{one_line(first.name)} and {one_line(second.name)}"


def _remedy(first: Given, second: Given) -> str:
    if first.folder and first.folder == second.folder:
        return "join the two files in one, with a column 'split' if they are its parts"
    free = second if second.loader in NAMED else first
    another = f"{one_line(free.source)}2={one_line(str(free.path))}"
    return f"give each folder a name of its own, such as {another}"
