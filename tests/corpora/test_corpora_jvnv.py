"""JVNV: its official layout, and transcripts in every plausible form of transcription.csv."""

from __future__ import annotations

from pathlib import Path

import meld_st_tree as tree
import pytest

from ermgap import corpora
from ermgap.corpora import jvnv, split
from ermgap.errors import UserError

TEXT = "うわあ、やめて!"


@pytest.fixture
def root(tmp_path) -> Path:
    """Four speakers, six emotions, both sessions: 48 clips, without transcripts."""
    number = 0
    for speaker in jvnv.SPEAKERS:
        for emotion in jvnv.EMOTIONS:
            for session in ("regular", "free"):
                folder = tmp_path / "jvnv_v1" / speaker / emotion / session
                folder.mkdir(parents=True)
                file = folder / f"{speaker}_{emotion}_{session}_01.wav"
                file.write_bytes(tree.noise(number := number + 1))
    return tmp_path / "jvnv_v1"


def transcribe(root: Path, text: str | bytes) -> list[str]:
    """Write transcription.csv; the transcripts of the four clips anger_free_01."""
    data = text.encode() if isinstance(text, str) else text
    (root / "transcription.csv").write_bytes(data)
    table = jvnv.load(root).table
    return table.loc[table["utterance_id"].str.endswith("anger_free_01"), "transcript"].to_list()


def test_the_official_layout_is_read_from_file_names(root):
    corpus = corpora.load([f"jvnv={root}"])
    row = corpus.table.set_index("utterance_id").loc["jvnv/F2_happy_regular_01"]
    assert row[["language", "gender", "emotion", "speaker", "group", "split"]].to_list() == [
        "ja", "female", "joy", "jvnv_F2", "jvnv_F2", "",
    ]  # fmt: skip
    counts = corpus.table.groupby(["gender", "emotion"]).size()
    assert len(counts) == 12 and (counts == 4).all()
    assert set(split.assign(corpus.table, seed=0)["split"]) == {"train", "dev"}


def test_its_own_words_for_emotions_can_be_the_labels(root):
    labels = ["happy", "sad"]
    assert set(corpora.load([f"jvnv={root}"], labels=labels).table["emotion"]) == set(labels)


@pytest.mark.parametrize(
    "content",
    [
        "anger_free_01|うわあ|{}\nsad_free_01|ああ|いやだ\n",  # the release's own form
        "\ufeffanger_free_01|{}\r\n",
        "F1_anger_free_01|{0}\nF2_anger_free_01|{0}\nM1_anger_free_01|{0}\nM2_anger_free_01|{0}\n",
        "anger_free_01,{}\n",
        "name,text\nanger_free_01.wav,{}\n",
        "name,text,kana\nanger_free_01,{},ウワア\n",
        "name|text|kana\nanger_free_01|{}|ウワア\n",
        'name,nv,text\n"F1/anger/free/anger_free_01.wav","うわあ","{}"\n',
        "anger_free_01\t{}\n\n",
    ],
)
def test_a_transcript_is_found_in_each_plausible_form(root, content):
    assert transcribe(root, content.format(TEXT)) == [TEXT] * 4


def test_a_quotation_mark_in_a_piped_text_is_kept(root):
    assert transcribe(root, 'anger_free_01|x|"え" と\n') == ['"え" と'] * 4


def test_a_speakers_own_transcript_goes_before_the_shared_one(root):
    found = transcribe(root, f"anger_free_01|x|{TEXT}\nM1_anger_free_01|x|違う\n")
    assert sorted(found) == sorted([TEXT] * 3 + ["違う"])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no transcription.csv"),
        (b"", "has no row like anger_free_01|...|text"),
        (b"something else\n1,2,3\n", "has no row like anger_free_01|...|text"),
        (b"anger_free_01\n", "has no row like anger_free_01|...|text"),
        ("anger_free_01|うわあ".encode("utf-16"), "is not a CSV in UTF-8"),
    ],
)
def test_without_readable_transcripts_they_are_empty_and_a_note_says_why(root, content, why):
    if content is not None:
        assert transcribe(root, content) == [""] * 4
    (note,) = corpora.load([f"jvnv={root}"]).notes
    assert "48 of 48 clips of jvnv have no transcript" in note and why in note


def test_a_sentence_that_several_speakers_say_is_noted_and_partial_transcripts_are_counted(root):
    transcribe(root, f"anger_free_01|x|{TEXT}\n")
    missing, shared = jvnv.load(root).notes
    assert "44 of 48 clips" in missing and "does not name them" in missing
    assert "4 of 48 clips of jvnv share their sentence" in shared and "memorise" in shared


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("notes", "its name is not like F1_anger_free_01"),
        ("F1_bored_free_01", "its name is not like F1_anger_free_01"),
        ("F1_anger_loud_01", "its name is not like F1_anger_free_01"),
        ("F3_anger_free_01", "JVNV has no speaker F3"),
    ],
)
def test_a_file_whose_name_says_nothing_is_left_out_with_its_reason(tmp_path, name, reason):
    (tmp_path / f"{name}.wav").write_bytes(tree.noise(1))
    corpus = jvnv.load(tmp_path)
    assert corpus.table.empty and corpus.excluded["reason"].to_list() == [reason]


def test_a_wrong_path_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="write jvnv=PATH"):
        corpora.load(["jvnv"])
    with pytest.raises(UserError, match="holds no audio file; jvnv=PATH wants F1/anger"):
        jvnv.load(tmp_path)
