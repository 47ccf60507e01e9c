"""A plugin for tests: notes which processes load a base model, and of how many clips features.

Lines `PID base NAME` and `PID clips COUNT` of the file `loads` in $ERMGAP_TEST.
"""

from __future__ import annotations

import os
from pathlib import Path

from ermgap.model import qwen2_audio
from ermgap.model.features import store


def note(*words) -> None:
    line = " ".join(map(str, (os.getpid(), *words)))
    with open(Path(os.environ["ERMGAP_TEST"]) / "loads", "a") as file:
        file.write(f"{line}\n")


def load(settings, **given):
    note("base", settings.name)
    return known[0](settings, **given)


def fill(*given, **more) -> int:
    count = known[1](*given, **more)
    note("clips", count)
    return count


known = qwen2_audio.load, store.fill
qwen2_audio.load, store.fill = load, fill
