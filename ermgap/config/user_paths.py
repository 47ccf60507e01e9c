"""Makes the paths of a preset or a command line absolute.

    make_absolute(values, base=Path.cwd())      # nested plain values of a configuration, in place

Ray gives workers another directory than the driver's, so a relative path must not travel. What a
preset holds is relative to the preset, what the command line holds to the working directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # OWNER/NAME


def make_absolute(values: dict, *, base: Path) -> None:
    """Make every path of nested configuration values absolute, in place.

    Values of a wrong type stay as they are, to be refused by `ermgap.config`.

    Args:
        base: folder to which relative paths are relative.
    """
    for section, key, change in (
        (None, "plugins", _absolute_file),
        ("data", "corpora", absolute_corpus),
        ("data", "genders", absolute_path),
        ("backbone", "path", absolute_path),
        ("backbone", "prompt", _absolute_file),
    ):
        place = values.get(section) if section and isinstance(values, dict) else values
        value = place.get(key) if isinstance(place, dict) else None
        if isinstance(value, str):
            place[key] = change(value, base)
        elif isinstance(value, (list, tuple)):
            place[key] = [change(v, base) if isinstance(v, str) else v for v in value]


def absolute_path(text: str, base: Path) -> str:
    """An absolute path; `~` is the user's home. What is empty or a URI stays as it is."""
    if not text.strip() or "://" in text:
        return text
    return os.path.join(base.absolute(), os.path.expanduser(text))


def absolute_corpus(text: str, base: Path) -> str:
    """`NAME=PATH` with an absolute path. `hf=OWNER/NAME` is a path where there is such a folder."""
    name, equals, path = (part.strip() for part in text.partition("="))
    if not equals or not path:
        return text
    absolute = absolute_path(path, base)
    if name == "hf" and HUB_NAME.fullmatch(path) and not os.path.exists(absolute):
        return text
    return f"{name}={absolute}"


def _absolute_file(text: str, base: Path) -> str:
    """A file with an absolute path; the name of a prompt or of a module as it is."""
    return absolute_path(text, base) if text.endswith((".py", ".yaml", ".yml")) else text
