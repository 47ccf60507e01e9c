"""Loader of MELD-ST (English, German and Japanese television dialogue) in its official layout.

    python sweeps/pareto.py --data meld_st=PATH
    python -m ermgap.corpora describe meld_st=PATH        # counts, beside those of the paper

PATH holds `ENG_DEU/{deu_train,deu_valid,deu_test}.csv`, `ENG_DEU/{ENG,DEU}/{train,dev,test}/
train_<id>.wav` and the like under `ENG_JPN`; one of the two pairs may be absent. Nobody may
redistribute the audio: each user brings a copy.

**An utterance** is a season, episode, dialogue and utterance number, as the CSVs give them. MELD
numbered its dialogues anew in each of its own train, dev and test parts, and MELD-ST does not say
from which part a row comes. Nine pairs of MELD's 1,432 dialogues therefore share their numbers, and
so do 39 pairs of its 13,708 utterances. Two of the same numbers are taken for one: a few clips are
lost and counted, and none can leak.

**Splits** are the official ones (`valid` is dev), minus leakage: an utterance that the two pairs
put in different splits stays in test before dev before train, and its other copies are excluded.
English that both pairs have is counted once, from the first pair that has its file.

**Groups** are dialogues, over all languages. Where the official split cuts a dialogue, each part is
a group of its own (`..._train`, `..._test`), so that the official test set stays whole; a note says
how much of dev and test that touches. Speakers are characters and are in all splits: a dubbed
Rachel is the same `speaker` in every language, although another person speaks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from ermgap.corpora.folder import need_path
from ermgap.corpora.meld_st_rows import PAIRS, UNKNOWN, UNLISTED, Pair, read, read_genders
from ermgap.corpora.table import Corpus, excluded_frame, frame, text_frame
from ermgap.errors import UserError
from ermgap.records.files import path_bytes

NAME = "meld_st"
INFERRED = (
    "meld_st's genders are inferred from the characters, not self-reported, and are not those of "
    "the voices that dub them"
)
LAYOUT = "the folder with ENG_DEU/deu_train.csv or ENG_JPN/jpn_train.csv"
PRIORITY = ("test", "dev", "train")
SAME_ROW = "another row has its words, season, episode, dialogue and utterance"
SAME_NUMBERS = "a row of other words has its season, episode, dialogue and utterance"


def load(path: Path | None, *, genders: Path | None = None, drop: Sequence[str] = ()) -> Corpus:
    """The table of MELD-ST (`meld_st/de/s04e07_d0000_u001`), splits given, a row an audio file.

    `genders` is a CSV with the columns speaker and gender that replaces the shipped one. With
    gender among `drop`, clips of unknown gender are excluded here, before leaks and repeats are.
    Every row of the CSVs and language is in the table or in `excluded`, once. Raises UserError when
    `path` holds no whole pair (three CSVs), and naming file and row for a CSV that cannot be read.
    """
    root = need_path(path, corpus=NAME, what=LAYOUT)
    pairs, notes = find_pairs(root)
    known = read_genders(genders)
    clips = text_frame([clip for pair in pairs for clip in read(root, pair, known)])
    unknown = clips["unknown"].where(clips["reason"] == "", "")
    if "gender" in drop:
        clips["reason"] = clips["reason"].where(unknown == "", unknown)
    notes.append(INFERRED if genders is None else f"meld_st's genders are those of {genders}")
    notes += [
        *_gender_notes(clips["speaker"], unknown),
        *_exclude_leaks(clips),
        *_exclude_repeats(clips),
    ]
    # Of byte-identical clips `audio.drop_copies` keeps the first: that must be the one of test.
    kept = clips[clips["reason"] == ""].sort_values("split", key=_priority, kind="stable")
    cut = kept.groupby("dialogue")["split"].transform("nunique") > 1
    table = kept.assign(
        utterance_id=NAME + "/" + kept["language"] + "/" + kept["key"],
        corpus=NAME,
        speaker=NAME + "_" + kept["speaker"],
        group=NAME + "_" + kept["dialogue"] + ("_" + kept["split"]).where(cut, ""),
    )
    return Corpus(
        table=frame(table.to_dict("records")),
        excluded=excluded_frame(clips[clips["reason"] != ""].assign(corpus=NAME)),
        notes=(*notes, *_split_notes(kept, cut)),
        provenance={"gender": "inferred"} if genders is None else {},
    )


def find_pairs(root: Path) -> tuple[list[Pair], list[str]]:
    """The pairs whose three CSVs exist, and a note on the one whose do not.

    Raises UserError naming the files looked for, and the folder that was probably meant.
    """
    missing = {p: [file for file in p.csvs(root).values() if not file.is_file()] for p in PAIRS}
    complete = [pair for pair in PAIRS if not missing[pair]]
    if not complete:
        names = ", ".join(str(f.relative_to(root)) for files in missing.values() for f in files)
        near = _near(root)
        hint = f"did you mean {NAME}={near}?" if near else f"{NAME}=PATH wants {LAYOUT}."
        raise UserError(f"{root} holds no complete pair of MELD-ST (it lacks {names}); {hint}")
    notes = [
        f"meld_st is without {pair.folder} and its language {pair.language}, of which "
        f"{', '.join(file.name for file in files)} {'is' if len(files) == 1 else 'are'} missing"
        for pair, files in missing.items()
        if files
    ]
    return complete, notes


def _near(root: Path) -> Path | None:
    """A folder above or just below `root` that holds a CSV of the corpus."""
    try:
        below = sorted(folder for folder in root.iterdir() if folder.is_dir())
    except OSError:  # a file, or a folder that may not be read
        below = []
    for folder in (*below, *list(root.parents)[:4]):
        if any(file.is_file() for pair in PAIRS for file in pair.csvs(folder).values()):
            return folder
    return None


def _gender_notes(speakers: pd.Series, unknown: pd.Series) -> Iterator[str]:
    for reason, why in ((UNKNOWN, "unknown there"), (UNLISTED, "not given there at all")):
        tally = Counter(speakers[unknown == speakers.map(reason.format)])
        if tally:
            names = ", ".join(name for name, _ in tally.most_common(8))
            more = f" and {len(tally) - 8} more" if len(tally) > 8 else ""
            yield f"{tally.total()} clips are of speakers whose gender is {why}: {names}{more}"


def _priority(splits: pd.Series) -> pd.Series:
    return splits.map(PRIORITY.index)


def _exclude_leaks(clips: pd.DataFrame) -> Iterator[str]:
    """Fill the reason of each clip whose utterance is also in a split of higher priority."""
    usable = clips[clips["reason"] == ""]
    rank = _priority(usable["split"])
    first = rank.groupby(usable["key"]).transform("min")
    leaks = usable[rank > first]
    if len(leaks):
        reasons = dict(enumerate(f"its utterance is in {s} too, where it stays" for s in PRIORITY))
        clips.loc[leaks.index, "reason"] = first[leaks.index].map(reasons)
        tally = leaks["split"].value_counts(sort=False)
        counts = " and ".join(f"{n} of {split}" for split, n in tally.items())
        yield (
            f"LEAKAGE REMOVED: meld_st's CSVs put {leaks['key'].nunique()} utterances in two "
            f"splits; they stay in test before dev before train, and {counts} clips are excluded"
        )


def _exclude_repeats(clips: pd.DataFrame) -> Iterator[str]:
    """Keep one clip of each utterance and language, of those whose file exists if any does."""
    usable = clips[clips["reason"] == ""]
    same = usable[usable.duplicated(["key", "language"], keep=False)]
    same = same.assign(row=same.index, letters=same["english"].map(_letters))
    same = same.loc[same["path"].map(_is_silent).sort_values(kind="stable").index]
    kept = same.groupby(["key", "language"])[["row", "letters", "pair"]].transform("first")
    copies = same[same["row"] != kept["row"]]
    kept = kept.loc[copies.index]
    others = copies["letters"] != kept["letters"]
    reason = "the same English utterance, counted once from " + kept["pair"]
    reason = reason.mask(copies["pair"] == kept["pair"], SAME_ROW).mask(others, SAME_NUMBERS)
    clips.loc[copies.index, "reason"] = reason
    if repeats := (~others).sum():
        yield f"{repeats} clips of meld_st repeat another (English in both pairs) and are excluded"
    if others.any():
        yield (
            f"meld_st gives {others.sum()} clips the numbers of another utterance (MELD numbered "
            "its dialogues anew in each of its splits); they are excluded, lest one leak as the "
            "other"
        )


def _is_silent(path: str) -> bool:
    try:
        return os.path.getsize(path_bytes(path)) == 0
    except OSError:
        return True


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _split_notes(kept: pd.DataFrame, cut: pd.Series) -> Iterator[str]:
    """How the official split flatters a model: by dialogues that are `cut`, and by speakers."""
    is_train = kept["split"] == "train"
    train, rest = kept[is_train], kept[~is_train]
    if cut.any():
        yield (
            "DIALOGUES CUT: meld_st's official split puts parts of "
            f"{kept['dialogue'][cut].nunique()} of {kept['dialogue'].nunique()} dialogues in "
            f"different splits; {rest['dialogue'].isin(train['dialogue']).sum()} of {len(rest)} "
            "dev and test clips have other turns of their dialogue in train, which flatters a "
            "model. Each part is a group of its own"
        )
    if shared := rest["speaker"].isin(train["speaker"]).sum():
        yield (
            f"meld_st's official split is not by speaker: {shared} of {len(rest)} dev and test "
            "clips are of characters that train has too"
        )
