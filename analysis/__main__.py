"""Figures and report of a sweep, finished or not.

python -m analysis results/demo [--plots analysis/plots] [--watch SECONDS] [--with-text]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import report
from ermgap.errors import UserError, command_line


def main(arguments: list[str] | None = None) -> int:
    """Write the report of one sweep folder and print its front; exit status 2 on a mistake."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path, help="folder of a sweep, e.g. results/demo")
    parser.add_argument("--plots", type=Path, default=report.PLOTS, help="where figures go")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    again = "write it again whenever there is more, until the sweep is done"
    texts = "put transcripts of the utterances behind a gap into the page"
    parser.add_argument("--watch", type=float, nargs="?", const=30.0, metavar="SECONDS", help=again)
    parser.add_argument("--with-text", action="store_true", help=texts)
    options = parser.parse_args(arguments)
    where = {"plots": options.plots, "with_text": options.with_text}
    if options.watch is None:
        report.write(options.directory, quiet=options.quiet, **where)
    elif options.watch > 0:
        report.watch(options.directory, every=options.watch, **where)
    else:
        raise UserError("--watch takes seconds above 0, for instance --watch 30.")
    return 0


if __name__ == "__main__":
    command_line(main)
