"""A corpus as a user asks for it (`NAME=PATH`), the loader that reads it, and checks of several.

    request = resolve("ased=DIR")               # loader "manifest", source "ased"
    require_distinct([request, ...])

A corpus's source goes before the ids of its utterances and speakers: speaker 01 of two corpora is
two people.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from ermgap.config import one_line, quoted
from ermgap.corpora import demo, emodb, hf, jvnv, manifest, meld_st, ravdess
from ermgap.corpora.clip_paths import other_spelling
from ermgap.errors import UserError
from ermgap.registry import Registry

CORPORA = Registry("corpus")
CORPORA["demo"] = demo.load
CORPORA["emodb"] = emodb.load
CORPORA["hf"] = hf.load
CORPORA["jvnv"] = jvnv.load
CORPORA["manifest"] = manifest.load
CORPORA["meld_st"] = meld_st.load
CORPORA["ravdess"] = ravdess.load
FREELY_NAMED = ("manifest", "hf")  # loaders whose corpora can have any name
NAME = re.compile(r"\w[\w.-]*")  # of such a corpus


@dataclass(frozen=True)
class CorpusRequest:
    """One corpus of a run."""

    text: str  # as the user wrote it
    name: str  # its two halves
    path: Path | None
    loader: str  # the key of CORPORA that reads it
    source: str  # what goes before the ids of its utterances and speakers

    @property
    def location(self) -> str:
        """The file or folder that is read, with links followed; "" where no path was given."""
        if self.path is None:
            return ""
        is_manifest = self.loader == "manifest"
        return os.path.realpath(manifest.file_of(self.path) if is_manifest else self.path)

    @property
    def folder(self) -> str:
        """The folder of a manifest, with links followed; "" for other corpora."""
        return os.path.dirname(self.location) if self.loader == "manifest" else ""


def parse(text: str) -> tuple[str, Path | None]:
    """`NAME` or `NAME=PATH` as (name, path or None); raises UserError when either is wrong.

    Without a path the name is one of CORPORA, with one it is any: no file is looked at.
    """
    name, equals, path = (part.strip() for part in str(text).partition("="))
    if not equals and os.path.exists(name) and name not in CORPORA:
        raise UserError(f"the corpus {quoted(name)} is a path; write NAME={one_line(name)}.")
    if not path:
        CORPORA.find(name)
    if equals and not path:
        raise UserError(f"the corpus {text!r} has an empty path; write {name}=PATH.")
    if name not in CORPORA and not NAME.fullmatch(name):
        raise UserError(
            f"the corpus {quoted(name)} has a name that cannot go before its ids; write a name of "
            f"letters, digits, '-', '_' and '.', such as mine={one_line(path)}."
        )
    try:
        return name, Path(path).expanduser() if path else None
    except RuntimeError as problem:
        raise UserError(
            f"the path of the corpus {text!r} names an unknown user; write the whole path."
        ) from problem


def resolve(text: str) -> CorpusRequest:
    """The corpus that `NAME` or `NAME=PATH` stands for.

    Raises UserError as `parse`, and for a name that is none of CORPORA if the path holds neither
    a manifest.csv nor a saved dataset.
    """
    name, path = parse(text)
    if name in CORPORA:
        own = {"manifest": manifest.source_of, "hf": hf.source_of}.get(name)
        return CorpusRequest(text, name, path, name, own(path) if own and path else name)
    if (is_manifest := os.path.isfile(manifest.file_of(path))) or hf.is_saved(path):
        return CorpusRequest(text, name, path, "manifest" if is_manifest else "hf", name)
    content = "does not exist"
    if os.path.exists(path):
        content = "holds no manifest.csv and no saved dataset"
    elif other := other_spelling(path.absolute()):
        content += f", but {one_line(str(other))} does"
    near = difflib.get_close_matches(name.casefold(), CORPORA, n=1)
    raise UserError(
        f"there is no corpus called {quoted(name)}, and {one_line(str(path))} {content}; "
        + (f"did you mean {near[0]!r}?" if near else "name a folder that holds one.")
    )


def require_distinct(requests: Sequence[CorpusRequest]) -> None:
    """Raise UserError for two corpora that are one, or whose ids would not differ."""
    for first, second in combinations(requests, 2):
        free = first.loader in FREELY_NAMED and second.loader in FREELY_NAMED
        if first.name == second.name and not free:
            raise UserError(
                f"the corpus {second.name!r} is named twice; name it once (a folder with a "
                "manifest.csv may have any name)."
            )
        if first.loader == second.loader and first.location == second.location:
            raise UserError(f"{_both(first, second)} are the same corpus; name it once.")
        if first.source == second.source:
            raise UserError(
                f"{_both(first, second)} would both be the corpus {quoted(first.source)}, their "
                f"speakers taken for the same; {_remedy(first, second)}."
            )


def require_distinct_speakers(
    requests: Sequence[CorpusRequest], tables: Sequence[pd.DataFrame]
) -> None:
    """Raise UserError where speakers of two corpora, one of a free name, can be mixed up.

    That is an id in both tables (source a with speaker b_1, source a_b with speaker 1), and one
    that two manifests of the same folder give, perhaps to the same person.
    """
    parts = [
        (request, set(table["speaker"]) | set(table["group"]))
        for request, table in zip(requests, tables, strict=True)
    ]
    for (first, ids), (second, other_ids) in combinations(parts, 2):
        if not {first.loader, second.loader} & {*FREELY_NAMED}:
            continue
        if first.folder and first.folder == second.folder:
            ids = {name.removeprefix(f"{first.source}_") for name in ids}
            other_ids = {name.removeprefix(f"{second.source}_") for name in other_ids}
        if shared := ids & other_ids:
            raise UserError(
                f"{_both(first, second)} both have the speaker or group {quoted(min(shared))}; "
                f"{_remedy(first, second)}."
            )


def _both(first: CorpusRequest, second: CorpusRequest) -> str:
    return f"{one_line(first.text)} and {one_line(second.text)}"


def _remedy(first: CorpusRequest, second: CorpusRequest) -> str:
    if first.folder and first.folder == second.folder:
        return "join the two files in one, with a column 'split' if they are its parts"
    free = second if second.loader in FREELY_NAMED else first
    example = f"{one_line(free.source)}2={one_line(str(free.path))}"
    return f"give each folder a name of its own, such as {example}"
