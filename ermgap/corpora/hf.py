"""Loader of a `datasets` dataset, saved on disk with `save_to_disk` or named on the hub.

    python sweeps/pareto.py --data hf=FOLDER
    python sweeps/pareto.py --data hf=OWNER/NAME

Columns as in a manifest (`ermgap.corpora.manifest`), with `audio` in place of `path`; class labels
are read by name. Audio is not decoded here: bytes held by the dataset are written once to
`ermgap.cache_dir()/hf/<fingerprint>`. A file that is only named is used where it is: below the
dataset's folder or in the hub's cache, elsewhere if `data.outside` is true. The parts train,
validation and test become splits when there is a validation part; else all but test has no split
yet, and is divided by speaker.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import ermgap
from ermgap.config import GENDER, one_line
from ermgap.config.user_paths import HUB_NAME
from ermgap.corpora import columns, rows
from ermgap.corpora.clip_paths import ClipPaths
from ermgap.corpora.manifest import from_rows
from ermgap.corpora.table import Corpus
from ermgap.errors import UserError, missing_extra

MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3"}
SAVED = ("dataset_dict.json", "state.json")  # one of them is in every folder of save_to_disk
READ = ("audio", *(name for name in rows.REQUIRED if name != "path"), *rows.OPTIONAL)


def load(
    path: Path | None,
    *,
    outside: bool = False,
    corpus: str | None = None,
    attributes: Sequence[str] = (GENDER,),
) -> Corpus:
    """The table of a dataset, with its columns `group:<name>` and those of `attributes`.

    `outside` lets rows name files that lie elsewhere than with the dataset; `corpus` is as in
    `manifest.load`. Raises UserError when it is neither on disk nor to be had from the hub, when a
    column is missing, and, naming the row, for a wrong value and for a file elsewhere.
    """
    if path is None:
        raise UserError("the corpus 'hf' needs a dataset; write hf=FOLDER or hf=OWNER/NAME.")
    here = os.path.exists(path)
    source = corpus or source_of(path)
    parts, further = _parts(_dataset(path, here), path, attributes)
    root, within = (path.absolute(), ()) if here else (Path.cwd(), tuple(_caches()))
    clips = ClipPaths(root, outside=outside, within=within)
    splits = _splits(list(parts))
    parsed = [
        row
        for key, part in parts.items()
        for row in _rows(part, path, key, clips, source, splits, further)
    ]
    title = f"the dataset {one_line(source)}"
    named = [name for part in parts.values() for name in part.column_names]
    known = {*READ, *further}
    read, unread = {"path", *named} & {"path", *known}, [n for n in named if n not in known]
    notes = columns.unread_notes(unread, read=read, where=title) + clips.notes(title)
    notes = (*notes, *_open_notes(parts, splits, source))
    return from_rows(parsed, attributes=further, notes=notes)


def source_of(path: Path) -> str:
    """What goes before the ids and speakers of a dataset that was given no name."""
    return path.resolve().name if os.path.exists(path) else path.name


def is_saved(path: Path) -> bool:
    """Whether a folder holds a dataset saved with `save_to_disk`."""
    return any(os.path.isfile(path / name) for name in SAVED)


def _dataset(path: Path, here: bool):
    """What the package `datasets` reads from a folder, or by that name from the hub."""
    name = path.as_posix()
    if not here and not HUB_NAME.fullmatch(name):
        raise UserError(f"there is no {name}; hf=PATH wants a saved dataset, or OWNER/NAME.")
    try:
        import datasets
    except ModuleNotFoundError as problem:
        raise missing_extra("hf", problem) from problem
    try:
        return datasets.load_from_disk(str(path)) if here else datasets.load_dataset(name)
    except Exception as problem:  # the hub's client raises a dozen kinds, all meaning "not here"
        if here and not isinstance(problem, OSError | ValueError | KeyError):
            raise
        raise UserError(
            f"{path} is not a dataset saved with save_to_disk; name its folder (or use manifest)."
            if here
            else f"the dataset {name!r} is not a folder here and could not be loaded from the hub "
            f"({type(problem).__name__}); load it where the hub can be reached, save it with "
            f"save_to_disk(FOLDER), and name hf=FOLDER."
        ) from problem


def _caches() -> list[str]:
    """The folders in which a dataset of the hub keeps its files."""
    from datasets import config
    from huggingface_hub import constants

    return [str(config.HF_DATASETS_CACHE), constants.HF_HUB_CACHE]


def _parts(dataset, path: Path, asked: Sequence[str]) -> tuple[dict, tuple[str, ...]]:
    """The parts by name, known columns in the spelling of READ, and the attributes of any part."""
    parts = dict(dataset) if isinstance(dataset, dict) else {"all": dataset}
    required = ["audio" if name == "path" else name for name in rows.required(asked)]
    attributes: dict[str, None] = {}
    for key, part in parts.items():
        where, written = f"the dataset {path} ({key})", part.column_names
        own = columns.attribute_columns(written, asked=asked, where=where)
        attributes |= dict.fromkeys(own.values())
        names = columns.recognised(written, known=READ, where=where, attributes=own)
        if missing := [name for name in required if name not in names]:
            hint = columns.missing_hint(missing, names, with_attributes=True)
            hint += " (with rename_column)" * ("; rename" in hint)
            raise UserError(f"{where} lacks the column {', '.join(missing)}; {hint}.")
        pairs = zip(written, names, strict=True)
        known = {*READ, *own.values()}
        if changed := {old: new for old, new in pairs if new in known and old != new}:
            parts[key] = part.rename_columns(changed)
    return parts, tuple(attributes)


def _splits(keys: list[str]) -> dict[str, str]:
    """The split of each part's rows, "" for all but test unless a part is the dev split."""
    known = {key: rows.SPLITS.get(key.lower(), "") for key in keys}
    if "dev" in known.values():
        return known
    return {key: split if split == "test" and len(keys) > 1 else "" for key, split in known.items()}


def _open_notes(parts: dict, splits: dict[str, str], source: str) -> tuple[str, ...]:
    """A note on the parts without a split, unless there is but one and it is not called test."""
    undivided = [key for key, split in splits.items() if not split]
    if not undivided or (len(parts) == 1 and rows.SPLITS.get(undivided[0].lower()) != "test"):
        return ()
    names = ", ".join(f"{one_line(key)} ({len(parts[key])} utterances)" for key in undivided)
    why = "only train, validation and test name a split"
    why = why if "dev" in splits.values() else "no part is called validation"
    return (f"of {source} these parts have no split and are divided by speaker: {names}; {why}",)


def _rows(
    part,
    path: Path,
    key: str,
    clips: ClipPaths,
    source: str,
    splits: dict[str, str],
    attributes: Sequence[str],
) -> Iterator[dict]:
    """The parsed rows of one part."""
    import datasets

    classes = {
        column: feature.names
        for column, feature in part.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    folder = ermgap.cache_dir() / "hf" / part._fingerprint  # before the casts, which change it
    if isinstance(part.features["audio"], datasets.Audio):
        part = part.cast_column("audio", datasets.Audio(decode=False))
    read = dict.fromkeys((*READ, *attributes))
    part = part.select_columns([name for name in read if name in part.column_names])
    for index, row in enumerate(part):
        place, audio = f"{path} ({key}), row {index}", row.pop("audio")
        values = {name: _text(value, classes.get(name), place) for name, value in row.items()}
        values["path"] = "audio"
        values["split"] = values.get("split") or splits[key]
        values["utterance_id"] = values.get("utterance_id") or f"{key}/{index:06d}"
        parsed = rows.parse(values, place=place, source=source, attributes=attributes)
        yield parsed | {"path": _file(audio, folder, place, clips)}


def _text(value, names: list[str] | None, place: str) -> str:
    if value is None or (names is not None and value < 0):
        return ""
    if names is None:
        return str(value)
    if value >= len(names):
        raise UserError(f"{place}: the class {value} has no name; the dataset has {len(names)}.")
    return names[value]


def _file(audio, folder: Path, place: str, clips: ClipPaths) -> str:
    """The path of the clip on this disk, written from the dataset's bytes when it is not there."""
    if isinstance(audio, str):
        audio = {"path": audio}
    if audio is not None and not isinstance(audio, dict):
        raise UserError(
            f"{place}: its audio is neither a path nor bytes; cast the column to Audio."
        )
    path, content = (audio or {}).get("path"), (audio or {}).get("bytes")
    if content is None:
        if not path:
            raise UserError(f"{place}: it holds no audio; remove it from the dataset.")
        # `datasets` takes a relative path from the working directory; else it is the folder's own.
        return clips.find(os.path.abspath(path) if os.path.exists(path) else path, place=place)
    suffix = next((end for start, end in MAGIC.items() if content.startswith(start)), ".wav")
    file = folder / f"{hashlib.sha256(content).hexdigest()[:24]}{suffix}"
    if not file.is_file() or file.stat().st_size != len(content):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(file)
    return str(file)
