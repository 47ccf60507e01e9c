"""The report of a sweep that runs, written anew as it goes on.

watch("results/demo", every=30)
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from analysis import report
from analysis.front import front
from analysis.tables.tables import PLOTS
from ermgap.records import Records, file_names


def watch(
    directory: Path | str,
    plots: Path | str = PLOTS,
    *,
    every: float = 30.0,
    with_text: bool = False,
    rounds: int | None = None,
) -> None:
    """Write the report whenever the records have grown, until the sweep is done.

    Args:
        every: seconds between looks. rounds: looks at most; None: no limit.
    """
    before = None
    for _ in itertools.count() if rounds is None else range(rounds):
        records = Records.open(directory)  # one at a URI is brought up to date by that
        done, path = records.finished, records.directory / file_names.TRIALS
        size = path.stat().st_size if path.exists() else 0
        if size and size != before:
            folder, before = report.write(directory, plots, quiet=True, with_text=with_text), size
            at = time.strftime("%H:%M:%S")
            print(f"{at} {folder}/report.html, {front.info(records).complete} trials complete",
                  flush=True)  # fmt: skip
        if done:
            return
        time.sleep(every)
