"""Figures and report of a sweep, finished or not; of several, their fronts in one picture.

python -m analysis results/demo [results/other ...] [--plots DIR] [--watch SECONDS] [--with-text]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import compare, report, watch
from ermgap.errors import UserError, command_line


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
        watch.watch(directory, every=options.watch, **where)
    else:
        raise UserError("--watch takes seconds above 0, for instance --watch 30.")
    return 0


if __name__ == "__main__":
    command_line(main)
