"""Describes corpora before anything is trained on them.

    python -m ermgap.corpora describe NAME[=PATH] ... [--attributes a,b] [--genders FILE]
        [--window S] [--strict] [--outside]

Prints utterances by split, language, gender (or the first attribute named) and emotion, the values
of other attributes, exclusions with reasons, and notes; for meld_st also the numbers of the paper
(arXiv 2603.21050) and of the official release. A dash stands
for a split that a run will draw by speaker. A mistake is one line and exit status 2.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ermgap import corpora
from ermgap.config import GENDER, MELD_LABELS
from ermgap.corpora import meld_st, split, table
from ermgap.corpora.csv_file import read_csv
from ermgap.errors import UserError, command_line

PAPER = {
    "utterances": 29252, "female": 14244, "male": 15008, "train": 23368, "dev": 2884, "test": 3000,
}  # fmt: skip
OFFICIAL = {
    "ENG_DEU": {"train": 9314, "dev": 1164, "test": 1164},
    "ENG_JPN": {"train": 8069, "dev": 1008, "test": 1008},
}  # rows of each CSV, hence utterances per language of the pair
CAVEAT = (
    "the paper does not say which utterances it excluded: the official CSVs, English counted once, "
    "hold at least 33,369 (11,642 English, 11,642 German, 10,085 Japanese) before speakers of "
    "unknown gender go, so expect a full copy to give more than 29,252"
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    window_s = options.window_s
    if window_s is not None and not (math.isfinite(window_s) and window_s > 0):
        raise UserError(f"--window is {window_s:g}; write seconds above 0, such as 10.")
    corpus = corpora.load(**vars(options))
    utterances, moves = split.complete_groups(corpus.table)
    notes = [*corpus.notes, *moves]
    excluded, attribute = corpus.excluded, options.attributes[:1]
    print(
        table.describe(
            utterances, excluded=excluded, labels=MELD_LABELS, notes=notes, attribute=attribute
        )
    )
    for name, path in map(corpora.parse, options.names):
        if name == meld_st.NAME:
            print("", *_beside_the_paper(corpus.table, path.absolute()), sep="\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of `corpora.load`, as they are written."""
    parser = argparse.ArgumentParser(
        prog="python -m ermgap.corpora", description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(required=True)
    add = commands.add_parser("describe", help="counts of one or more corpora").add_argument
    known = ", ".join(sorted(corpora.CORPORA))
    names_help = f"of {known}, or any name whose PATH has a manifest.csv"
    add("names", nargs="+", metavar="NAME[=PATH]", help=names_help)
    attributes_help = "columns to read as attributes (group:NAME is read in any case)"
    add(
        "--attributes",
        type=lambda text: tuple(name.strip() for name in text.split(",")),
        default=(GENDER,),
        metavar="NAME,NAME",
        help=attributes_help,
    )
    add("--genders", type=Path, metavar="FILE", help="CSV of speaker and gender, for meld_st")
    window_help = "count clips longer than S seconds"
    add("--window", dest="window_s", type=float, metavar="S", help=window_help)
    add("--strict", action="store_true", help="refuse damaged clips and those over the window")
    add("--outside", action="store_true", help="let a manifest name clips outside its folder")
    return parser.parse_args(arguments)


def _beside_the_paper(table: pd.DataFrame, root: Path) -> list[str]:
    """Lines that compare the utterances of MELD-ST with the paper, and its CSVs with the release.

    `table` may hold other corpora too; the CSVs below `root` are counted as they are. The paper has
    speakers of known gender alone.
    """
    here = table[(table["corpus"] == meld_st.NAME) & (table["gender"] != "")]
    counts = {"utterances": len(here)} | dict(here["gender"].value_counts())
    counts |= dict(here["split"].value_counts())
    rows = [(what, counts.get(what, 0), stated, "paper") for what, stated in PAPER.items()]
    for pair in meld_st.find_pairs(root)[0]:
        for split_name, file in pair.csvs(root).items():
            stated = OFFICIAL[pair.folder][split_name]
            count = len(read_csv(file, required=()).rows)
            rows.append((f"rows of {file.name}", count, stated, "release"))
    width = max(len(what) for what, *_ in rows)
    return [
        f"{meld_st.NAME.ljust(width)}  {'here':>7}  {'stated':>7}  by",
        *(f"{what.ljust(width)}  {n:>7,}  {stated:>7,}  the {by}" for what, n, stated, by in rows),
        f"note: {CAVEAT}",
    ]


if __name__ == "__main__":
    command_line(main)
