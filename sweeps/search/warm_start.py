"""Earlier sweeps that a new one learns from: `--warm-start DIR`.

Their rows are copied into the new folder (`earlier/0`, `earlier/1` ...), so that a resumed sweep
does not need the old ones. The search learns from them where to look; they are no points of the new
front.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ermgap.config import Config, differing_keys
from ermgap.errors import UserError
from ermgap.records import Records, Trial, file_names
from sweeps.search import space

SECTIONS = ("data", "backbone")  # of a configuration; what differs there shifts the values
FILES = (file_names.SWEEP, file_names.TRIALS)


def require(folders: Sequence[str], config: Config) -> None:
    """Print how many trials of each folder can be learnt from; nothing is written.

    Raises:
        UserError: a folder has none, or the sweep does not search.
    """
    if folders and config.sweep.points:
        raise UserError("--warm-start is for a search; this sweep names its points, so omit it.")
    for folder in folders:
        records = Records.open(folder)
        usable = _usable(records, config)
        if not usable:
            ended = [trial for trial in records.trials() if trial.ended]
            raise UserError(
                f"--warm-start {folder} has no trial to learn from ({len(ended)} ended, none with "
                f"{config.train.epochs} epochs); name another, or omit it."
            )
        earlier = {k: records.sweep["config"].get(k) for k in SECTIONS}
        keys = differing_keys(earlier, {k: config.to_dict()[k] for k in SECTIONS})
        note = f"; it differs in {', '.join(keys)}" if keys else ""
        print(f"warm start: {len(usable)} trials of {folder}{note}")


def copy(folders: Sequence[str], out: Path) -> None:
    """Copy the rows of earlier sweeps into the folder of a new one."""
    for number, folder in enumerate(folders):
        target = out / file_names.EARLIER / str(number)
        target.mkdir(parents=True)
        source = Records.open(folder).directory
        for name in FILES:
            shutil.copyfile(source / name, target / name)


def trials(records: Records, config: Config) -> list[Trial]:
    """The trials that the sweep may learn from, of the copied folders."""
    folders = sorted((records.directory / file_names.EARLIER).glob("*/"))
    return [trial for folder in folders for trial in _usable(Records.open(folder), config)]


def _usable(records: Records, config: Config) -> list[Trial]:
    epochs = (records.sweep["config"].get("train") or {}).get("epochs")
    if epochs != config.train.epochs:
        return []
    own = config.replace({"objective": records.sweep["config"].get("objective") or {}})
    return [space.completed(t, own) for t in records.trials() if t.ended and t.status != "failed"]
