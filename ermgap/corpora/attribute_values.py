"""Values of the attributes of loaded corpora: as text, counted, unknown, and where they come from.

What an attribute is, and its sides, is `ermgap.attributes`; this is what corpora say of one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from ermgap import attributes
from ermgap.attributes import RESERVED, UNKNOWN
from ermgap.config import GENDER, NOT_STATED, one_line, quoted
from ermgap.corpora.columns import PREFIX
from ermgap.errors import UserError

MOST = 12  # values of an attribute in its line


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its attributes as text, without blanks around; what is missing is unknown."""
    given = {name: table[name].astype(object) for name in attributes.columns(table)}
    texts = {
        name: values.where(values.notna(), UNKNOWN).astype(str).str.strip()
        for name, values in given.items()
    }
    return table.assign(**texts)


def reasons_to_drop(table: pd.DataFrame, attribute: Sequence[str]) -> pd.Series:
    """Why each utterance is excluded where the attribute has to be known, or "", [n]."""
    title = attributes.title(attribute)
    reason = "the speaker's gender is unknown" if title == GENDER else f"its {title} is unknown"
    absent = {name: UNKNOWN for name in attribute if name not in table}
    is_known = attributes.values(table.assign(**absent), attribute) != UNKNOWN
    return pd.Series(reason, table.index).where(~is_known, "")


def require(name: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """UserError for an attribute that is none, or that no corpus has; tables by corpus."""
    if name in RESERVED:
        raise UserError(
            f"{quoted(name)} is no attribute: that column holds something else; rename yours, such "
            f"as to {PREFIX}{name}_type."
        )
    known = sorted({own for table in tables.values() for own in attributes.columns(table)})
    if name in known:
        return
    near = difflib.get_close_matches(name.casefold(), known, n=1)
    remedy = (
        f"did you mean {near[0]!r}?"
        if near
        else f"add a column {PREFIX}{one_line(name)} to a manifest, or name another under "
        "objective.attribute or data.attributes."
    )
    raise UserError(
        f"there is no attribute {quoted(name)} in {', '.join(map(one_line, tables))}, only "
        f"{', '.join(map(one_line, known))}; {remedy}"
    )


def listed(table: pd.DataFrame, name: str) -> str:
    """The values of an attribute with their numbers of utterances and speakers, unknown last."""
    tally = table.groupby(name)["speaker"].agg(["size", "nunique"])
    tally = tally.loc[sorted(tally.index, key=lambda value: (value == UNKNOWN, value))]
    texts = [
        f"{one_line(value) or 'unknown'} ({n} of {speakers} speaker{'s' * (speakers > 1)})"
        for value, n, speakers in tally.itertuples()
    ]
    if len(texts) > MOST:
        last = texts[-1:] if UNKNOWN in tally.index else []
        shown = texts[: MOST - len(last)]
        texts = [*shown, f"{len(texts) - len(shown) - len(last)} more values", *last]
    return ", ".join(texts)


def unknown_notes(table: pd.DataFrame, names: Sequence[str]) -> Iterator[str]:
    """A sentence for each attribute and corpus on the utterances of unknown value that stay."""
    for name in names:
        for corpus, part in table.groupby("corpus", sort=False):
            unknown = int((part[name] == UNKNOWN).sum())
            subject = f"{unknown} of {len(part)} utterances of {corpus} are of unknown {name}: they"
            if unknown == len(part):
                subject = f"{corpus} names no {name}: its {unknown} utterances"
            if unknown:
                yield f"{subject} count in accuracy, and in no gap by {name}"


def joined_provenance(
    tables: Mapping[str, pd.DataFrame], provenances: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Where each attribute's values come from, with the corpora's names where they differ.

    Attributes of which no corpus says so are omitted. Both arguments are by corpus, in one order.
    """
    joined = {}
    for name in dict.fromkeys(name for provenance in provenances for name in provenance):
        said: dict[str, list[str]] = {}
        for (title, table), provenance in zip(tables.items(), provenances, strict=True):
            if name in table and (table[name] != UNKNOWN).any():
                said.setdefault(provenance.get(name, NOT_STATED), []).append(title)
        named = [f"{text} ({', '.join(said[text])})" for text in sorted(said)]
        joined[name] = ", ".join(named if len(said) > 1 else said)
    return {name: text for name, text in joined.items() if text}
