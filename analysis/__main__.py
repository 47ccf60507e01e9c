"""Figures and report of a sweep, finished or not.

python -m analysis results/demo [--plots analysis/plots]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis import report
from ermgap.errors import command_line


def main(arguments: list[str] | None = None) -> int:
    """Write the report of one sweep folder and print its front; exit status 2 on a mistake."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path, help="folder of a sweep, e.g. results/demo")
    parser.add_argument("--plots", type=Path, default=report.PLOTS, help="where figures go")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    options = parser.parse_args(arguments)
    report.write(options.directory, options.plots, quiet=options.quiet)
    return 0


if __name__ == "__main__":
    command_line(main)
