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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ermgap.corpora.folder import need_path
from ermgap.corpora.meld_st_rows import PAIRS, UNKNOWN, UNLISTED, Clip, Pair, read, read_genders
from ermgap.corpora.table import Corpus, excluded_frame, frame
from ermgap.errors import UserError

NAME = "meld_st"
INFERRED = (
    "meld_st's genders are inferred from the characters, not self-reported, and are not those of "
    "the voices that dub them"
)
LAYOUT = "the folder with ENG_DEU/deu_train.csv or ENG_JPN/jpn_train.csv"
PRIORITY = ("test", "dev", "train")
SAME_ROW = "another row has its words, season, episode, dialogue and utterance"
SAME_NUMBERS = "a row of other words has its season, episode, dialogue and utterance"


def load(path: Path | None, *, genders: Path | None = None) -> Corpus:
    """The table of MELD-ST (`meld_st/de/s04e07_d0000_u001`), splits given, a row an audio file.

    `genders` is a CSV with the columns speaker and gender that replaces the shipped one. Every row
    of the CSVs and language is in the table or in `excluded`, once. Raises UserError when `path`
    holds no whole pair (three CSVs), and naming file and row for a CSV that cannot be read.
    """
    root = need_path(path, corpus=NAME, what=LAYOUT)
    pairs, notes = find_pairs(root)
    known = read_genders(genders)
    clips = [clip for pair in pairs for clip in read(root, pair, known)]
    notes.append(INFERRED if genders is None else f"meld_st's genders are those of {genders}")
    notes += [*_gender_notes(clips), *_exclude_leaks(clips), *_exclude_repeats(clips)]
    # Of byte-identical clips `audio.drop_copies` keeps the first: that must be the one of test.
    kept = [clip for split in PRIORITY for clip in clips if clip.split == split and not clip.reason]
    cut = _splits_by(lambda clip: clip.dialogue, kept)
    notes += [*_cut_notes(kept, cut), *_speaker_notes(kept)]
    excluded = [{"corpus": NAME, "path": c.path, "reason": c.reason} for c in clips if c.reason]
    table = frame([_row(clip, cut) for clip in kept])
    return Corpus(table=table, excluded=excluded_frame(excluded), notes=tuple(notes))


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


def _splits_by(key: Callable[[Clip], tuple], clips: Iterable[Clip]) -> dict[tuple, set[str]]:
    """The splits of each key that is in more than one."""
    splits: dict[tuple, set[str]] = {}
    for clip in clips:
        splits.setdefault(key(clip), set()).add(clip.split)
    return {name: several for name, several in splits.items() if len(several) > 1}


def _exclude_leaks(clips: list[Clip]) -> Iterator[str]:
    """Fill the reason of each clip whose utterance is also in a split of higher priority."""
    usable = [clip for clip in clips if not clip.reason]
    leaking = _splits_by(lambda clip: clip.key, usable)
    excluded: Counter[str] = Counter()
    for clip in usable:
        stays_in = min(leaking.get(clip.key, {clip.split}), key=PRIORITY.index)
        if clip.split != stays_in:
            clip.reason = f"its utterance is in {stays_in} too, where it stays"
            excluded[clip.split] += 1
    if leaking:
        counts = " and ".join(f"{n} of {split}" for split, n in excluded.items())
        yield (
            f"LEAKAGE REMOVED: meld_st's CSVs put {len(leaking)} utterances in two splits; they "
            f"stay in test before dev before train, and {counts} clips are excluded"
        )


def _exclude_repeats(clips: list[Clip]) -> Iterator[str]:
    """Keep one clip of each utterance and language, of those whose file exists if any does."""
    copies: dict[tuple, list[Clip]] = {}
    for clip in clips:
        if not clip.reason:
            copies.setdefault((clip.key, clip.language), []).append(clip)
    tally: Counter[bool] = Counter()  # by whether the words are others
    for same in copies.values():
        if len(same) == 1:
            continue
        kept = next((clip for clip in same if _has_audio(clip)), same[0])
        for clip in same:
            if clip is kept:
                continue
            if _letters(clip.english) != _letters(kept.english):
                clip.reason = SAME_NUMBERS
            elif clip.pair == kept.pair:
                clip.reason = SAME_ROW
            else:
                clip.reason = f"the same English utterance, counted once from {kept.pair}"
            tally[clip.reason == SAME_NUMBERS] += 1
    if repeats := tally[False]:
        yield f"{repeats} clips of meld_st repeat another (English in both pairs) and are excluded"
    if others := tally[True]:
        yield (
            f"meld_st gives {others} clips the numbers of another utterance (MELD numbered its "
            "dialogues anew in each of its splits); they are excluded, lest one leak as the other"
        )


def _has_audio(clip: Clip) -> bool:
    try:
        return os.path.getsize(clip.path) > 0
    except OSError:
        return False


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _row(clip: Clip, cut: dict[tuple, set[str]]) -> dict:
    season, episode, dialogue, utterance = clip.key
    scene = f"s{season:02d}e{episode:02d}_d{dialogue:04d}"
    return {
        "utterance_id": f"{NAME}/{clip.language}/{scene}_u{utterance:03d}",
        "corpus": NAME,
        "language": clip.language,
        "gender": clip.gender,
        "emotion": clip.emotion,
        "speaker": f"{NAME}_{clip.speaker}",
        "group": f"{NAME}_{scene}" + (f"_{clip.split}" if clip.dialogue in cut else ""),
        "split": clip.split,
        "path": clip.path,
        "transcript": clip.transcript,
    }


def _cut_notes(kept: list[Clip], cut: dict[tuple, set[str]]) -> Iterator[str]:
    if cut:
        dev_and_test = [clip for clip in kept if clip.split != "train"]
        touched = sum("train" in cut.get(clip.dialogue, ()) for clip in dev_and_test)
        yield (
            f"DIALOGUES CUT: meld_st's official split puts parts of {len(cut)} of "
            f"{len({clip.dialogue for clip in kept})} dialogues in different splits; {touched} of "
            f"{len(dev_and_test)} dev and test clips have other turns of their dialogue in train, "
            "which flatters a model. Each part is a group of its own"
        )


def _speaker_notes(kept: list[Clip]) -> Iterator[str]:
    trained = {clip.speaker for clip in kept if clip.split == "train"}
    shared = [clip.speaker in trained for clip in kept if clip.split != "train"]
    if any(shared):
        yield (
            f"meld_st's official split is not by speaker: {sum(shared)} of {len(shared)} dev "
            "and test clips are of characters that train has too"
        )


def _gender_notes(clips: list[Clip]) -> Iterator[str]:
    unlisted = Counter(c.speaker for c in clips if c.reason == UNLISTED.format(c.speaker))
    unknown = Counter(clip.speaker for clip in clips if clip.reason == UNKNOWN)
    for clips_of, why in ((unknown, "unknown there"), (unlisted, "not given there at all")):
        if clips_of:
            names = ", ".join(name for name, _ in clips_of.most_common(8))
            more = f" and {len(clips_of) - 8} more" if len(clips_of) > 8 else ""
            yield f"{clips_of.total()} clips are of speakers whose gender is {why}: {names}{more}"
