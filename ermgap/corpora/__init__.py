"""Corpora on disk, each read into the same table of utterances.

    from ermgap import corpora
    corpus = corpora.load(["emodb=PATH", "ravdess=PATH"], labels=corpora.MELD_LABELS)
    split_table = split.assign(corpus.table, seed=0)
    print(table.describe(split_table, excluded=corpus.excluded, notes=corpus.notes))

A name that no loader has is that of a manifest or of a saved dataset: `ased=FOLDER` (see `load`).

A corpus is a function `load(path: Path | None) -> Corpus` and one line in `CORPORA`, here or in a
plugin (`CORPORA["mine"] = load`). A corpus whose genders come from a table of speakers takes a
user's own as well: `load(path, *, genders: Path | None = None)`; one whose rows name files takes
`outside: bool = False`, whether these may lie elsewhere than below its folder. Nothing in this
package imports torch or Ray. `python -m ermgap.corpora describe NAME[=PATH]` prints what a corpus
holds.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature
from pathlib import Path

import pandas as pd

from ermgap.config import one_line, quoted
from ermgap.corpora import audio, levels, sources
from ermgap.corpora import table as tables
from ermgap.corpora.labels import MELD_LABELS, keep_labels
from ermgap.corpora.speakers import spelling_notes
from ermgap.corpora.table import COLUMNS, Corpus
from ermgap.errors import UserError
from ermgap.registry import Registry

__all__ = ["CORPORA", "MELD_LABELS", "Corpus", "load", "parse"]


def _lazy(module: str, *options: str) -> Callable[..., Corpus]:
    """`load` of a loader's module, imported when it is first used, with the same signature."""

    def load_corpus(path: Path | None, **given) -> Corpus:
        return importlib.import_module(f"ermgap.corpora.{module}").load(path, **given)

    named = [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in options]
    load_corpus.__signature__ = Signature([Parameter("path", Parameter.POSITIONAL_ONLY), *named])
    return load_corpus


NAME = re.compile(r"\w[\w.-]*")  # of a corpus that no loader is called by
CORPORA = Registry("corpus")
CORPORA["demo"] = _lazy("demo", "outside")
CORPORA["emodb"] = _lazy("emodb")
CORPORA["hf"] = _lazy("hf", "outside", "corpus")
CORPORA["jvnv"] = _lazy("jvnv")
CORPORA["manifest"] = _lazy("manifest", "outside", "corpus")
CORPORA["meld_st"] = _lazy("meld_st", "genders")
CORPORA["ravdess"] = _lazy("ravdess")


def parse(name: str) -> tuple[str, Path | None]:
    """`NAME` or `NAME=PATH` as (name, path or None); raises UserError when either is wrong.

    Without a path the name is one of CORPORA, with one it is any: no file is looked at.
    """
    word, equals, path = (part.strip() for part in str(name).partition("="))
    if not equals and os.path.exists(word) and word not in CORPORA:
        raise UserError(f"the corpus {quoted(word)} is a path; write NAME={one_line(word)}.")
    if not path:
        CORPORA.find(word)
    if equals and not path:
        raise UserError(f"the corpus {name!r} has an empty path; write {word}=PATH.")
    if word not in CORPORA and not NAME.fullmatch(word):
        raise UserError(
            f"the corpus {quoted(word)} has a name that cannot go before its ids; write a name of "
            f"letters, digits, '-', '_' and '.', such as mine={one_line(path)}."
        )
    try:
        return word, Path(path).expanduser() if path else None
    except RuntimeError as problem:
        raise UserError(
            f"the corpus {name!r} has the path of no user; write it whole."
        ) from problem


def load(
    names: Sequence[str],
    *,
    labels: Sequence[str] = MELD_LABELS,
    strict: bool = False,
    window_s: float | None = None,
    genders: Path | None = None,
    outside: bool = False,
    emotions: Mapping[str, str | None] | None = None,
) -> Corpus:
    """Load, join and check corpora; the result's clips can all be read and carry one of `labels`.

    Each name is `NAME` or `NAME=PATH`. NAME is a key of CORPORA, or any other where PATH holds a
    manifest.csv (or is such a file) or a saved dataset, which is then a corpus of that name. Left
    out and listed in `excluded`: what a loader left out, emotions outside `labels`, clips that
    `audio.inspect` refuses, and byte-identical copies (the first stays). `strict` turns a damaged
    clip, and a clip longer than `window_s` seconds, into a UserError; otherwise the longer clips
    are counted in `notes`. Corpora keep the order of `names`.
    `genders` is a CSV (speaker, gender) that replaces the shipped one of a corpus such as meld_st.
    `outside` lets a manifest name clips that do not lie below its folder. `emotions` says which
    label a corpus's word stands for (`labels.keep_labels`).

    Raises UserError for an unknown name, two corpora of one folder or one name, a bad path or
    manifest, a table that `table.check` refuses, a corpus of which nothing is left, and `genders`
    that no corpus reads.
    """
    if isinstance(names, str) or not names:
        raise UserError("no corpus was named; write NAME or NAME=PATH, such as demo.")
    given = [sources.resolve(name, *parse(name), CORPORA) for name in names]
    sources.refuse_repeats(given)
    words = [one.word for one in given]
    if genders is not None and not any(_takes("genders", CORPORA[one.loader]) for one in given):
        raise UserError(
            f"the file of genders {genders} is of no use: {', '.join(words)} "
            f"{'reads' if len(words) == 1 else 'read'} none; leave it out."
        )
    options: dict = {} if genders is None else {"genders": Path(genders).expanduser()}
    options |= {"outside": True} if outside else {}
    checks = {"labels": labels, "emotions": emotions, "strict": strict, "window_s": window_s}
    parts = [
        _one(one.word if words.count(one.word) == 1 else one.name, _read(one, options), **checks)
        for one in given
    ]
    sources.refuse_shared_speakers(given, [part.table for part in parts])
    joined = pd.concat([part.table for part in parts], ignore_index=True)
    kept, copies = audio.drop_copies(joined)
    tables.check(kept)
    return Corpus(
        table=kept,
        excluded=tables.excluded_frame([*(part.excluded for part in parts), copies]),
        notes=(*(note for part in parts for note in part.notes), *spelling_notes(kept)),
    )


def _takes(option: str, loader: Callable[..., Corpus]) -> bool:
    try:
        return option in inspect.signature(loader).parameters
    except (TypeError, ValueError):  # a callable written in C has no signature to look at
        return False


def _read(given: sources.Given, options: Mapping) -> Corpus:
    """What the corpus's loader returns; it is told only of the options that it takes."""
    loader = CORPORA[given.loader]
    if given.loader != given.word:
        options = {**options, "corpus": given.word}
    known = {name: value for name, value in options.items() if _takes(name, loader)}
    return loader(given.path, **known)


def _one(
    word: str,
    corpus: Corpus,
    *,
    labels: Sequence[str],
    emotions: Mapping[str, str | None] | None,
    strict: bool,
    window_s: float | None,
) -> Corpus:
    if not isinstance(corpus, Corpus):
        raise UserError(
            f"the loader of the corpus {word!r} returned a {type(corpus).__name__}; "
            "let it return ermgap.corpora.Corpus(table, excluded)."
        )
    left_out = [corpus.excluded]
    notes = list(corpus.notes)
    table = corpus.table
    if len(table):
        tables.check(table)
        labelled = keep_labels(table[list(COLUMNS)], labels, emotions=emotions)
        if labelled.table.empty:
            raise UserError(f"nothing is left of the corpus {word!r}: {labelled.notes[-1]}.")
        table, damaged, cancelling = audio.inspect(labelled.table, strict=strict, window_s=window_s)
        left_out += [labelled.excluded, damaged]
        notes += [*labelled.notes, *levels.notes(table, cancelling)]
    excluded = tables.excluded_frame(left_out)
    if table.empty:
        raise UserError(f"nothing is left of the corpus {word!r}: {tables.reasons(excluded)}.")
    notes += audio.crop_notes(table, window_s) if window_s else ()
    return Corpus(table=table, excluded=excluded, notes=tuple(notes))
