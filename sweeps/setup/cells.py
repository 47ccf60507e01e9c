"""Which sides of the objective's attribute can be compared on dev, language by language.

A side is estimable in a language where dev has enough utterances and speakers of it
(`data.cell_support`, `data.speaker_support`); a gap counts where two sides are.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ermgap import attributes, metrics
from ermgap.config import Config, one_line
from ermgap.errors import UserError

MOST = 6  # languages in a message, and sides of one


def require_a_cell(config: Config, utterances: pd.DataFrame) -> None:
    """UserError if dev is so small in every language that no gap would count: all trials fail."""
    support, attribute = _support(config, utterances), config.objective.attribute
    if (support.groupby("language")["enough"].sum() >= 2).any():
        return
    by_speakers, title = config.data.speaker_support > 1, attributes.title(attribute)
    cells = [
        f"{language} " + _listed(
            [f"{n} {one_line(side)}" + f" by {speakers}" * by_speakers
             for (_, side), n, speakers, _ in part.itertuples()]
        )
        for language, part in support.groupby("language")
    ]  # fmt: skip
    two = len(attributes.sides(utterances, attribute)) == 2
    each = f"each {title}" if two else f"two values of {title}"
    subject = "there are not" if "language" in attribute else "no language has"
    least, speakers = least_of_cell(config), config.data.speaker_support
    raise UserError(
        f"on dev {subject} {least} utterances"
        + f" by {speakers} speakers" * by_speakers
        + f" of {each} ({', '.join(cells[:MOST])}{', ...' * (len(cells) > MOST)}), so that no gap "
        "would count; give dev more, or ask for less with --set data.cell_support=N"
        + " or data.speaker_support=N" * by_speakers
        + "."
    )


def least_of_cell(config: Config) -> int:
    """How many dev utterances of a side a cell needs to compare it."""
    data = config.data
    return metrics.minimum_per_side(min_support=data.min_support, cell_support=data.cell_support)


def _support(config: Config, utterances: pd.DataFrame, split: str = "dev") -> pd.DataFrame:
    """What a split has of each (language, side): n, speakers, and enough, whether it is estimable.

    The sides are those that the language has in any split.
    """
    attribute = config.objective.attribute
    sides = attributes.cell_sides(utterances, attribute)
    part = utterances[utterances["split"] == split]
    languages = attributes.cell_languages(part, attribute)
    index = [(name, side) for name in sorted(set(languages)) for side in sides[name]]
    n = part["speaker"].groupby([languages, attributes.values(part, attribute)])
    n = n.agg(n="size", speakers="nunique").rename_axis(["language", "side"])
    index = pd.MultiIndex.from_tuples(index, names=n.index.names)
    n = n.reindex(index, fill_value=0)
    enough = (n["n"] >= least_of_cell(config)) & (n["speakers"] >= config.data.speaker_support)
    return n.assign(enough=enough)


def small_cells(config: Config, utterances: pd.DataFrame) -> list[str]:
    """A sentence for each language on its sides that are not estimable."""
    least, speakers = least_of_cell(config), config.data.speaker_support
    fewer = f"{least} utterances (data.cell_support)"
    fewer += f" or {speakers} speakers (data.speaker_support)" * (speakers > 1)
    notes = []
    cells = [
        (split, *cell)
        for split in ("train", "dev")
        for cell in _support(config, utterances, split).groupby("language")
    ]
    for split, language, part in cells:
        few, others = part[~part["enough"]], part["enough"].sum()
        if split == "train":  # without two others they are compared as they are
            few = few[few["n"] > 0] if others > 1 else few[:0]
        if few.empty:
            continue
        listed = _listed(
            [f"{n} {one_line(side)} utterances by {by} speakers"
             for (_, side), n, by, _ in few.itertuples()]
        )  # fmt: skip
        rest = "its gap is measured, and does not count for the largest"
        rest = "it is compared between the others" if others > 1 else rest
        if split == "train":
            rest = "they stay in the mean loss and are in no penalty"
        notes.append(
            f"on {split} {language} has {listed}: not estimable there with fewer than {fewer}; "
            f"{rest}"
        )
    return notes


def _listed(parts: Sequence[str]) -> str:
    """`a, b and c`; the first MOST of them."""
    shown = list(parts[:MOST])
    if len(parts) > MOST:
        shown.append(f"{len(parts) - MOST} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
