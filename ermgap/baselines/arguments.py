"""The arguments of systems, checked: adapters' folders, a model on disk or on the hub.

Neither torch nor a model is loaded, so that a mistake is reported before any worker starts.
"""

from __future__ import annotations

import re
from pathlib import Path

from ermgap.adapters import config_of, position_of, require_line
from ermgap.baselines import Context, on_driver, parse
from ermgap.config import Config
from ermgap.errors import UserError


def absolute(spec: str) -> str:
    """A system's `NAME=ARGUMENT` with an absolute path where the argument is a file or folder."""
    name, argument = parse(spec)
    if argument is None or name == "zero-shot" or on_driver(spec):
        return spec
    head, places = places_of(spec)
    paths = [Path(place).expanduser() for place in places]
    return head + ":".join(
        str(path.absolute()) if path.exists() else place
        for path, place in zip(paths, places, strict=True)
    )


def places_of(spec: str) -> tuple[str, list[str]]:
    """A spec with an argument in parts: all before its paths, and these (of a dial two)."""
    name, argument = parse(spec)
    if name != "dial":
        return f"{name}=", [argument]
    positions, *folders = argument.split(":")
    return f"{name}={positions}:", folders


def dial_line(argument: str | None) -> tuple[list[float], list[Path]]:
    """The positions and the two folders of `POSITION[,POSITION...]:LOWER_FOLDER:UPPER_FOLDER`.

    Raises UserError for an argument of another form, and as `ermgap.adapters.require_line`.
    """
    positions, *folders = (argument or "").split(":")
    if len(folders) != 2 or not all(folders):
        raise UserError(
            "the system 'dial' needs a position and two adapters' folders without ':' in their "
            "names; write dial=0.7:DIR/adapters/t0000:DIR/adapters/t0007."
        )
    ends = [Path(folder).expanduser() for folder in folders]
    require_line(*ends)
    return [position_of(text) for text in positions.split(",")], ends


def adapter_config(argument: str | None, context: Context) -> Config:
    """The configuration of the adapter in the folder `argument`; no model is loaded.

    Raises UserError where there is none, or one for other labels or modalities.
    """
    if not argument:
        raise UserError("the system 'adapter' needs a folder; write adapter=DIR/adapters/t0000.")
    folder = Path(argument).expanduser()
    config = config_of(folder)
    ours = context.config.backbone if context.config else config.backbone
    if ours.path and ours.name == config.backbone.name:  # a copy on this disk, not the hub's
        config = config_of(folder, backbone=ours.path)
    data = config.data
    modalities = context.config.data.modalities if context.config else data.modalities
    if set(data.labels) != set(context.labels):
        raise UserError(
            f"the adapter {folder} was trained for {', '.join(data.labels)} and the benchmark is "
            f"over {', '.join(context.labels)}; set data.labels to the adapter's."
        )
    if not set(data.modalities) & set(modalities):
        raise UserError(
            f"the adapter {folder} was trained on {' and '.join(data.modalities)} and the "
            f"benchmark is over {' and '.join(modalities)}; set data.modalities to one that "
            "it knows."
        )
    return config


def model_location(argument: str) -> tuple[Path | str, str | None]:
    """The folder, or the hub id and revision, of a model (ORG/NAME@REV); UserError if neither."""
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
