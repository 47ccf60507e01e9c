"""Splits that cut no group, seeded and balanced, and a note on ids that may be one voice.

    table = assign(table, seed=0, fold=1, folds=4)    # dev is the second of four folds

Within each language sides (gender, or another attribute) and emotion are balanced: groups (a
speaker, a dialogue) are dealt to folds, the larger first, each to the fold that is so far poorest
in what the group holds. Fold `fold` is dev, the next one is test when asked for, the rest is train.
The dealing depends on the seed alone, so that the folds of one seed do not overlap.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ermgap import attributes
from ermgap.config import GENDER, one_line
from ermgap.corpora.table import SPLITS, describe_groups
from ermgap.errors import UserError

MOST = 6  # people in the note on ids, ids of one, sides in a message
LONGEST = 80  # characters of an id


def assign(
    table: pd.DataFrame,
    *,
    seed: int,
    fold: int = 0,
    folds: int = 4,
    test: bool = False,
    attribute: Sequence[str] = (GENDER,),
) -> pd.DataFrame:
    """The table with every `split` filled: train, dev, and test when `test` is true.

    Rows that have a split keep it, and the rest of their group takes it. Each language
    gets a side of the attribute in train and dev when it has two groups of it (three with `test`);
    one with fewer groups than `folds` is dealt to as many folds as it has groups, so its dev share
    is larger; with a single group it stays in train, and `table.warnings` says so. Utterances of
    unknown side are dealt like those of a side.

    Raises UserError for folds that make no sense, and when no language has the same two sides in
    both train and dev.
    """
    least = 3 if test else 2
    if folds < least:
        raise UserError(f"folds is {folds}; write at least {least} to have something to train on.")
    if not 0 <= fold < folds:
        raise UserError(f"fold is {fold}; write 0 to {folds - 1}, one of the {folds} folds.")
    settings = {"seed": seed, "fold": fold, "folds": folds, "test": test}
    keyed = _keyed(table, attribute)
    completed, moves = complete_groups(keyed)
    result = _draw(completed, **settings)
    if not _has_gap(result):
        caused_by_moves = _has_gap(_draw(keyed, **settings))
        drawn = (completed["split"] == "").any()
        moves = moves if caused_by_moves else []
        raise _no_gap(result, attribute, moves=moves, drawn=drawn)
    return result[list(table.columns)]


def _keyed(table: pd.DataFrame, attribute: Sequence[str]) -> pd.DataFrame:
    """The table with `cell`, its language, and `side`, between which gaps are measured."""
    cell = attributes.cell_languages(table, attribute)
    return table.assign(cell=cell, side=attributes.values(table, attribute))


def complete_groups(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table in which rows without a split take that of their group, and sentences on the moves.

    One sentence for each split that rows moved to, with the numbers of groups and of utterances.
    """
    known = table[table["split"] != ""].groupby("group")["split"].first()
    moved = (table["split"] == "") & table["group"].isin(known.index)
    split = table["split"].where(~moved, table["group"].map(known)).astype(str)
    moves = []
    for name, part in table[moved].groupby(split[moved]):
        who = describe_groups(table[table["group"].isin(part["group"])])
        moves.append(
            f"{who} in {name} and also among the utterances without a split: {len(part)} of these "
            f"{'were' if len(part) > 1 else 'was'} moved to {name}, since nobody may be in two "
            "splits"
        )
    return table.assign(split=split), moves


def strata_of(
    table: pd.DataFrame, attribute: Sequence[str] = (GENDER,)
) -> dict[str, tuple[str, str]]:
    """The (language, side) of which each group has most; the side may be unknown, ""."""
    return _strata(_keyed(table, attribute))


def _strata(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    most = table.groupby(["group", "cell", "side"]).size().groupby("group").idxmax()
    return {group: (cell, side) for group, cell, side in most}


def _draw(table: pd.DataFrame, *, seed: int, fold: int, folds: int, test: bool) -> pd.DataFrame:
    """The table with a split drawn for each group of the rows that have none."""
    undivided = table[table["split"] == ""]
    if undivided.empty:
        return table
    drawn = {}
    for group, (own, available) in _deal(undivided, seed=seed, folds=folds).items():
        is_test = test and available > 2 and own == (fold + 1) % available
        is_dev = available > 1 and own == fold % available
        drawn[group] = "test" if is_test else "dev" if is_dev else "train"
    split = table["split"].where(table["split"] != "", table["group"].map(drawn))
    return table.assign(split=split.astype(str))


def _deal(table: pd.DataFrame, *, seed: int, folds: int) -> dict[str, tuple[int, int]]:
    """Fold of each group, and the number of folds that its stratum was dealt to.

    The cost of a group counts all its rows, also those of another stratum than its own.
    """
    contents = _contents(table)
    stratum_of = _strata(table)
    strata = Counter(stratum_of.values())
    random = np.random.default_rng(seed)
    load = np.zeros((folds, contents.shape[1]))
    clips = np.zeros(folds)
    sizes = table.groupby("group").size()
    dealt: dict[str, tuple[int, int]] = {}
    # By stratum, larger groups first by powers of two, shuffled among about equals.
    shuffled = random.permutation(sorted(stratum_of))
    for group in sorted(shuffled, key=lambda name: (stratum_of[name], -int(np.log2(sizes[name])))):
        available = min(folds, strata[stratum_of[group]])
        cost = load[:available] @ contents.loc[group].to_numpy()
        near = np.round(20 * cost / max(cost.max(), 1e-12))  # 5 % apart is a tie: then even sizes
        best = np.lexsort((random.random(available), clips[:available], near))[0]
        dealt[group] = int(best), available
        load[best] += contents.loc[group].to_numpy()
        clips[best] += sizes[group]
    return dealt


def _contents(table: pd.DataFrame) -> pd.DataFrame:
    """[groups, strata]: each group's share of every (language, side) and of its emotions."""
    keys = ["cell", "side", "emotion"]
    cells = table.groupby(["group", *keys]).size().unstack(keys, fill_value=0)
    whole = table.groupby(["group", *keys[:2]]).size().unstack(keys[:2], fill_value=0)
    parts = [part / np.sqrt((part**2).sum()) for part in (cells, whole)]
    parts[1] = parts[1] * np.sqrt(table["emotion"].nunique())  # the total weighs as all emotions do
    return pd.concat([part.set_axis(range(part.shape[1]), axis=1) for part in parts], axis=1)


def _has_gap(table: pd.DataFrame) -> bool:
    """Whether some language has two sides that are in both train and dev."""
    known = table[(table["side"] != attributes.UNKNOWN) & table["split"].isin(["train", "dev"])]
    splits = known.groupby(["cell", "side"])["split"].nunique()
    return ((splits == 2).groupby("cell").sum() >= 2).any()


def _no_gap(
    table: pd.DataFrame, attribute: Sequence[str], *, moves: Sequence[str], drawn: bool
) -> UserError:
    """The error of a table without a gap; `drawn` is whether any split was."""
    present = [name for name in SPLITS if (table["split"] == name).any()]
    sides, title = attributes.sides(table, attribute), attributes.title(attribute)
    listed = ", ".join(map(one_line, sides[:MOST])) + ", ..." * (len(sides) > MOST)
    listed = f"two of {listed}" if len(sides) > 2 else " and ".join(map(one_line, sides))
    lacks = "the table does not have" if "language" in attribute else "no language has"
    where = "two groups" if "language" in attribute else "a language two groups"
    why = f"; give {where} of each {title}, or set the manifest's split column"
    if moves:
        why = (
            f", because {'; '.join(moves)}; let nobody be in two splits, or leave all empty, so "
            "that one is drawn by speaker"
        )
    elif not drawn and not {"train", "dev"} <= set(present):
        why = (
            f", because every utterance has a split and these are only {' and '.join(present)}; "
            "leave those of train empty, so that dev is drawn from them by speaker"
        )
    return UserError(
        f"{lacks} {listed} utterances in both train and dev, so that no gap can be measured{why}."
    )


def spelling_notes(table: pd.DataFrame) -> list[str]:
    """A note that lists the ids which differ only in case, blanks, punctuation or zeros, if any do.

    Ids of speakers and of groups count; not an utterance's own, which stands for those not given.
    """
    alike: dict[tuple[str, ...], None] = {}
    for column in ("speaker", "group"):
        names = pd.unique(table.loc[table[column] != table["utterance_id"], column])
        spellings: dict[tuple[str, ...], list[str]] = {}
        for name in sorted(names):
            spellings.setdefault(_key(name), []).append(name)
        alike |= {tuple(same): None for same in spellings.values() if len(same) > 1}
    if not alike:
        return []
    listed = "; ".join(map(_listed, list(alike)[:MOST]))
    more = f"; and {len(alike) - MOST} more" if len(alike) > MOST else ""
    return [
        "ONE SPEAKER, SEVERAL IDS? These differ only in case, blanks, punctuation or zeros, yet "
        f"count as different people, on both sides of a split: {listed}{more}. Spell them alike "
        "where they are one voice"
    ]


def _listed(names: tuple[str, ...]) -> str:
    """The ids so that their difference shows: other forms of a letter are escaped."""
    same_letters = len({unicodedata.normalize("NFKC", name) for name in names}) < len(names)
    return " and ".join((ascii if same_letters else repr)(name[:LONGEST]) for name in names[:MOST])


def _key(name: str) -> tuple[str, ...]:
    """What alike ids have in common: `Spk_01`, `spk-1` and `SPK 1.0` are all (spk, 1)."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"(?<=\d)\.0+(?!\d)", "", text)  # a number that pandas held as float
    bare = "".join(" " if unicodedata.category(c)[0] in "ZPSC" else c for c in text)
    parts: list[str] = []
    for part in re.findall(r"\d+|[^\d\s]+", bare):
        if part[0].isdecimal():
            parts.append(part.lstrip("0") or "0")
        elif parts and not parts[-1][0].isdecimal():
            parts[-1] += part  # anna b is annab; 1 1 is not 11
        else:
            parts.append(part)
    return tuple(parts) or (name,)
