"""CSVs and columns as other programs and people write them: read, counted, or one sentence."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ermgap import corpora
from ermgap.corpora import columns, manifest, meld_st_rows, own_audio
from ermgap.errors import UserError

HEADER = ["path", "language", "emotion", "gender", "speaker", "start_s", "duration_s", "synthetic"]
ROWS = [
    ["a.wav", "en", "joy", "female", "01", "0.25", "1.0", "0"],
    ["b.wav", "en", "anger", "male", "02", "0.5", "1.0", "0"],
]


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "voices"
    root.mkdir()
    for seed, name in enumerate(["a.wav", "b.wav"]):
        noise = np.random.default_rng(seed).normal(0, 0.1, 16000)
        soundfile.write(root / name, noise, 16000)
    return root


def write(folder: Path, rows: list[list[str]], **how) -> Path:
    text = io.StringIO()
    csv.writer(text, **how).writerows(rows)
    (folder / "manifest.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        manifest.load(folder)
    text = str(caught.value)
    assert str(folder / "manifest.csv") in text and "\n" not in text and text.endswith(".")
    return text


# Separators, decimal commas, blank rows -----------------------------------------------------------


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte order mark"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL], ids=["quoted", "plain"])
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_semicolons_tabs_and_bars_are_read_with_decimal_commas(folder, separator, quoting, mark):
    rows = [[cell.replace("0.", "0,").replace("1.0", "1,0") for cell in row] for row in ROWS]
    rows[0][-1] = "1,0"  # synthetic, as a program wrote it that holds it as a number
    write(folder, [HEADER, *rows], delimiter=separator, quoting=quoting)
    file = folder / "manifest.csv"
    file.write_text(mark + file.read_text(encoding="utf-8"), encoding="utf-8")
    corpus = manifest.load(folder)
    assert corpus.table["start_s"].to_list() == [0.25, 0.5]
    assert corpus.table["synthetic"].to_list() == [True, False]
    name = {";": "semicolons", "\t": "tabs", "|": "bars"}[separator]
    assert [f"separated by {name}" in note for note in corpus.notes] == [True]


def test_a_first_line_that_tells_a_spreadsheet_the_separator_is_no_header(folder):
    write(folder, [HEADER, *ROWS], delimiter=";")
    file = folder / "manifest.csv"
    file.write_text("sep=;\r\n" + file.read_text(), encoding="utf-8")
    assert len(manifest.load(folder).table) == 2
    file.write_text(file.read_text().replace("female", "lady"), encoding="utf-8")
    assert "row 3: the gender is 'lady'" in refused(folder)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(folder, ending):
    assert len(manifest.load(write(folder, [HEADER, *ROWS], lineterminator=ending)).table) == 2


def test_a_transcript_may_hold_every_separator(folder):
    rows = [[*row, "One; two,\tthree | four"] for row in ROWS]
    for separator in ",;\t|":
        write(folder, [[*HEADER, "transcript"], *rows], delimiter=separator)
        assert set(manifest.load(folder).table["transcript"]) == {"One; two,\tthree | four"}


def test_a_decimal_comma_between_commas_is_refused_by_name(folder):
    write(folder, [HEADER, ["a.wav", "en", "joy", "female", "01", "1,25", "1", "0"]])
    assert "row 2: start_s is '1,25'; write seconds as a number, such as 1.25" in refused(folder)
    write(folder, [HEADER, ["a.wav", "en", "joy", "female", "1", "1.000,5", "", ""]], delimiter=";")
    assert "row 2: start_s is '1.000,5'" in refused(folder)


def test_blank_rows_and_cells_of_a_spreadsheet_are_skipped_and_counted(folder):
    nameless = [[*row, ""] for row in (HEADER, *ROWS)]
    blank = ["", " ", *[""] * 7]
    write(folder, [blank, nameless[0], nameless[1], blank, nameless[2], [*blank, ""], blank[:3]])
    corpus = manifest.load(folder)
    assert len(corpus.table) == 2
    assert corpus.notes == ("4 rows of voices's manifest.csv are blank and were skipped",)
    write(folder, [HEADER, [*ROWS[0], "", ""], [*ROWS[1], "", "more"]])
    assert "row 3: it has 10 fields where the header has 8" in refused(folder)
    write(folder, [HEADER, *ROWS, ["", "en", "joy", "male", "03", "", "", ""]])
    assert "row 4: the path '' names no file" in refused(folder)


def test_broken_quotes_are_named_with_their_line_under_every_separator(folder):
    for separator in ",;\t|":
        text = separator.join(HEADER) + "\n" + separator.join(['"a.wav', *ROWS[0][1:]]) + "\n"
        (folder / "manifest.csv").write_text(text)
        assert "is not a valid CSV (line 2: " in refused(folder)


def test_genders_are_read_from_a_spreadsheets_csv_too(tmp_path):
    file = tmp_path / "genders.csv"
    file.write_text("Gender;SPEAKER \nfemale;Rachel\n;\nmale;Ross\n")
    assert meld_st_rows.read_genders(file) == {"rachel": "female", "ross": "male"}


def test_a_list_of_transcripts_is_read_as_a_manifest_is(folder):
    file = folder / "said.csv"
    file.write_text("Transcript;Path\nOne, two;A.wav\n;\nThree;.\\b.wav\n", encoding="utf-8")
    found = own_audio._read_transcripts(file)
    names = {Path(os.fsdecode(path)).name: text for path, text in found.items()}
    assert names == {"a.wav": "One, two", "b.wav": "Three"}
    file.write_text("path,text\na.wav,x\n")
    with pytest.raises(UserError, match="rename 'text' to transcript"):
        own_audio._read_transcripts(file)


# Names of columns ---------------------------------------------------------------------------------


def test_letter_case_blanks_and_byte_order_marks_do_not_count_in_the_names_of_columns(folder):
    header = ["\ufeffPath", " LANGUAGE", "Emotion ", "\u00a0Gender", "Speaker", "Start_S", "END_S"]
    header += ["Split", "Split_Group", "Transcript", "Utterance_ID", "Corpus", "SYNTHETIC"]
    row = ["a.wav", "en", "joy", "male", "7", "0.25", "0.75"]
    row += ["test", "d1", "Oh!", "u1", "mine", "1"]
    corpus = manifest.load(write(folder, [header, row]))
    (found,) = corpus.table.drop(columns="path").to_dict("records")
    assert found == {
        "utterance_id": "voices/u1", "corpus": "mine", "language": "en", "gender": "male",
        "emotion": "joy", "speaker": "voices_7", "group": "voices_d1", "split": "test",
        "start_s": 0.25, "end_s": 0.75, "transcript": "Oh!", "synthetic": True,
    }  # fmt: skip
    assert corpus.notes == ()


def test_two_columns_of_one_name_are_refused_with_both(folder):
    write(folder, [[*HEADER, "Speaker "], [*ROWS[0], "9"]])
    assert "has the columns 'speaker' and 'Speaker ', which are both read as speaker" in refused(
        folder
    )


def test_columns_that_are_not_read_are_listed_and_look_alikes_first(folder):
    header = ["mood", *HEADER[:4], "spk", "Partition", "begin", "offset", "text", "file", "Label"]
    rows = [["x", *row[:4], *["1"] * 7] for row in ROWS]
    note, _ = manifest.load(write(folder, [header, *rows])).notes
    assert note == (
        "voices's manifest.csv has columns that are not read: 'spk' (rename it if it is speaker), "
        "'Partition' (rename it if it is split), 'begin' (rename it if it is start_s), "
        "'offset' (rename it if it is start_s or end_s), 'text' (rename it if it is transcript), "
        "'mood', 'file', 'Label'"
    )
    many = [f"c{i}" for i in range(100)]
    write(folder, [[*HEADER, *many], [*ROWS[0], *many]])
    assert manifest.load(folder).notes[0].endswith("'c19' and 80 more")


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("split-group", "split_group"), ("Speaker ID", "speaker"), ("actor", "speaker"),
        ("client_id", "speaker"), ("Set", "split"), ("fold", "split"), ("onset", "start_s"),
        ("Start Time", "start_s"), ("end", "end_s"), ("Sex", "gender"), ("speakr", "speaker"),
        ("Transcription", "transcript"), ("file_name", "path"), ("filename", "path"),
        ("lang", "language"), ("utt_id", "utterance_id"), ("note", ""), ("emotion_meld7", ""),
        ("license", ""), ("commit", ""), ("", ""), ("x" * 10_000, ""),
    ],
)  # fmt: skip
def test_a_column_is_known_by_the_names_that_people_give_it(name, column):
    assert columns.likely_column(name) == column


def test_a_required_column_under_another_name_is_told_its_name(folder):
    write(folder, [["File", "language", "emotion", "Sex"], ["a.wav", "en", "joy", "f"]])
    assert refused(folder).endswith(
        "lacks the column path, gender; it has File, language, emotion, Sex; "
        "rename 'File' to path and rename 'Sex' to gender."
    )


def test_official_splits_under_a_capital_letter_stay_what_they_are(folder):
    splits = ["Train", "TEST"]
    rows = [[*row, split] for row, split in zip(ROWS, splits, strict=True)]
    corpus = corpora.load([f"manifest={write(folder, [[*HEADER, 'Split'], *rows])}"])
    assert corpus.table["split"].to_list() == ["train", "test"]


# Speakers of some rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("absent", ["", " ", "NA", "nan", "None", "unknown", "#N/A", "?"])
def test_rows_that_name_no_speaker_are_counted_in_the_note(folder, absent):
    rows = [ROWS[0], [*ROWS[1][:4], absent, *ROWS[1][5:]], [*ROWS[1][:4], absent, "0.75", "", ""]]
    corpus = manifest.load(write(folder, [HEADER, *rows]))
    first, *others = corpus.table["speaker"]
    assert first == "voices_01" and others == corpus.table["utterance_id"].to_list()[1:]
    assert corpus.notes == (
        "2 of 3 utterances of voices name no speaker: each of them counts as a speaker of its own, "
        "so one voice may be in both train and dev, and look easy",
    )


def test_a_row_with_a_group_needs_no_speaker(folder):
    header = [*HEADER[:5], "group"]
    rows = [["a.wav", "en", "joy", "female", "", "d1"], ["b.wav", "en", "joy", "?", "", ""]]
    corpus = manifest.load(write(folder, [header, *rows]))
    assert corpus.table["speaker"].to_list() == ["voices_d1", "voices/b"]
    assert corpus.notes[0].startswith("1 of 2 utterances of voices name no speaker")
