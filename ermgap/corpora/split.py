"""Group-disjoint splits: seeded, and balanced over gender and emotion within each language.

    table = assign(table, seed=0, fold=1, folds=4)    # dev is the second of four folds

Groups (a speaker, a dialogue) are dealt to folds, the larger first, each to the fold that is so far
poorest in what the group holds. Fold `fold` is dev, the next one is test when asked for, the rest
is train. The dealing depends on the seed alone, so that the folds of one seed do not overlap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ermgap.corpora.table import GENDERS, SPLITS, groups_are
from ermgap.errors import UserError


def assign(
    table: pd.DataFrame,
    *,
    seed: int,
    fold: int = 0,
    folds: int = 4,
    test: bool = False,
) -> pd.DataFrame:
    """The table with every `split` filled: train, dev, and test when `test` is true.

    Rows that have a split keep it, and the rest of their group takes it (`follow`). Each language
    gets both genders in train and dev when it has two groups of each (three with `test`); a gender
    with fewer groups than `folds` is dealt to as many folds as it has groups, so its dev share is
    larger; with a single group it stays in train, and `table.warnings` says so.

    Raises UserError for folds that make no sense, and when no language has both genders in both
    train and dev.
    """
    _check(fold, folds, test)
    how = {"seed": seed, "fold": fold, "folds": folds, "test": test}
    whole, moves = follow(table)
    result = _fill(whole, **how)
    if not _has_gap(result):
        moves_did_it = _has_gap(_fill(table, **how))
        drawn = (whole["split"] == "").any()
        raise _no_gap(result, moves=moves if moves_did_it else [], drawn=drawn)
    return result


def follow(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table in which rows without a split take the one of their group, and what moved where.

    One sentence for each split that rows moved to, with the numbers of groups and of utterances.
    """
    given = table[table["split"] != ""].groupby("group")["split"].first()
    moved = (table["split"] == "") & table["group"].isin(given.index)
    split = table["split"].where(~moved, table["group"].map(given)).astype(str)
    moves = []
    for name, part in table[moved].groupby(split[moved]):
        who = groups_are(table[table["group"].isin(part["group"])])
        moves.append(
            f"{who} in {name} and also among the utterances whose split was left open: {len(part)} "
            f"of these {'were' if len(part) > 1 else 'was'} moved to {name}, since nobody may be "
            "on both sides of a split"
        )
    return table.assign(split=split), moves


def _check(fold: int, folds: int, test: bool) -> None:
    least = 3 if test else 2
    if folds < least:
        raise UserError(f"folds is {folds}; write at least {least} to have something to train on.")
    if not 0 <= fold < folds:
        raise UserError(f"fold is {fold}; write 0 to {folds - 1}, one of the {folds} folds.")


def _fill(table: pd.DataFrame, **how) -> pd.DataFrame:
    """The table whose rows without a split have the one drawn for their group among these."""
    rest = table[table["split"] == ""]
    chosen = _divide(rest, **how) if len(rest) else {}
    split = table["split"].where(table["split"] != "", table["group"].map(chosen))
    return table.assign(split=split.astype(str))


def _divide(rest: pd.DataFrame, *, seed: int, fold: int, folds: int, test: bool) -> dict[str, str]:
    """The split of each group of `rest`."""
    fold_of, folds_of = _deal(rest, seed=seed, folds=folds)
    chosen = {}
    for group, place in fold_of.items():
        available = folds_of[group]
        is_test = test and available > 2 and place == (fold + 1) % available
        is_dev = available > 1 and place == fold % available
        chosen[group] = "test" if is_test else "dev" if is_dev else "train"
    return chosen


def _deal(rest: pd.DataFrame, *, seed: int, folds: int) -> tuple[dict[str, int], dict[str, int]]:
    """Fold of each group, and the number of folds that its stratum was dealt to.

    A stratum is the (language, gender) of which the group holds most; its cost counts all it holds.
    """
    holds = _contents(rest)
    most = rest.groupby(["group", "language", "gender"]).size().groupby("group").idxmax()
    of_group = {group: (language, gender) for group, language, gender in most}
    strata = list(of_group.values())
    random = np.random.default_rng(seed)
    load = np.zeros((folds, holds.shape[1]))
    clips = np.zeros(folds)
    sizes = rest.groupby("group").size()
    fold_of: dict[str, int] = {}
    folds_of = {group: min(folds, strata.count(key)) for group, key in of_group.items()}
    for group in _order(of_group, sizes, random):
        open_folds = folds_of[group]
        cost = load[:open_folds] @ holds.loc[group].to_numpy()
        near = np.round(20 * cost / max(cost.max(), 1e-12))  # 5 % apart is a tie: then even sizes
        best = np.lexsort((random.random(open_folds), clips[:open_folds], near))[0]
        fold_of[group] = int(best)
        load[best] += holds.loc[group].to_numpy()
        clips[best] += sizes[group]
    return fold_of, folds_of


def _contents(rest: pd.DataFrame) -> pd.DataFrame:
    """[groups, cells]: each group's share of every (language, gender) and of its emotions."""
    keys = ["language", "gender", "emotion"]
    cells = rest.groupby(["group", *keys]).size().unstack(keys, fill_value=0)
    whole = rest.groupby(["group", *keys[:2]]).size().unstack(keys[:2], fill_value=0)
    parts = [part / np.sqrt((part**2).sum()) for part in (cells, whole)]
    parts[1] = parts[1] * np.sqrt(rest["emotion"].nunique())  # the total weighs as all emotions do
    return pd.concat([part.set_axis(range(part.shape[1]), axis=1) for part in parts], axis=1)


def _order(of_group: dict, sizes: pd.Series, random: np.random.Generator) -> list[str]:
    """Strata in turn, larger groups first by powers of two, shuffled among about equals."""
    shuffled = random.permutation(sorted(of_group))
    return sorted(shuffled, key=lambda name: (of_group[name], -int(np.log2(sizes[name]))))


def _has_gap(table: pd.DataFrame) -> bool:
    """Whether some language has both genders in both train and dev."""
    needed = {(split, gender) for split in ("train", "dev") for gender in GENDERS}
    return any(
        needed <= set(zip(part["split"], part["gender"], strict=True))
        for _, part in table.groupby("language")
    )


def _no_gap(table: pd.DataFrame, *, moves: Sequence[str], drawn: bool) -> UserError:
    """The error of a table without a gap; `drawn` is whether any split was."""
    present = [name for name in SPLITS if (table["split"] == name).any()]
    why = "; give a language two groups of each gender, or set the manifest's split column"
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
        "no language has female and male utterances in both train and dev, so that no gap can be "
        f"measured{why}."
    )
