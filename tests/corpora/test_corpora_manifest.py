"""Manifests: what a row may say, and that each mistake is one sentence with file and row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ermgap import corpora
from ermgap.corpora import manifest
from ermgap.errors import UserError

HEADER = "path,language,emotion,gender,speaker"
ROWS = ["a.wav,en,joy,female,01", "sub/b.wav,en,anger,male,02"]


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "voices"
    (root / "sub").mkdir(parents=True)
    for seed, name in enumerate(["a.wav", "sub/b.wav"]):
        noise = np.random.default_rng(seed).normal(0, 0.1, 16000)
        soundfile.write(root / name, noise, 16000)
    return root


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder


def load(folder: Path, *rows: str, header: str = HEADER) -> pd.DataFrame:
    return manifest.load(write(folder, *rows, header=header)).table


def test_a_plain_manifest_becomes_a_table_by_folder_or_by_file(folder):
    table = load(folder, *ROWS)
    assert table["utterance_id"].to_list() == ["voices/a", "voices/sub/b"]
    assert table["path"].to_list() == [str(folder / "a.wav"), str(folder / "sub" / "b.wav")]
    assert table["speaker"].to_list() == table["group"].to_list() == ["voices_01", "voices_02"]
    assert set(table["corpus"]) == {"voices"} and not table["synthetic"].any()
    by_file = manifest.load(folder / "manifest.csv").table
    pd.testing.assert_frame_equal(by_file, table)
    assert len(corpora.load([f"manifest={folder}"]).table) == 2


def test_optional_columns_are_taken_as_written(folder):
    header = f"{HEADER},split_group,transcript,start_s,end_s,synthetic,split,utterance_id,corpus"
    rows = [
        'a.wav,EN,Joy,F,01,d1,"Well, no",0.25,0.75,1,valid,x1,alpha',
        "a.wav,en,anger,m,02,d2,,,,0,test,x2,beta",
    ]
    first, second = load(folder, *rows, header=header).to_dict("records")
    assert (first["language"], first["gender"], first["emotion"]) == ("en", "female", "joy")
    assert (first["speaker"], first["group"]) == ("voices_01", "voices_d1")
    assert (first["transcript"], first["start_s"], first["end_s"]) == ("Well, no", 0.25, 0.75)
    assert (first["synthetic"], first["split"], first["corpus"]) == (True, "dev", "alpha")
    assert first["utterance_id"] == "voices/x1"
    assert second["split"] == "test" and second["start_s"] == 0 and np.isnan(second["end_s"])


def test_spans_of_one_file_are_utterances_of_their_own(folder):
    rows = [f"a.wav,en,joy,female,01,{start},{start + 0.5}" for start in (0.0, 0.5)]
    table = load(folder, *rows, header=f"{HEADER},start_s,end_s")
    assert table["utterance_id"].to_list() == ["voices/a#0.000-0.500", "voices/a#0.500-1.000"]
    assert len(corpora.load([f"manifest={folder}"]).table) == 2


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_byte_order_mark_blank_rows_and_unknown_columns_do_no_harm(folder, mark):
    text = f"{mark}{HEADER},mood\n\n{ROWS[0]},x\n\n{ROWS[1]},y\n"
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    assert len(manifest.load(folder).table) == 2


def test_a_gender_declared_unknown_stays_and_is_left_out_and_counted_where_asked(folder):
    corpus = manifest.load(write(folder, *ROWS, "c.wav,en,joy,unknown,03", "d.wav,en,joy,,04"))
    assert corpus.table["gender"].to_list() == ["female", "male", "", ""]
    assert corpus.excluded.empty
    dropped = corpora.load([f"manifest={folder}"], drop=["gender"])
    assert len(dropped.table) == 2
    assert dropped.excluded["reason"].to_list() == ["the speaker's gender is unknown"] * 2


def test_without_speakers_every_clip_is_its_own_group_and_a_note_says_the_risk(folder):
    rows = [row.rsplit(",", 1)[0] for row in ROWS]
    corpus = manifest.load(write(folder, *rows, header=HEADER.rsplit(",", 1)[0]))
    assert corpus.table["group"].to_list() == corpus.table["utterance_id"].to_list()
    assert "names no speakers" in corpus.notes[0]
    assert manifest.load(write(folder, *ROWS)).notes == ()


def test_a_clip_that_is_missing_is_left_out_and_all_missing_is_an_error(folder):
    corpus = corpora.load([f"manifest={write(folder, *ROWS, 'no.wav,en,joy,male,02')}"])
    assert corpus.excluded[["corpus", "reason"]].to_numpy().tolist() == [["voices", "missing"]]
    write(folder, "no.wav,en,joy,male,02")
    with pytest.raises(UserError, match="nothing remains of the corpus 'manifest': 1 x missing"):
        corpora.load([f"manifest={folder}"])


BAD_ROWS = {
    "x.wav,en,joy,femal,01": "row 3: the gender is 'femal'",
    "x.wav,deu,joy,male,01": "row 3: the language is 'deu'",
    "x.wav,en,,male,01": "row 3: the emotion is empty",
    ",en,joy,male,01": "row 3: the path '' names no file",
    "/etc/x.wav,en,joy,male,01": "row 3: the path '/etc/x.wav' leads out",
    "../x.wav,en,joy,male,01": "row 3: the path '../x.wav' leads out",
    "sub/../../x.wav,en,joy,male,01": "leads out of the corpus",
    r"sub\..\..\x.wav,en,joy,male,01": "leads out of the corpus",
    r"C:\x.wav,en,joy,male,01": "leads out of the corpus",
    "~/x.wav,en,joy,male,01": "leads out of the corpus",
    "x.wav,en,joy,male,01,more": "row 3: it has 6 fields where the header has 5",
    "x.wav,en,joy": "row 3: it has 3 fields where the header has 5",
    "a.wav,en,joy,female,01": "row 3: the utterance 'voices/a' is already in row 2",
    '"x.wav,en,joy,male,01': "is not a valid CSV",
}


@pytest.mark.parametrize(("row", "sentence"), BAD_ROWS.items())
def test_a_bad_row_is_one_sentence_with_file_and_row(folder, row, sentence):
    with pytest.raises(UserError) as caught:
        load(folder, ROWS[0], row)
    text = str(caught.value)
    assert str(folder / "manifest.csv") in text and sentence in text
    assert "\n" not in text and text.endswith(".")


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("start_s", "soon", "start_s is 'soon'"),
        ("end_s", "nine", "end_s is 'nine'"),
        ("start_s", "-1", "start_s is '-1'"),
        ("end_s", "inf", "end_s is 'inf'"),
        ("duration_s", "1,5", "duration_s is '1,5'"),
        ("end_s", "0", "start_s 0 is not before end_s 0"),
        ("synthetic", "maybe", "synthetic is 'maybe'"),
        ("split", "holdout", "split is 'holdout'"),
    ],
)
def test_a_bad_value_of_an_optional_column_names_column_and_row(folder, column, value, sentence):
    with pytest.raises(UserError, match=f"row 2: {sentence}"):
        load(folder, f'{ROWS[0]},"{value}"', header=f"{HEADER},{column}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (HEADER.encode(), "has a header and no rows"),
        (b"path,language,emotion\na.wav,en,joy\n", "lacks the column gender; it has path, lang"),
        (b"path;language;emotion;gender\n", "has a header and no rows"),
        (b"path,path,language,emotion,gender\n", "has the column 'path' twice"),
        ("path,gender\nä,ö\n".encode("utf-16"), "is not UTF-8"),
        ("path,gender\nä.wav,male\n".encode("latin-1"), "is not UTF-8"),
        (bytes(range(256)), "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_in_a_sentence(folder, content, sentence):
    (folder / "manifest.csv").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        corpora.load([f"manifest={folder}"])
    assert str(folder / "manifest.csv") in str(caught.value)


def test_a_folder_without_a_manifest_is_refused(folder):
    with pytest.raises(UserError, match="holds no manifest.csv"):
        manifest.load(folder)


@pytest.mark.parametrize(("name", "kept"), [("emodb", 408), ("ja_hts_synthetic", 320)])
def test_the_manifests_of_real_corpora_are_read_whole(shared_data, name, kept):
    table = manifest.load(shared_data / name).table
    assert len(table) == kept
    assert table["synthetic"].all() == (name == "ja_hts_synthetic")
    if name == "emodb":
        assert set(table["speaker"]) >= {"emodb_03", "emodb_08"}
