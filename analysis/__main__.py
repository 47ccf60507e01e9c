"""Figures and report of a sweep, finished or not; of several, their fronts in one picture.

python -m analysis results/demo [results/other ...] [--plots DIR] [--watch SECONDS] [--with-text]
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

from analysis import compare, report
from analysis.front import front
from ermgap.errors import UserError, command_line
from ermgap.records import Records, file_names


def main(arguments: list[str] | None = None) -> int:
    """Write the report of one sweep folder and print its front; exit status 2 on a mistake."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__.split("\n")[0])
    parser.add_argument("directory", nargs="+", help="a sweep: results/demo, or s3://...")
    parser.add_argument("--plots", type=Path, default=report.PLOTS, help="where figures go")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    again = "write it again whenever there is more, until the sweep is done"
    texts = "put transcripts of the utterances behind a gap into the page"
    parser.add_argument("--watch", type=float, nargs="?", const=30.0, metavar="SECONDS", help=again)
    parser.add_argument("--with-text", action="store_true", help=texts)
    options = parser.parse_args(arguments)
    if len(options.directory) > 1:
        compare.write(options.directory, options.plots)
        return 0
    (directory,) = options.directory
    where = {"plots": options.plots, "with_text": options.with_text}
    if options.watch is None:
        report.write(directory, quiet=options.quiet, **where)
    elif options.watch > 0:
        watch(directory, every=options.watch, **where)
    else:
        raise UserError("--watch takes seconds above 0, for instance --watch 30.")
    return 0


def watch(
    directory: Path | str,
    plots: Path | str,
    *,
    every: float,
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
        done = records.finished
        paths = [records.directory / name for name in (file_names.TRIALS, file_names.DIAL)]
        size = sum(path.stat().st_size for path in paths if path.exists())
        if size and size != before:
            folder, before = report.write(directory, plots, quiet=True, with_text=with_text), size
            at, complete = time.strftime("%H:%M:%S"), front.info(records).complete
            print(f"{at} {folder}/report.html, {complete} trials complete", flush=True)
        if done:
            return
        time.sleep(every)


if __name__ == "__main__":
    command_line(main)
