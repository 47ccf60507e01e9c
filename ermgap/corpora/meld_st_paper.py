"""Compares MELD-ST as it was loaded with the numbers of the paper and of the official release.

    rows = compare(corpus.table, root)        # list of (what is counted, count here, count stated)
    print(to_text(rows))

The paper is arXiv 2603.21050. The stated counts are copied from there and from the release.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ermgap.corpora.csv_file import read_csv
from ermgap.corpora.meld_st import NAME, find_pairs
from ermgap.corpora.meld_st_rows import SPLITS

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


def compare(table: pd.DataFrame, root: Path) -> list[tuple[str, int, int]]:
    """(what is counted, its count here, the count stated) for the paper, then for each CSV.

    `table` may hold other corpora too; `root` is the folder that was loaded, whose CSVs are counted
    as they are. Raises UserError as `meld_st.load` does.
    """
    here = table[table["corpus"] == NAME]
    counts = {"utterances": len(here)}
    counts |= here["gender"].value_counts().to_dict() | here["split"].value_counts().to_dict()
    rows = [(what, int(counts.get(what, 0)), stated) for what, stated in PAPER.items()]
    for pair in find_pairs(root)[0]:
        for split in SPLITS:
            file = pair.csv(root, split)
            lines = len(read_csv(file, required=()).rows)
            rows.append((f"rows of {file.name}", lines, OFFICIAL[pair.folder][split]))
    return rows


def to_text(rows: list[tuple[str, int, int]]) -> str:
    """The comparison as lines of plain text, with a caveat."""
    width = max(len(what) for what, _, _ in rows)
    lines = [f"{NAME.ljust(width)}  {'here':>7}  {'stated':>7}  by"]
    for what, here, stated in rows:
        source = "the paper" if what in PAPER else "the release"
        lines.append(f"{what.ljust(width)}  {here:>7,}  {stated:>7,}  {source}")
    return "\n".join([*lines, f"note: {CAVEAT}"])
