"""Loads a corpus from a folder whose file names say everything; shared by several loaders."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ermgap.config import one_line
from ermgap.corpora.audio_files import search
from ermgap.corpora.clip_paths import other_spelling
from ermgap.corpora.table import Corpus, excluded_frame, frame
from ermgap.errors import UserError


def need_path(path: Path | None, *, corpus: str, what: str) -> Path:
    """`path` made absolute; raises UserError when it was not given or does not exist."""
    if path is None:
        raise UserError(f"the corpus {corpus!r} needs {what}; write {corpus}=PATH.")
    try:
        exists = path.exists()
    except (OSError, ValueError):  # longer than a name can be, a NUL in it, or not to be looked at
        exists = False
    if not exists:
        other = other_spelling(path.absolute())
        hint = f" (there is {one_line(str(other))})" if other else ""
        raise UserError(f"there is no {path}{hint}; {corpus}=PATH wants {what}.")
    return path.absolute()


def load_named(
    path: Path | None,
    *,
    corpus: str,
    example: str,
    name: re.Pattern,
    describe: Callable[[re.Match], dict | str],
    provenance: Mapping[str, str],
    attributes: Sequence[str] = (),
) -> Corpus:
    """A corpus whose file names say everything, wherever they lie below a folder.

    `describe` turns the match of `name` and a file's stem into the row's columns (without id,
    corpus and path) or into the reason why it is excluded; `example` is such a file. `attributes`
    are those that the rows have beside gender, `provenance` is the corpus's. Of two files with one
    stem the first in sorted order stays, and one in a format that is not read here is excluded
    unless a readable one has its stem; hidden files are ignored. Raises UserError when the folder
    holds no audio.
    """
    root = need_path(path, corpus=corpus, what=f"the folder with its clips ({example})")
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; {corpus}=PATH wants the folder with {example}.")
    files = search(root)
    if not files:
        raise UserError(f"{root} holds no audio file; {corpus}=PATH wants {example} in it.")
    rows: dict[str, dict] = {}
    stems = {file.stem for file, problem in files if not problem}
    excluded = []
    for file, problem in sorted(files, key=lambda pair: not pair[1]):
        stem = file.stem
        if problem and stem in stems:
            continue
        match = name.fullmatch(stem)
        row = describe(match) if match else f"its name is not like {Path(example).stem}"
        row = problem or ("another file of the same name" if stem in rows else row)
        if isinstance(row, str):
            excluded.append({"corpus": corpus, "path": str(file), "reason": row})
        else:
            identity = {"utterance_id": f"{corpus}/{stem}", "corpus": corpus, "path": str(file)}
            rows[stem] = identity | row
    return Corpus(
        table=frame(list(rows.values()), attributes=attributes),
        excluded=excluded_frame(excluded),
        provenance=provenance,
    )
