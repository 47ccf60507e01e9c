"""What the arguments of systems stand for: an adapter's folder, a model on disk or on the hub.

Neither torch nor a model is loaded: whoever asks systems elsewhere can refuse a mistake at once.
"""

from __future__ import annotations

import re
from pathlib import Path

from ermgap.adapters import settings_of
from ermgap.baselines import Context, on_driver, parse
from ermgap.config import Config
from ermgap.errors import UserError


def absolute(spec: str) -> str:
    """A system's `NAME=ARGUMENT` that means the same in another working directory.

    An argument that names a file or folder becomes its absolute path; any other stays.
    """
    word, argument = parse(spec)
    if argument is None or word == "zero-shot" or on_driver(spec):
        return spec
    path = Path(argument).expanduser()
    return f"{word}={path.absolute()}" if path.exists() else spec


def adapter_settings(argument: str | None, context: Context) -> Config:
    """What the adapter was trained with; UserError for none, or one of other labels or modalities.

    No model is loaded.
    """
    if not argument:
        raise UserError("the system 'adapter' needs a folder; write adapter=DIR/adapters/t0000.")
    folder = Path(argument).expanduser()
    settings = settings_of(folder)
    ours = context.config.backbone if context.config else settings.backbone
    if ours.path and ours.name == settings.backbone.name:  # a copy on this disk, not the hub's
        settings = settings_of(folder, backbone=ours.path)
    known = settings.data
    wanted = context.config.data.modalities if context.config else known.modalities
    if set(known.labels) != set(context.labels):
        raise UserError(
            f"the adapter {folder} was trained for {', '.join(known.labels)} and the benchmark is "
            f"over {', '.join(context.labels)}; set data.labels to the adapter's."
        )
    if not set(known.modalities) & set(wanted):
        raise UserError(
            f"the adapter {folder} was trained on {' and '.join(known.modalities)} and the "
            f"benchmark is over {' and '.join(wanted)}; set data.modalities to one that "
            "it knows."
        )
    return settings


def place(argument: str) -> tuple[Path | str, str | None]:
    """A folder, or a hub id and its revision, by the argument of a system; UserError if neither."""
    path = Path(argument).expanduser()
    if (path / "config.json").is_file():
        return path, None
    name, _, revision = argument.partition("@")
    if path.is_dir() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise UserError(
            f"{argument} is no folder with a config.json; name a model's folder, or a model of the "
            "hub as ORG/NAME."
        )
    return name, revision or None


def named(word: str, argument: str | None) -> str:
    """The name in a table of a system with this argument; of a folder its last part alone."""
    if argument is None:
        return word
    return f"{word}={Path(argument).name if Path(argument).expanduser().exists() else argument}"
