"""Loader of `demo`, the shipped synthetic corpus with a planted gender gap (no human speech).

    corpus = ermgap.corpora.load(["demo"])

The clips and their manifest are package data, made by `ermgap.corpora.make_demo`; the folder's
README says what was planted and how large it is. `demo=PATH` reads a corpus made elsewhere with
`python -m ermgap.corpora.make_demo --out PATH`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ermgap.config import GENDER
from ermgap.corpora import rows
from ermgap.corpora.clip_paths import ClipPaths
from ermgap.corpora.csv_file import read_csv
from ermgap.corpora.table import Corpus, frame
from ermgap.errors import UserError

FOLDER = Path(__file__).parent / "data" / "demo"
LANGUAGES = ("en", "de", "ja")
PLANTED = ("de", "female")  # the language with the gap, and the gender whose cues are weak there
FIELDS = (
    "path", "language", "gender", "emotion", "speaker", "split", "transcript", "duration_s",
    "expression", "synthetic",
)  # fmt: skip
STYLE = "group:style"  # an attribute: whether the words express the emotion too
NOTE = f"demo's gap is planted in {PLANTED[0]}, where the cues of {PLANTED[1]} voices are weaker"


def load(path: Path | None = None, *, outside: bool = False) -> Corpus:
    """The table of `demo` (690 rows, train and dev given, nothing excluded).

    `path` is a folder with `manifest.csv` and `audio/`; None is the shipped one. `outside` is as in
    `manifest.load`. Raises UserError for a folder without a manifest, or a manifest that
    `make_demo` did not write.
    """
    folder = Path(path or FOLDER).absolute()
    manifest, clips = folder / "manifest.csv", ClipPaths(folder, outside=outside)
    remedy = "write it with `python -m ermgap.corpora.make_demo --out FOLDER`"
    if not os.path.isfile(manifest):
        raise UserError(f"there is no manifest {manifest}; {remedy}.")
    table = read_csv(manifest, required=(), optional=FIELDS, attributes=())
    if missing := [name for name in FIELDS if name not in table.header]:
        raise UserError(f"{manifest} lacks the columns {', '.join(missing)}; {remedy}.")
    utterances = []
    for i, row in table.rows:
        place, end_s = f"{manifest}, row {i}", row["duration_s"]
        if not rows.number(end_s, column="duration_s", place=place):
            raise UserError(f"{place}: duration_s is not positive; {remedy}.")
        values = {name: row[name] for name in (*FIELDS, *table.attributes)}
        values |= {"utterance_id": Path(row["path"]).stem, "end_s": end_s, "synthetic": "1"}
        utterance = rows.parse(
            values, place=place, source="demo", outside=outside, attributes=table.attributes
        )
        utterances.append(utterance | {"path": clips.find(row["path"], place=place)})
    return Corpus(
        table=frame(utterances, attributes=table.attributes),
        notes=(NOTE,),
        provenance=dict.fromkeys((GENDER, *table.attributes), "synthetic"),
    )
