"""Attributes of people in corpora: the columns that hold one, its values, their provenance."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ermgap import attributes, corpora
from ermgap.corpora import emodb, jvnv, manifest, ravdess
from ermgap.corpora.predictions import predictions_table
from ermgap.errors import UserError

HEADER = "path,language,emotion,gender,speaker"


def clip(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 8000), 16000)


def write(folder: Path, header: str, *rows: str) -> str:
    """A corpus `NAME=PATH` whose k-th row is `k.wav,en,joy` and what is given."""
    for number, _ in enumerate(rows):
        clip(folder / f"{number}.wav", seed=zlib.crc32(folder.name.encode()) + number)
    lines = [f"{number}.wav,en,joy,{row}" for number, row in enumerate(rows)]
    text = "\n".join([f"path,language,emotion,{header}", *lines]) + "\n"
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return f"{folder.name}={folder}"


def refused(*arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        corpora.load(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text and text[-1] in ".?"
    return text


def test_a_column_called_group_is_an_attribute_whose_values_are_kept_as_given(tmp_path):
    name = write(
        tmp_path / "voices", "gender,group:accent,Group: Age band", "f, North-East ,31",
        "m,N/A,  ", "female,Höhe & Co,unknown",
    )  # fmt: skip
    corpus = corpora.load([name])
    assert attributes.columns(corpus.table) == ("gender", "accent", "Age band")
    assert corpus.table["accent"].to_list() == ["North-East", "", "Höhe & Co"]
    assert corpus.table["Age band"].to_list() == ["31", "", ""]
    assert corpus.excluded.empty and not any("not read" in note for note in corpus.notes)


def test_a_plain_column_is_an_attribute_where_it_is_asked_for(tmp_path):
    name = write(tmp_path / "voices", "gender,Accent", "f,north", "m,south")
    without = corpora.load([name])
    assert "accent" not in without.table
    assert any("columns that are not read: 'Accent'" in note for note in without.notes)
    corpus = corpora.load([name], attributes=["gender", "accent"])
    assert corpus.table["accent"].to_list() == ["north", "south"] and corpus.notes != without.notes


def test_gender_is_required_only_where_it_is_asked_for(tmp_path):
    name = write(tmp_path / "voices", "group:accent", "north", "south")
    assert refused([name]).endswith(
        "lacks the column gender; it has path, language, emotion, accent; without genders, name "
        "what is compared: --set data.attributes=[NAME] and objective.attribute=[NAME]."
    )
    corpus = corpora.load([name], attributes=["accent"])
    assert set(corpus.table["gender"]) == {""}
    assert not any("gender" in note for note in corpus.notes if "speaker" not in note)


def test_gender_may_be_called_a_group_and_keeps_its_spellings(tmp_path):
    given = ["F", "man", "Non-binary", "nonbinary", "diverse", "OTHER", "mixed", "group", "?", "-"]
    table = manifest.load(
        Path(write(tmp_path / "voices", "group:Gender", *given).partition("=")[2])
    ).table
    assert table["gender"].to_list() == [
        "female", "male", "nonbinary", "nonbinary", "diverse", "other", "", "", "", "",
    ]  # fmt: skip
    text = refused([write(tmp_path / "typos", "gender", "f", "femal")])
    assert "row 3: the gender is 'femal'; write female or male, nonbinary, diverse, other," in text


@pytest.mark.parametrize(
    ("header", "asked", "sentence"),
    [
        ("gender,group:accent,accent", ["accent"],
         "has the columns 'group:accent' and 'accent', which are both the attribute accent"),
        ("gender,group:Gender", ["gender"], "which are both the attribute gender"),
        ("gender,group:accent,group:accent", ["gender"], "which are both the attribute accent"),
        ("gender,group:speaker,x", ["gender"], "'group:speaker', but speaker is no attribute"),
        ("gender,group:Language,x", ["gender"], "rename yours, such as to group:Language_type"),
        ("gender,group:logp_joy,x", ["gender"], "logp_joy is no attribute"),
        ("gender,group:,x", ["gender"], "write a name of letters"),
        ("gender,group:a|b,x", ["gender"], "write a name of letters"),
    ],
)  # fmt: skip
def test_a_column_that_cannot_be_an_attribute_is_refused(tmp_path, header, asked, sentence):
    row = ",".join(["f"] * len(header.split(",")))
    name = write(tmp_path / "voices", header, row, row)
    text = refused([name], attributes=asked)
    assert sentence in text and str(tmp_path / "voices" / "manifest.csv") in text


def test_an_attribute_that_no_corpus_has_is_refused_with_those_there_are(tmp_path):
    name = write(tmp_path / "voices", "gender,group:accent", "f,north", "m,south")
    assert refused([name, "demo"], attributes=["gender", "acent"]).endswith(
        "there is no attribute 'acent' in voices, demo, only accent, gender, style; did you mean "
        "'accent'?"
    )
    assert "add a column group:nation to a manifest" in refused([name], attributes=["nation"])
    assert refused([name], attributes=["Gender"]).endswith("did you mean 'gender'?")
    assert "'speaker' is no attribute" in refused([name], attributes=["speaker"])


def test_a_corpus_without_the_attribute_stays_and_a_note_counts_it(tmp_path):
    first = write(tmp_path / "voices", "gender,group:accent", "f,north", "m,", "m,")
    second = write(tmp_path / "others", "gender", "f", "m")
    corpus = corpora.load([first, second], attributes=["gender", "accent"])
    assert corpus.table["accent"].to_list() == ["north", "", "", "", ""]
    notes = [note for note in corpus.notes if "unknown accent" in note or "no accent" in note]
    assert notes == [
        "2 of 3 utterances of voices are of unknown accent: they count in accuracy, and in no gap "
        "by accent",
        "others names no accent: its 2 utterances count in accuracy, and in no gap by accent",
    ]


def test_unknown_utterances_are_excluded_where_that_is_asked_for(tmp_path):
    name = write(
        tmp_path / "voices", "gender,group:accent", "f,north", "m,", "?,south", ",", "m,south"
    )
    whole = corpora.load([name], attributes=["gender", "accent"])
    assert len(whole.table) == 5 and whole.excluded.empty
    for drop, kept, reason in (
        (["accent"], 3, "its accent is unknown"),
        (["gender"], 3, "the speaker's gender is unknown"),
        (["gender", "accent"], 2, "its gender & accent is unknown"),
    ):
        corpus = corpora.load([name], attributes=["gender", "accent"], drop=drop)
        assert len(corpus.table) == kept
        assert corpus.excluded["reason"].to_list() == [reason] * (5 - kept)
        assert set(corpus.excluded["corpus"]) == {"voices"}
    rest = whole.table[(whole.table["gender"] != "") & (whole.table["accent"] != "")]
    pd.testing.assert_frame_equal(corpus.table, rest.reset_index(drop=True))
    other = write(tmp_path / "others", "gender", "f", "m")
    assert "nothing remains of the corpus 'others': 2 x its accent is unknown" in refused(
        [name, other], drop=["accent"]
    )


def test_language_and_corpus_are_attributes_that_every_table_has():
    corpus = corpora.load(["demo"], attributes=["gender", "language", "corpus"])
    assert attributes.sides(corpus.table, ["language"]) == ("de", "en", "ja")
    assert len(attributes.sides(corpus.table, ["language", "gender"])) == 6


def test_a_saved_dataset_has_attributes_too(tmp_path, isolated_cache):
    datasets = pytest.importorskip("datasets")
    for number in range(4):
        clip(tmp_path / "voices" / f"{number}.wav", seed=number)
    made = {
        "audio": [f"{number}.wav" for number in range(4)], "language": ["en"] * 4,
        "emotion": ["joy"] * 4, "gender": ["f", None, "other", "m"],
        "group:accent": [0, 1, -1, 1], "Age": [31, None, 25, 31],
    }  # fmt: skip
    dataset = datasets.Dataset.from_dict(made)
    accents = datasets.ClassLabel(names=["north", "south"])
    dataset.cast_column("group:accent", accents).save_to_disk(tmp_path / "voices")
    name = f"voices={tmp_path / 'voices'}"
    table = corpora.load([name], attributes=["gender", "age"]).table
    assert table["gender"].to_list() == ["female", "", "other", "male"]
    assert table["accent"].to_list() == ["north", "south", "", "south"]
    assert table["age"].to_list() == ["31", "", "25", "31"]
    dataset = dataset.add_column("accent", ["x"] * 4)
    dataset.save_to_disk(tmp_path / "both")
    for number in range(4):
        clip(tmp_path / "both" / f"{number}.wav", seed=number)
    name = f"both={tmp_path / 'both'}"
    text = refused([name], attributes=["gender", "accent"])
    assert "(all) has the columns 'group:accent' and 'accent'" in text


def test_official_metadata_are_attributes(tmp_path):
    for seed, name in enumerate(("e/03a01Fa", "e/09a05Ta", "r/03-01-06-02-01-02-12",
                                 "r/03-01-01-01-01-02-01", "j/F1_anger_free_01",
                                 "j/M1_sad_regular_02")):  # fmt: skip
        clip(tmp_path / f"{name}.wav", seed=seed)
    assert emodb.load(tmp_path / "e").table["age"].to_list() == ["30s", "20s"]
    intensities = ravdess.load(tmp_path / "r").table["intensity"].to_list()
    assert intensities == ["normal", "strong"]
    assert jvnv.load(tmp_path / "j").table["session"].to_list() == ["free", "regular"]
    assert set(emodb.AGES) == set(emodb.GENDERS)
    names = [f"emodb={tmp_path / 'e'}", f"ravdess={tmp_path / 'r'}"]
    corpus = corpora.load(names, attributes=["gender", "age"])
    assert corpus.table["age"].to_list() == ["30s", "20s", "", ""]
    assert corpus.provenance == {"gender": "annotated", "age": "annotated"}


def test_provenance_names_the_corpora_where_they_differ(tmp_path):
    clip(tmp_path / "e" / "03a01Fa.wav", seed=5)
    emo = f"emodb={tmp_path / 'e'}"
    name = write(tmp_path / "voices", "gender,group:accent", "f,north", "m,south")
    silent = write(tmp_path / "silent", "gender", "", "?")
    assert corpora.load([name]).provenance == {}
    assert corpora.load([emo, name]).provenance == {
        "gender": "annotated (emodb), not stated (voices)", "age": "annotated",
    }  # fmt: skip
    assert corpora.load([emo, silent]).provenance["gender"] == "annotated"
    other = emodb.load(tmp_path / "e")
    corpora.CORPORA["stated"] = lambda path: corpora.Corpus(
        other.table.assign(
            utterance_id="s/1", corpus="s", speaker="s1", group="s1", path=str(tmp_path / "s.wav")
        ),
        provenance={"gender": "self-reported"},
    )
    clip(tmp_path / "s.wav", seed=6)
    try:
        joined = corpora.load([emo, f"stated={tmp_path}"]).provenance["gender"]
    finally:
        del corpora.CORPORA["stated"]
    assert joined == "annotated (emodb), self-reported (stated)"


def test_a_plugins_attributes_are_kept_as_text(tmp_path):
    clip(tmp_path / "e" / "03a01Fa.wav", seed=5)
    clip(tmp_path / "e" / "08a01Fa.wav", seed=6)
    corpora.CORPORA["mine"] = lambda path: corpora.Corpus(
        emodb.load(path).table.assign(age=[31, None], region=[" n ", "s"], note="x", problem="y")
    )
    try:
        table = corpora.load([f"mine={tmp_path / 'e'}"]).table
    finally:
        del corpora.CORPORA["mine"]
    assert attributes.columns(table) == ("gender", "age", "region")
    assert table["age"].to_list()[1] == "" and table["region"].to_list() == ["n", "s"]


def test_predictions_carry_every_attribute(tmp_path):
    table = corpora.load(["demo"]).table.head(3)
    made = predictions_table(
        table.assign(fold=0, modality="speech", label="x"),
        modality="speech",
        prediction=["joy"] * 3,
        labels=["joy", "anger"],
        log_probabilities=np.zeros((3, 2)),
    )
    assert list(made) == [
        "utterance_id", "language", "modality", "gender", "speaker", "group", "split", "style",
        "label", "prediction", "logp_joy", "logp_anger",
    ]  # fmt: skip
    assert made["style"].to_list() == table["style"].to_list()
    assert attributes.columns(made) == ("gender", "style")
