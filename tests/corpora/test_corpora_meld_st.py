"""MELD-ST: what a row becomes, no leakage, nothing counted twice, and every damage is named."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import meld_st_tree as tree
import pandas as pd
import pytest

from ermgap import corpora
from ermgap.corpora import meld_st, split
from ermgap.corpora import table as tables
from ermgap.errors import UserError

CSV = "ENG_DEU/deu_train.csv"
CLIP = "ENG_DEU/DEU/train/train_0.wav"
ONCE = "the same English utterance, counted once from ENG_DEU"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tree.write(tmp_path_factory.mktemp("tidy") / "MELD-ST", tree.tidy())


@pytest.fixture
def root(whole, tmp_path) -> Path:
    """A copy of the tidy tree to damage: 48 rows a pair, hence 192 clips, 48 of them repeated."""
    return shutil.copytree(whole, tmp_path / "MELD-ST", copy_function=take)


def take(source: str, target: str) -> None:
    """Clips are linked, which is faster: let `own` come before a test writes into one."""
    os.link(source, target) if source.endswith(".wav") else shutil.copy(source, target)


def own(clip: Path) -> Path:
    data = clip.read_bytes()
    clip.unlink()
    clip.write_bytes(data)
    return clip


def load(root: Path, **options) -> corpora.Corpus:
    """The corpus, after checking that every row and language is told of exactly once."""
    corpus = corpora.load([f"meld_st={root}"], **options)
    places = [*corpus.table["path"], *corpus.excluded["path"]]
    lines = sum(len(tree.read_csv(file)) for file in csvs(root))
    assert len(places) == len(set(places)) == 2 * lines
    keys = corpus.table["utterance_id"].str.split("/").str[2]
    assert (corpus.table.groupby(keys)["split"].nunique() == 1).all()
    assert not corpus.table.assign(key=keys).duplicated(["key", "language"]).any()
    return corpus


def csvs(root: Path) -> list[Path]:
    """The CSVs that a loader may read: those of pairs that have all three."""
    found = [sorted((root / pair).glob("*.csv")) for pair in tree.PAIRS]
    return [file for files in found if len(files) == 3 for file in files]


def test_a_row_becomes_a_clip_in_english_and_one_in_the_dubbed_language(whole):
    table = load(whole).table.set_index("utterance_id")
    row = table.loc["meld_st/ja/s01e03_d0011_u003"]
    assert row[["language", "gender", "emotion", "speaker", "split"]].to_list() == [
        "ja", "female", "neutral", "meld_st_Monica", "test",
    ]  # fmt: skip
    assert row["transcript"] == "Japanese: Line 3, of scene 11"
    assert row["path"] == str(whole / "ENG_JPN" / "JPN" / "test" / "test_7.wav")
    assert table.loc["meld_st/en/s01e03_d0011_u003", "transcript"] == "Line 3, of scene 11"
    assert table.groupby(["split", "language"]).size().unstack().to_numpy().tolist() == [
        [8, 8, 8], [8, 8, 8], [32, 32, 32],
    ]  # fmt: skip


def test_english_of_both_pairs_is_counted_once_and_the_other_copy_is_told(whole):
    corpus = load(whole)
    assert Counter(corpus.excluded["reason"]) == {ONCE: 48}
    english = corpus.table[corpus.table["language"] == "en"]
    assert english["path"].str.contains("ENG_DEU").all() and len(english) == 48


@pytest.mark.parametrize("seed", range(3))
def test_whatever_leaks_no_key_is_in_two_splits_and_every_row_is_told_of_once(tmp_path, seed):
    plan = tree.plan(tree.made_rows(40), DEU=(90, 25, 25), JPN=(80, 20, 20), moved=5, seed=seed)
    corpus = load(tree.write(tmp_path / "M", plan))  # which checks both
    assert corpus.excluded["reason"].str.contains("where it stays").sum() >= 20


def test_english_whose_file_is_missing_in_one_pair_is_taken_from_the_other(root):
    (root / "ENG_DEU/ENG/train/train_0.wav").unlink()
    own(root / "ENG_DEU/ENG/train/train_1.wav").write_bytes(b"")
    corpus = load(root)
    assert len(corpus.table) == 144
    assert corpus.excluded["reason"].str.endswith("ENG_JPN").sum() == 2


def test_a_dialogue_is_a_group_over_all_languages_and_the_official_split_is_kept(whole):
    table = load(whole).table
    assert table.groupby("group")["language"].nunique().eq(3).all()
    assert table["group"].nunique() == 12
    pd.testing.assert_frame_equal(split.assign(table, seed=5, fold=2), table)


def test_an_utterance_of_two_splits_stays_in_test_before_dev_before_train(tmp_path):
    plan = tree.tidy()
    japanese = plan["ENG_JPN"]
    for low, i, high, j in (("train", 0, "test", 0), ("train", 9, "dev", 0), ("dev", 7, "test", 7)):
        japanese[low][i], japanese[high][j] = japanese[high][j], japanese[low][i]
    corpus = load(tree.write(tmp_path / "M", plan))
    gone = corpus.excluded[corpus.excluded["reason"].str.contains("where it stays")]
    assert len(gone) == 12  # six utterances, English and dubbed, of the pair with the lower split
    assert not gone["path"].str.contains("/test/").any()
    assert (corpus.table["split"] == "test").sum() > 24  # three languages of eight, and more
    note = next(note for note in corpus.notes if note.startswith("LEAKAGE REMOVED"))
    assert "6 utterances in two splits" in note
    assert any(note.startswith("DIALOGUES CUT") for note in corpus.notes)


def test_a_dialogue_that_the_official_split_cuts_is_said_and_is_a_group_on_each_side(tmp_path):
    plan = tree.tidy()
    for pair in plan.values():  # the first turn of a test scene goes to train, in both pairs alike
        pair["train"].append(pair["test"].pop(0))
    corpus = load(tree.write(tmp_path / "M", plan))
    cut = corpus.table[corpus.table["group"].str.contains("d0010")]
    assert set(cut["group"]) == {"meld_st_s01e03_d0010_train", "meld_st_s01e03_d0010_test"}
    assert not corpus.excluded["reason"].str.contains("where it stays").any()
    note = next(note for note in corpus.notes if note.startswith("DIALOGUES CUT"))
    assert "1 of 12 dialogues" in note and "9 of 45 dev and test clips" in note


def test_a_clip_whose_bytes_are_those_of_a_test_clip_is_the_one_that_goes(root):
    shutil.copy(root / "ENG_DEU/DEU/test/test_2.wav", own(root / CLIP))
    corpus = load(root)
    copies = corpus.excluded[corpus.excluded["reason"].str.startswith("a copy of")]
    assert copies["path"].to_list() == [str(root / CLIP)]


def test_notes_say_that_gender_is_inferred_and_that_speakers_are_in_train_too(whole):
    notes = " ".join(load(whole).notes)
    assert "inferred from the characters, not self-reported" in notes
    assert "48 of 48 dev and test clips are of characters that train has too" in notes


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_order_of_columns_marks_odd_quotes_and_stray_whitespace_do_no_harm(root, whole, mark):
    for file in csvs(root):
        table = [
            {f" {name}": f"  {value} " for name, value in reversed(row.items())}
            for row in tree.read_csv(file)
        ]
        tree.write_csv(file, table)
        text = file.read_text(encoding="utf-8")
        text = text.replace("  joy ", '"joy"')
        text = text.replace("Line 0, of", '""Oh,"" of')
        file.write_text(mark + text.replace("Line 1, of", "“Oh”, 'of'"), encoding="utf-8")
    found, clean = load(root).table, load(whole).table
    columns = ["utterance_id", "gender", "emotion", "speaker", "group", "split"]
    pd.testing.assert_frame_equal(found[columns], clean[columns])
    assert found["transcript"].str.contains('"Oh," of', regex=False).sum() == 36


@pytest.mark.parametrize(("values", "reason", "count"), tree.ROWS.values(), ids=tree.ROWS)
def test_a_damaged_row_is_left_out_and_counted(root, values, reason, count):
    tree.edit(root / CSV, **values)
    assert (
        load(root, drop=["gender"]).excluded["reason"].str.contains(reason, regex=False).sum()
        == count
    )


def test_clips_of_unknown_gender_stay_in_their_split_and_are_counted(root):
    tree.edit(root / CSV, speaker="Nurse")
    tree.edit(root / CSV, index=1, speaker="No  One")
    corpus = load(root)
    unknown = corpus.table[corpus.table["gender"] == ""]
    assert set(unknown["speaker"]) == {"meld_st_Nurse", "meld_st_No One"}
    assert not corpus.excluded["reason"].str.contains("gender").any()
    notes = " ".join(corpus.notes)
    assert "2 clips are of speakers whose gender is unknown there: Nurse" in notes
    assert "4 of 144 utterances of meld_st are of unknown gender" in notes
    assert "count in accuracy, and in no gap by gender" in notes


def test_a_row_that_stands_twice_is_counted_once(root):
    table = tree.read_csv(root / CSV)
    tree.write_csv(root / CSV, [*table, table[0], {**table[1], "id": "50"}])
    shutil.copy(root / "ENG_DEU/DEU/train/train_1.wav", root / "ENG_DEU/DEU/train/train_50.wav")
    reasons = Counter(load(root).excluded["reason"])
    assert reasons["its row is in the file twice"] == 2
    assert reasons["another row has its words, season, episode, dialogue and utterance"] == 2


def test_a_number_that_pandas_wrote_as_float_is_the_same_number(root, whole):
    for file in csvs(root):
        names = ("id", "season", "episode", "dia_id", "utt_id")
        floats = [row | {name: f"{row[name]}.0" for name in names} for row in tree.read_csv(file)]
        tree.write_csv(file, floats)
    assert load(root).table["utterance_id"].equals(load(whole).table["utterance_id"])


@pytest.mark.parametrize(("damage", "reason"), tree.CLIPS.values(), ids=tree.CLIPS)
def test_a_damaged_clip_is_left_out_and_counted_or_refused_by_strict(root, damage, reason):
    damage(own(root / CLIP))
    assert load(root).excluded["reason"].str.startswith(reason).sum() == 1
    with pytest.raises(UserError, match=f"{CLIP} is {reason}"):
        load(root, strict=True)


@pytest.mark.parametrize(("damage", "sentence"), tree.FILES.values(), ids=tree.FILES)
def test_a_damaged_csv_is_refused_in_one_sentence_that_names_it(root, damage, sentence):
    damage(root / CSV)
    with pytest.raises(UserError, match=sentence) as caught:
        load(root)
    assert str(root / CSV) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", ["ENG_JPN", "ENG_JPN/jpn_valid.csv"])
def test_one_pair_alone_is_loaded_with_a_note_when_the_other_is_not_whole(root, lost):
    shutil.rmtree(root / lost) if (root / lost).is_dir() else (root / lost).unlink()
    corpus = load(root)
    assert set(corpus.table["language"]) == {"en", "de"} and len(corpus.table) == 96
    assert "without ENG_JPN and its language ja, of which" in corpus.notes[0]
    assert "jpn_valid.csv" in corpus.notes[0]


@pytest.mark.parametrize("place", ["..", "ENG_DEU", "ENG_DEU/ENG/train", "ENG_JPN/jpn_test.csv"])
def test_a_path_beside_the_corpus_is_told_the_right_one(root, place):
    path = (root / place).resolve()
    with pytest.raises(UserError, match=r"no complete pair .* did you mean meld_st=") as caught:
        meld_st.load(path)
    assert str(caught.value).endswith(f"did you mean meld_st={root}?")


def test_where_there_is_nothing_the_error_names_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"ENG_DEU/deu_valid.csv, .*ENG_JPN/jpn_test.csv"):
        meld_st.load(tmp_path)
    with pytest.raises(UserError, match="there is no .*nowhere; meld_st=PATH wants the folder"):
        meld_st.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="write meld_st=PATH"):
        corpora.load(["meld_st"])


def test_csvs_without_any_audio_leave_nothing_and_say_so(root):
    for pair, (audio, _) in tree.PAIRS.items():
        shutil.rmtree(root / pair / "ENG")
        shutil.rmtree(root / pair / audio)
    with pytest.raises(UserError, match="nothing remains of the corpus 'meld_st': 144 x missing"):
        load(root)


def test_the_table_follows_the_schema(whole):
    tables.check(meld_st.load(whole).table)
