"""Describes corpora before anything is trained on them.

    python -m ermgap.corpora describe NAME[=PATH] ... [--genders FILE] [--window S] [--strict]
        [--outside]

Prints utterances by split, language, gender and emotion, exclusions with reasons, and notes; for
meld_st also the paper's numbers. A dash stands for a split that a run will draw by speaker. A
mistake is one line and exit status 2.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from ermgap import corpora
from ermgap.config import MELD_LABELS
from ermgap.corpora import meld_st, meld_st_paper, split, table
from ermgap.errors import UserError, command_line


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.window is not None and not (math.isfinite(options.window) and options.window > 0):
        raise UserError(f"--window is {options.window:g}; write seconds above 0, such as 10.")
    corpus = corpora.load(
        options.names,
        strict=options.strict,
        window_s=options.window,
        genders=options.genders,
        outside=options.outside,
    )
    utterances, moves = split.complete_groups(corpus.table)
    print(
        table.describe(
            utterances,
            excluded=corpus.excluded,
            labels=MELD_LABELS,
            notes=[*corpus.notes, *moves],
        )
    )
    for name, path in map(corpora.parse, options.names):
        if name == meld_st.NAME:
            print()
            print(meld_st_paper.to_text(meld_st_paper.compare(corpus.table, path.absolute())))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ermgap.corpora", description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(required=True)
    describe = commands.add_parser("describe", help="counts of one or more corpora")
    names = ", ".join(sorted(corpora.CORPORA))
    describe.add_argument(
        "names",
        nargs="+",
        metavar="NAME[=PATH]",
        help=f"of {names}, or any name whose PATH has a manifest.csv",
    )
    describe.add_argument(
        "--genders", type=Path, metavar="FILE", help="CSV of speaker and gender, for meld_st"
    )
    describe.add_argument(
        "--window", type=float, metavar="S", help="count clips longer than S seconds"
    )
    describe.add_argument(
        "--strict", action="store_true", help="refuse damaged clips and those over the window"
    )
    describe.add_argument(
        "--outside", action="store_true", help="let a manifest name clips outside its folder"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    command_line(main)
