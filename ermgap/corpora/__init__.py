"""Corpora: folders on disk go in, one table of utterances with exclusions and notes comes out.

    from ermgap import corpora
    corpus = corpora.load(["emodb=PATH", "ravdess=PATH"], labels=config.MELD_LABELS)
    split_table = split.assign(corpus.table, seed=0)
    print(table.describe(split_table, excluded=corpus.excluded, notes=corpus.notes))

A name that no loader has is that of a manifest or of a saved dataset: `ased=FOLDER` (see `load`).

A corpus is a function `load(path: Path | None) -> Corpus` and one line in `CORPORA`, in
`corpus_request` or a plugin (`CORPORA["mine"] = load`). A corpus whose genders come from a table of
speakers takes a user's own as well: `load(path, *, genders: Path | None = None)`; one whose rows
name files takes `outside: bool = False`, whether these may lie elsewhere than below its folder; one
whose columns have any name takes `attributes`, those to read besides its own.
Nothing in this package imports torch or Ray. `python -m ermgap.corpora describe NAME[=PATH]` prints
what a corpus holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ermgap import attributes as attribute_of
from ermgap.config import GENDER, MELD_LABELS
from ermgap.corpora import attribute_values, audio, corpus_request, levels
from ermgap.corpora import table as tables
from ermgap.corpora.corpus_request import CORPORA, parse
from ermgap.corpora.labels import keep_labels
from ermgap.corpora.split import spelling_notes
from ermgap.corpora.table import COLUMNS, Corpus
from ermgap.errors import UserError

__all__ = ["CORPORA", "Corpus", "load", "parse"]


def load(
    names: Sequence[str],
    *,
    labels: Sequence[str] = MELD_LABELS,
    attributes: Sequence[str] = (GENDER,),
    drop: Sequence[str] = (),
    strict: bool = False,
    window_s: float | None = None,
    genders: Path | None = None,
    outside: bool = False,
    emotions: Mapping[str, str | None] | None = None,
) -> Corpus:
    """Load, join and check corpora; the result's clips can all be read and carry one of `labels`.

    Each name is `NAME` or `NAME=PATH`. NAME is a key of CORPORA, or any other where PATH holds a
    manifest.csv (or is such a file) or a saved dataset, which is then a corpus of that name.
    Exclusions are what a loader excludes, emotions outside `labels`, clips that `audio.inspect`
    excludes, and byte-identical copies (the first stays). `strict` turns a damaged clip, and a clip
    longer than `window_s` seconds, into a UserError; otherwise the longer clips are counted in
    `notes`. Corpora keep the order of `names`.
    `genders` is a CSV (speaker, gender) that replaces the shipped one of a corpus such as meld_st.
    `outside` lets a manifest name clips that do not lie below its folder. `emotions` says which
    label a corpus's emotion stands for (`labels.keep_labels`).
    `attributes` are columns to read besides those that a corpus always has (`group:<name>` of a
    manifest); utterances whose `drop`, an attribute or several that are crossed, is unknown are
    excluded, and others of unknown value stay, counted in `notes`.

    Raises UserError for an unknown name, two corpora of one folder or one name, a bad path or
    manifest, a table that `table.check` refuses, a corpus of which nothing remains, `genders` that
    no corpus reads, and an attribute that none has.
    """
    if isinstance(names, str) or not names:
        raise UserError("no corpus was named; write NAME or NAME=PATH, such as demo.")
    requests = [corpus_request.resolve(text) for text in names]
    corpus_request.require_distinct(requests)
    named = [request.name for request in requests]
    if genders is not None and not any("genders" in _options(r.loader) for r in requests):
        raise UserError(
            f"the file of genders {genders} is of no use: {', '.join(named)} "
            f"{'reads' if len(named) == 1 else 'read'} none; omit it."
        )
    options: dict = {} if genders is None else {"genders": Path(genders).expanduser()}
    options |= {"outside": True} if outside else {}
    options |= {"attributes": tuple(attributes), "drop": tuple(drop)}
    read: dict[str, Corpus] = {}  # by title
    for request in requests:
        own = {"corpus": request.name} if request.loader != request.name else {}
        taken = _options(request.loader)
        corpus = CORPORA[request.loader](
            request.path, **{key: value for key, value in (options | own).items() if key in taken}
        )
        title = request.name if named.count(request.name) == 1 else request.text
        read[title] = _require_corpus(corpus, title)
    always = (GENDER, "language", "corpus")
    asked = [name for name in dict.fromkeys((*attributes, *drop)) if name not in always]
    of_notes = [name for name in (GENDER, *asked) if name in attributes]
    for name in asked:
        attribute_values.require(name, {title: corpus.table for title, corpus in read.items()})
    parts = [
        _checked(corpus, title, labels, emotions, strict, window_s, drop)
        for title, corpus in read.items()
    ]
    corpus_request.require_distinct_speakers(requests, [part.table for part in parts])
    joined = pd.concat([part.table for part in parts], ignore_index=True)
    joined = attribute_values.as_text(joined)
    table, copies = audio.drop_copies(joined)
    tables.check(table)
    return Corpus(
        table=table,
        excluded=pd.concat([*(part.excluded for part in parts), copies], ignore_index=True),
        notes=(
            *(note for part in parts for note in part.notes),
            *spelling_notes(table),
            *attribute_values.unknown_notes(table, of_notes),
        ),
        provenance=attribute_values.joined_provenance(
            {title: part.table for title, part in zip(read, parts, strict=True)},
            [part.provenance for part in parts],
        ),
    )


def _options(loader: str) -> Collection[str]:
    """The names of what a loader takes."""
    try:
        return inspect.signature(CORPORA[loader]).parameters
    except (TypeError, ValueError):  # a callable written in C has no signature to look at
        return ()


def _require_corpus(corpus: object, title: str) -> Corpus:
    """What a loader returned, with attributes as text."""
    if not isinstance(corpus, Corpus):
        raise UserError(
            f"the loader of the corpus {title!r} returned a {type(corpus).__name__}; "
            "let it return ermgap.corpora.Corpus(table, excluded)."
        )
    return replace(corpus, table=attribute_values.as_text(corpus.table))


def _checked(
    corpus: Corpus,
    title: str,
    labels: Sequence[str],
    emotions: Mapping[str, str | None] | None,
    strict: bool,
    window_s: float | None,
    drop: Sequence[str],
) -> Corpus:
    """The utterances of a corpus that have one of the labels and a clip that can be read."""
    table, excluded, notes = corpus.table, [corpus.excluded], list(corpus.notes)
    if len(table):
        tables.check(table)
        if drop:
            reasons = attribute_values.reasons_to_drop(table, drop)
            excluded.append(table.assign(reason=reasons)[reasons != ""])
            table = table[reasons == ""]
    if len(table):
        further = [name for name in attribute_of.columns(table) if name not in COLUMNS]
        labelled = keep_labels(table[[*COLUMNS, *further]], labels, emotions=emotions)
        if labelled.table.empty:
            raise UserError(f"nothing remains of the corpus {title!r}: {labelled.notes[-1]}.")
        table, damaged, cancelling = audio.inspect(labelled.table, strict=strict, window_s=window_s)
        excluded += [labelled.excluded, damaged]
        notes += [*labelled.notes, *levels.notes(table, cancelling)]
    exclusions = tables.excluded_frame(pd.concat(excluded))
    if table.empty:
        reasons = tables.summarize_reasons(exclusions)
        raise UserError(f"nothing remains of the corpus {title!r}: {reasons}.")
    notes += audio.crop_notes(table, window_s) if window_s else ()
    return replace(corpus, table=table, excluded=exclusions, notes=tuple(notes))
