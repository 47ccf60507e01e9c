"""Loader of `demo`, the shipped synthetic corpus with a planted gender gap (no human speech).

    corpus = ermgap.corpora.load(["demo"])

The clips and their manifest are package data, made by `ermgap.corpora.make_demo`; the folder's
README says what was planted and how large it is. `demo=PATH` reads a corpus made elsewhere with
`python -m ermgap.corpora.make_demo --out PATH`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ermgap.corpora import clip_paths
from ermgap.corpora.csv_file import read_csv
from ermgap.corpora.rows import number
from ermgap.corpora.table import Corpus, frame
from ermgap.errors import UserError

FOLDER = Path(__file__).parent / "data" / "demo"
LANGUAGES = ("en", "de", "ja")
PLANTED = ("de", "female")  # the language with the gap, and the gender whose cues are weak there
FIELDS = (
    "path", "language", "gender", "emotion", "speaker", "split", "transcript", "duration_s",
    "expression", "synthetic",
)  # fmt: skip
COPIED = ("language", "gender", "emotion", "speaker", "split", "transcript")
NOTE = f"demo's gap is planted in {PLANTED[0]}, where the cues of {PLANTED[1]} voices are weaker"


def load(path: Path | None = None, *, outside: bool = False) -> Corpus:
    """The table of `demo` (690 rows, train and dev given, nothing excluded).

    `path` is a folder with `manifest.csv` and `audio/`; None is the shipped one. `outside` is as in
    `manifest.load`. Raises UserError for a folder without a manifest, or a manifest that
    `make_demo` did not write.
    """
    folder = Path(path or FOLDER).absolute()
    manifest, bounds = folder / "manifest.csv", clip_paths.FolderBounds(folder)
    remedy = "write it with `python -m ermgap.corpora.make_demo --out FOLDER`"
    if not os.path.isfile(manifest):
        raise UserError(f"there is no manifest {manifest}; {remedy}.")
    table = read_csv(manifest, required=(), optional=FIELDS)
    if missing := [name for name in FIELDS if name not in table.header]:
        raise UserError(f"{manifest} lacks the columns {', '.join(missing)}; {remedy}.")
    utterances = []
    for i, row in table.records():
        place = f"{manifest}, row {i}"
        clip_paths.require_file(row["path"], place=place)
        if not outside:
            clip_paths.require_inside(row["path"], place=place)
            bounds.require(str(folder / row["path"]), place=place)
        duration = number(row["duration_s"], column="duration_s", place=place)
        if not duration:
            raise UserError(f"{place}: duration_s is not positive; {remedy}.")
        utterances.append(
            {name: row[name] for name in COPIED}
            | {
                "corpus": "demo",
                "utterance_id": f"demo/{Path(row['path']).stem}",
                "path": str(folder / row["path"]),
                "end_s": duration,
                "synthetic": True,
            }
        )
    return Corpus(table=frame(utterances), notes=(NOTE,))
