"""The gender of each speaker, from a CSV with the columns `speaker` and `gender`.

    genders = read(MELD)               # {"ross": "male", "all": "", ...}
    genders.get(spelt("Ross "))        # "male", "" where unknown, None where not listed

The shipped file was inferred from MELD's characters, not self-reported; `data/README.md` says what
that means. A user's own file replaces it whole.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from ermgap.config import quoted
from ermgap.corpora import rows
from ermgap.corpora.csv_file import read_csv
from ermgap.errors import UserError

MELD = Path(__file__).parent / "data" / "meld_speaker_gender.csv"
COLUMNS = ("speaker", "gender")


def normalized_name(name: str) -> str:
    """A name as it is looked up: case, spaces and forms of letters do not count."""
    name = unicodedata.normalize("NFC", name)
    return " ".join(name.replace("\u2019", "'").replace("\u2018", "'").split()).casefold()


def read(file: Path) -> dict[str, str]:
    """The gender (female, male, or "" for unknown) of each speaker by `normalized_name`.

    Raises UserError naming file and row for a file that is absent or no CSV, a missing column, an
    empty speaker, a gender in other words, and a speaker who is given two genders.
    """
    if not os.path.isfile(file):
        raise UserError(
            f"there is no file of genders {file}; write a CSV with the columns speaker and gender."
        )
    genders: dict[str, tuple[str, int]] = {}
    for number, row in read_csv(file, required=COLUMNS).records():
        place = f"{file}, row {number}"
        name, gender = (
            normalized_name(row["speaker"]),
            rows.gender(row["gender"].strip(), place=place),
        )
        if not name:
            raise UserError(f"{place}: the speaker is empty; write a name, or remove the row.")
        known, first = genders.setdefault(name, (gender, number))
        if known != gender:
            raise UserError(
                f"{place}: {quoted(row['speaker'].strip())} is {gender or 'unknown'} here and "
                f"{known or 'unknown'} in row {first}; keep one."
            )
    return {name: gender for name, (gender, _) in genders.items()}
