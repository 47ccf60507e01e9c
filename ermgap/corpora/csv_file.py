"""A reader of CSV files as spreadsheets and scripts write them: columns by name, rows by number.

    table = read_csv(Path("manifest.csv"), required=("path", "gender"), optional=("split",))
    for number, row in table.rows: ...

UTF-8, with a header in its first row, separated by commas or by what the header shows: semicolons
(spreadsheets in most of Europe), tabs or bars.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ermgap.config import one_line
from ermgap.corpora import columns
from ermgap.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARK = re.compile(r'"?sep=([,;\t|])"?\r?\n')  # a first line for spreadsheets alone


@dataclass(frozen=True)
class CsvTable:
    """The content of a CSV file."""

    header: list[str]  # the columns; known ones as they are asked for, whatever their letter case
    rows: list[tuple[int, dict[str, str]]]  # row number (the file's first is 1), fields by column
    separator: str  # a key of SEPARATORS
    blank: int  # how many rows have separators and nothing between them
    attributes: tuple[str, ...] = ()  # the columns of `header` that hold one

    def notes(self, name: str) -> tuple[str, ...]:
        """Sentences on what is unusual about the file, which they call `name`."""
        separated = (
            f"{name} is separated by {SEPARATORS[self.separator]}, not commas; a number such as "
            "1,25 in it is read as 1.25"
        )
        blank = f"{self.blank} rows of {name} are blank and were skipped"
        return (separated,) * (self.separator != ",") + (blank,) * bool(self.blank)


def read_csv(
    file: Path,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
    attributes: Sequence[str] | None = None,
) -> CsvTable:
    """Read a CSV whose header names the `required` columns.

    `attributes` are those asked for (`columns.attribute_columns`); None: the file has none.
    Raises UserError for text that is not UTF-8, broken quotes, an empty file, a header that lacks a
    required column or has a known one twice, and a row with too few or too many fields.
    """
    text = _text(file)
    mark = _MARK.match(text)
    separator = mark[1] if mark else _separator(text, required)
    reader = _reader(text, separator)
    try:
        numbered = [(i, row) for i, row in enumerate(reader, 1) if row and not (mark and i == 1)]
    except csv.Error as problem:
        raise UserError(
            f"{file} is not a valid CSV (line {reader.line_num}: {one_line(str(problem))}); "
            "correct the quotes there."
        ) from problem
    rows = [(i, row) for i, row in numbered if any(map(str.strip, row))]
    if not rows:
        raise UserError(f"{file} is empty; its first row must name the columns.")
    names, where = rows[0][1], str(file)
    holding = {}
    if attributes is not None:
        holding = columns.attribute_columns(names, asked=attributes, where=where)
    header = columns.recognised(
        names, known=(*required, *optional), where=where, attributes=holding
    )
    if missing := [name for name in required if name not in header]:
        hint = columns.missing_hint(missing, header, with_attributes=attributes is not None)
        raise UserError(f"{file} lacks the column {', '.join(missing)}; {hint}.")
    if len(rows) == 1:
        raise UserError(f"{file} has a header and no rows; add one row a clip.")
    fields = [(i, _fitted(row, header, f"{file}, row {i}")) for i, row in rows[1:]]
    return CsvTable(header, fields, separator, len(numbered) - len(rows), tuple(holding.values()))


def _text(file: Path) -> str:
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            return stream.read()
    except UnicodeDecodeError as problem:
        raise UserError(f"{file} is not UTF-8 text; save it again as CSV in UTF-8.") from problem
    except OSError as problem:
        raise UserError(
            f"{file} cannot be opened ({problem.strerror}); check its name and permissions."
        ) from problem


def _reader(text: str, separator: str):
    return csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )


def _separator(text: str, required: Sequence[str]) -> str:
    """The separator that gives the header most of the `required` columns, then most columns."""

    def fit(separator: str) -> tuple[int, int]:
        try:
            header = next((row for row in _reader(text, separator) if any(map(str.strip, row))), [])
        except csv.Error:
            return 0, 0
        names = {name.casefold() for name in required}
        return len(names & {name.strip().casefold() for name in header}), len(header)

    return max(SEPARATORS, key=fit)  # of equals the first: commas


def _fitted(values: list[str], header: list[str], place: str) -> dict[str, str]:
    """A row's fields by column; blank ones behind the last column are cut."""
    if len(values) < len(header) or any(map(str.strip, values[len(header) :])):
        raise UserError(
            f"{place}: it has {len(values)} fields where the header has {len(header)}; "
            "put a text that holds the separator between double quotes."
        )
    return dict(zip(header, values, strict=False))
