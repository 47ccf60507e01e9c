"""Loader of `demo`, the embedded synthetic corpus with a planted gender gap (no human speech).

The clips and their manifest are package data, made by `ermgap.corpora.make_demo`; the folder's
README says what was planted and how large it is. `demo=PATH` reads a corpus made elsewhere with
`python -m ermgap.corpora.make_demo --out PATH`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ermgap.corpora.table import COLUMNS, Corpus
from ermgap.errors import UserError

FOLDER = Path(__file__).parent / "data" / "demo"
RATE = 16000
LANGUAGES = ("en", "de", "ja")
GENDERS = ("female", "male")
EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
PLANTED = ("de", "female")  # the language with the gap, and the gender whose cues are weak there
FIELDS = (
    "path",
    "language",
    "gender",
    "emotion",
    "speaker",
    "split",
    "transcript",
    "duration_s",
    "expression",
    "synthetic",
)


def load(path: Path | None = None) -> Corpus:
    """The table of `demo` (690 rows, split given) with nothing excluded.

    Raises UserError when the folder holds no manifest or the manifest lacks a column.
    """
    folder = Path(path or FOLDER).absolute()
    rows = _read(folder / "manifest.csv")
    table = rows[["language", "gender", "emotion", "speaker", "split", "transcript"]].assign(
        corpus="demo",
        utterance_id="demo/" + rows["path"].map(lambda name: Path(name).stem),
        group=rows["speaker"],
        path=rows["path"].map(lambda name: str(folder / name)),
        start_s=0.0,
        end_s=rows["duration_s"].astype(float),
        synthetic=True,
    )
    excluded = pd.DataFrame(columns=["corpus", "path", "reason"])
    return Corpus(table=table[list(COLUMNS)], excluded=excluded)


def _read(manifest: Path) -> pd.DataFrame:
    if not manifest.is_file():
        raise UserError(
            f"there is no manifest {manifest}; write the corpus there with "
            "`python -m ermgap.corpora.make_demo --out FOLDER`."
        )
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    missing = [name for name in FIELDS if name not in rows.columns]
    if missing:
        raise UserError(
            f"{manifest} lacks the columns {', '.join(missing)}; make the corpus again."
        )
    return rows
