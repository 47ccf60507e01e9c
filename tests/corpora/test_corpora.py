"""The table of utterances: loading by name, labels, checks, counts, and the real corpora."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ermgap import corpora
from ermgap.config import GENDERS, MELD_LABELS
from ermgap.corpora import emodb, ravdess
from ermgap.corpora import table as tables
from ermgap.errors import UserError


def clip(path: Path, *, seconds: float = 0.5, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16000))
    soundfile.write(path, noise, 16000)
    return path


@pytest.fixture
def berlin(tmp_path):
    """EmoDB's official layout: four speakers, one clip of boredom."""
    for seed, name in enumerate(["03a01Fa", "10b02Wb", "08a01Na", "09a05Ta", "03a02Lc"]):
        clip(tmp_path / "emodb" / "wav" / f"{name}.wav", seed=seed)
    return tmp_path / "emodb"


def test_emodb_reads_its_official_layout_from_file_names(berlin):
    table = corpora.load([f"emodb={berlin}"]).table.set_index("utterance_id")
    row = table.loc["emodb/03a01Fa"]
    assert row[["language", "gender", "emotion", "speaker", "group"]].to_list() == [
        "de", "male", "joy", "emodb_03", "emodb_03",
    ]  # fmt: skip
    assert row["transcript"] == "Der Lappen liegt auf dem Eisschrank."
    assert (row["start_s"], row["end_s"], row["split"]) == (0.0, 0.5, "")
    assert table["emotion"].to_dict() == {
        "emodb/03a01Fa": "joy", "emodb/08a01Na": "neutral",
        "emodb/09a05Ta": "sadness", "emodb/10b02Wb": "anger",
    }  # fmt: skip


def test_ravdess_reads_its_official_layout_and_leaves_songs_out(tmp_path):
    clip(tmp_path / "Actor_12" / "03-01-06-01-02-01-12.wav", seed=1)
    clip(tmp_path / "Actor_01" / "03-01-03-02-01-01-01.wav", seed=2)
    clip(tmp_path / "Actor_01" / "03-02-03-02-01-01-01.wav", seed=3)
    corpus = corpora.load([f"ravdess={tmp_path}"])
    fields = ["utterance_id", "gender", "emotion", "speaker", "transcript"]
    assert corpus.table[fields].to_numpy().tolist() == [
        ["ravdess/03-01-03-02-01-01-01", "male", "joy", "ravdess_01",
         "Kids are talking by the door."],
        ["ravdess/03-01-06-01-02-01-12", "female", "fear", "ravdess_12",
         "Dogs are sitting by the door."],
    ]  # fmt: skip
    assert corpus.excluded["reason"].to_list() == ["not speech audio (03-01)"]


@pytest.mark.parametrize(
    ("loader", "name", "reason"),
    [
        (emodb, "notes", "its name is not like 03a01Fa"),
        (emodb, "01a01Fa", "EmoDB has no speaker 01"),
        (emodb, "03a03Fa", "EmoDB has no sentence a03"),
        (emodb, "03a01Xa", "EmoDB has no emotion letter X"),
        (ravdess, "03-01-06", "its name is not like 03-01-06-01-02-01-12"),
        (ravdess, "03-01-06-01-02-01-25", "RAVDESS has no actor 25"),
        (ravdess, "03-01-09-01-02-01-12", "RAVDESS has no emotion 09 with sentence 02"),
    ],
)
def test_a_file_whose_name_says_nothing_is_left_out_with_its_reason(tmp_path, loader, name, reason):
    clip(tmp_path / f"{name}.wav")
    corpus = loader.load(tmp_path)
    assert corpus.table.empty
    assert corpus.excluded["reason"].to_list() == [reason]


def test_copies_and_repeated_names_are_left_out_and_the_first_stays(berlin):
    shutil.copy(berlin / "wav" / "03a01Fa.wav", berlin / "wav" / "14b01Ta.wav")
    clip(berlin / "extra" / "10b02Wb.wav", seed=9)
    corpus = corpora.load([f"emodb={berlin}"])
    reasons = corpus.excluded.set_index(corpus.excluded["path"].map(lambda p: Path(p).name))
    assert reasons.loc["14b01Ta.wav", "reason"] == "a copy of emodb/03a01Fa"
    assert "another file of the same name" in corpus.excluded["reason"].to_list()
    assert len(corpus.table) == 4


def test_linked_folders_are_read_and_hidden_files_are_not(berlin, tmp_path):
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "link").symlink_to(berlin / "wav")
    clip(tmp_path / "view" / "._03a01Fa.wav")
    assert len(emodb.load(tmp_path / "view").table) == 5


def test_an_emotion_outside_the_labels_is_counted_and_inside_them_is_kept(berlin):
    without = corpora.load([f"emodb={berlin}"])
    assert without.excluded["reason"].to_list() == ["emotion 'boredom' is not one of the labels"]
    kept = corpora.load([f"emodb={berlin}"], labels=["boredom", "joy"])
    assert set(kept.table["emotion"]) == {"boredom", "joy"}
    assert len(kept.table) + len(kept.excluded) == 5


def test_other_words_for_an_emotion_become_the_label_unless_they_are_labels(berlin):
    corpora.CORPORA["worded"] = lambda path: corpora.Corpus(
        emodb.load(path).table.assign(emotion=["happy", "angry", "Joy?", "surprised", "sad"])
    )
    try:
        found = corpora.load([f"worded={berlin}"])
        assert found.table["emotion"].to_list() == ["joy", "anger", "surprise", "sadness"]
        own = corpora.load([f"worded={berlin}"], labels=["happy", "joy", "anger"])
        assert own.table["emotion"].to_list() == ["happy", "anger"]
    finally:
        del corpora.CORPORA["worded"]


def test_a_corpus_is_added_with_one_line_and_gets_the_same_checks(berlin):
    corpora.CORPORA["mine"] = lambda path: "no corpus"
    try:
        with pytest.raises(UserError, match="returned a str; let it return"):
            corpora.load([f"mine={berlin}"])
        corpora.CORPORA["mine"] = emodb.load
        assert set(corpora.load([f"mine={berlin}"]).table["language"]) == {"de"}
    finally:
        del corpora.CORPORA["mine"]


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ([], "no corpus was named"),
        (["emobd=x"], "did you mean 'emodb'"),
        (["emodb"], "write emodb=PATH"),
        (["emodb="], "empty path"),
        (["emodb=nowhere"], "there is no nowhere"),
        (["hf"], "write hf=FOLDER"),
        (["manifest"], "write manifest=PATH"),
        (["emodb=FILE"], "is not a folder"),
        (["emodb=EMPTY"], "holds no audio file"),
        (["emodb=HERE", "emodb=HERE"], "named twice"),
        (["ravdess=HERE"], "nothing remains of the corpus 'ravdess': 5 x its name is not like"),
    ],
)
def test_a_wrong_name_or_path_is_one_sentence(berlin, tmp_path, names, word):
    (tmp_path / "empty").mkdir()
    places = {"FILE": berlin / "wav" / "03a01Fa.wav", "EMPTY": tmp_path / "empty", "HERE": berlin}
    for mark, path in places.items():
        names = [name.replace(mark, str(path)) for name in names]
    with pytest.raises(UserError, match=word) as caught:
        corpora.load(names)
    assert "\n" not in str(caught.value) and str(caught.value)[-1] in ".?"


def test_two_corpora_are_joined_in_the_order_named(berlin, tmp_path):
    clip(tmp_path / "r" / "03-01-06-01-02-01-12.wav", seed=30)
    found = corpora.load([f"ravdess={tmp_path / 'r'}", f"emodb={berlin}"])
    assert found.table["corpus"].unique().tolist() == ["ravdess", "emodb"]
    assert found.table.index.to_list() == list(range(5))


def good() -> pd.DataFrame:
    base = {"corpus": "made", "language": "en", "emotion": "joy", "end_s": 1.0}
    return tables.frame(
        [
            {**base, "utterance_id": f"u{i}", "gender": GENDERS[i % 2], "speaker": f"s{i}",
             "path": f"/u{i}.wav", "split": ("train", "dev")[i // 2]}
            for i in range(4)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        ("utterance_id", "u1", "id that an earlier"),
        ("gender", "Female", "write female or male"),
        ("gender", "unknown", "or '' if it is unknown"),
        ("gender", np.nan, "has the gender nan"),
        ("language", "deu", "ISO 639-1"),
        ("split", "holdout", "train, dev, test"),
        ("speaker", " ", "has no speaker"),
        ("emotion", None, "has no emotion"),
        ("end_s", 0.0, "runs from"),
        ("start_s", -1.0, "runs from"),
        ("start_s", np.nan, "runs from"),
        ("group", "s0", "in the splits dev and train"),
    ],
)
def test_a_table_that_breaks_the_schema_is_refused(column, value, word):
    tables.check(good())
    table = good()
    table[column] = table[column].astype(object)
    table.loc[2, column] = value
    with pytest.raises(UserError, match=word):
        tables.check(table)


def test_a_table_without_a_column_or_without_rows_is_refused():
    with pytest.raises(UserError, match="lacks the columns group"):
        tables.check(good().drop(columns="group"))
    with pytest.raises(UserError, match="empty"):
        tables.check(tables.frame([]))


def test_a_table_comes_back_from_parquet_as_it_was(tmp_path):
    good().to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), good())


def test_counts_add_up_and_show_empty_cells():
    counts = tables.counts(good(), labels=MELD_LABELS)
    assert counts.shape == (2 * 1 * 2, 7)  # splits, languages, genders; labels
    assert counts.to_numpy().sum() == 4
    assert (counts.drop(columns="joy") == 0).all(axis=None)
    assert counts.index.unique("split").tolist() == ["train", "dev"]


def test_the_description_says_counts_synthetic_exclusions_notes_and_warnings():
    table = good().assign(synthetic=True).drop(index=3)
    excluded = tables.excluded_frame([{"corpus": "made", "path": "x", "reason": "missing"}] * 2)
    text = tables.describe(table, excluded=excluded, notes=["cut"])
    lines = text.splitlines()
    assert lines[0].split() == ["split", "language", "gender", "joy", "total", "speakers"]
    assert lines[1].split() == ["train", "en", "female", "1", "1", "1"]
    assert lines[5].split() == ["all", "-", "-", "3", "3", "3"]
    assert "synthetic: 3 utterances of made are not human speech" in text
    assert "excluded from made: 2 (2 x missing)" in text
    assert "note: cut" in text
    assert lines[-1] == "warning: en has no male utterance in dev: no gap is defined there."


def test_the_corpora_package_imports_neither_torch_nor_ray_nor_datasets():
    code = (
        "import sys, ermgap.corpora.manifest, ermgap.corpora.emodb, ermgap.corpora.hf, "
        "ermgap.corpora.ravdess, ermgap.corpora.split; "
        "print(sorted({'torch', 'ray', 'datasets', 'scipy.signal'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "labels", "kept", "female", "excluded"),
    [
        ("emodb", MELD_LABELS, 350, 199, 58),
        ("emodb", [*MELD_LABELS, "boredom"], 408, 231, 0),
        ("ravdess", [*MELD_LABELS, "calm"], 719, 360, 1),
    ],
)
def test_a_real_corpus_has_the_counts_that_its_publisher_states(
    shared_data, name, labels, kept, female, excluded
):
    corpus = corpora.load([f"{name}={shared_data / name}"], labels=labels)
    assert len(corpus.table) == kept
    assert (corpus.table["gender"] == "female").sum() == female
    assert len(corpus.excluded) == excluded


@pytest.mark.parametrize("name", ["emodb", "ravdess"])
def test_a_real_corpus_agrees_with_its_own_manifest_row_by_row(shared_data, name):
    loader = {"emodb": emodb, "ravdess": ravdess}[name]
    ours = loader.load(shared_data / name).table.set_index("path").sort_index()
    theirs = pd.read_csv(shared_data / name / "manifest.csv")
    theirs.index = [str((shared_data / name / path).absolute()) for path in theirs["path"]]
    theirs = theirs.sort_index()
    assert ours.index.to_list() == theirs.index.to_list()
    for column in ("language", "gender", "emotion", "speaker", "transcript"):
        assert ours[column].to_list() == theirs[column].to_list(), column


def test_clips_of_a_format_that_is_not_read_here_are_counted_and_not_passed_over(berlin):
    (berlin / "wav" / "09a01Na.m4a").touch()
    twin = next((berlin / "wav").glob("*.wav"))
    twin.with_suffix(".wma").touch()  # the same clip is there as .wav
    excluded = corpora.load([f"emodb={berlin}"]).excluded
    assert [r for r in excluded["reason"] if "not read here (.m4a); convert it" in r]
    assert not excluded["path"].str.endswith(".wma").any()
