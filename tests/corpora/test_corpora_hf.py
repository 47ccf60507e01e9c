"""`datasets` datasets on disk: the same columns, class labels by name, bytes written once."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import RATE, mp3, voice

from ermgap import corpora
from ermgap.corpora import __main__, hf
from ermgap.errors import UserError
from sweeps import pareto
from sweeps.setup import command_line, folders

datasets = pytest.importorskip("datasets")


def sound(seed: int, *, format: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).normal(0, 0.1, 8000)
    soundfile.write(buffer, noise, 16000, format=format)
    return buffer.getvalue()


def make(n: int = 4, *, offset: int = 0, **more):
    columns = {
        "audio": [{"bytes": sound(offset + i), "path": f"{i}.wav"} for i in range(n)],
        "language": ["en"] * n,
        "emotion": [i % 2 for i in range(n)],
        "gender": ["female", "male"] * (n // 2),
        "speaker": [i // 2 for i in range(n)],
        **more,
    }
    dataset = datasets.Dataset.from_dict(columns)
    dataset = dataset.cast_column("emotion", datasets.ClassLabel(names=["joy", "anger"]))
    return dataset.cast_column("audio", datasets.Audio(decode=True))


@pytest.fixture
def saved(tmp_path, isolated_cache) -> Path:
    make().save_to_disk(tmp_path / "voices")
    return tmp_path / "voices"


def test_a_saved_dataset_becomes_a_table_whose_clips_hold_its_bytes(saved):
    table = corpora.load([f"hf={saved}"]).table
    assert table["emotion"].to_list() == ["joy", "anger", "joy", "anger"]
    assert table["speaker"].to_list() == ["voices_0", "voices_0", "voices_1", "voices_1"]
    assert table["utterance_id"].to_list()[0] == "voices/all/000000"
    assert [Path(path).read_bytes() for path in table["path"]] == [sound(i) for i in range(4)]


def test_bytes_are_written_once_and_a_broken_copy_is_written_again(saved, isolated_cache):
    paths = [Path(path) for path in hf.load(saved).table["path"]]
    assert all(path.is_relative_to(isolated_cache / "hf") for path in paths)
    before = [path.stat().st_mtime_ns for path in paths]
    paths[0].write_bytes(b"cut")
    assert [Path(path) for path in hf.load(saved).table["path"]] == paths
    assert [path.stat().st_mtime_ns for path in paths[1:]] == before[1:]
    assert paths[0].read_bytes() == sound(0)


def test_columns_are_known_whatever_their_letter_case_and_the_others_are_listed(
    tmp_path, isolated_cache
):
    dataset = make(
        Split=["train", "dev"] * 2, Start_S=[0.1] * 4, partition=["x"] * 4, path=["p"] * 4
    )
    dataset = dataset.rename_columns(
        {"audio": "Audio", "speaker": " Speaker", "emotion": "EMOTION"}
    )
    dataset.save_to_disk(tmp_path / "voices")
    corpus = hf.load(tmp_path / "voices")
    assert corpus.table["split"].to_list() == ["train", "dev"] * 2
    assert corpus.table["speaker"].to_list() == ["voices_0", "voices_0", "voices_1", "voices_1"]
    assert corpus.table["emotion"].to_list() == ["joy", "anger"] * 2
    assert set(corpus.table["start_s"]) == {0.1}
    assert corpus.notes == (
        "the dataset voices has columns that are not read: 'partition', 'path'",
    )
    dataset.rename_columns({"Split": "SET"}).save_to_disk(tmp_path / "open")
    (note,) = hf.load(tmp_path / "open").notes
    assert "'SET' (rename it if it is split), 'partition' (rename it if it is split)" in note
    dataset.add_column("speaker", ["1"] * 4).save_to_disk(tmp_path / "two")
    with pytest.raises(UserError, match=r"\(all\) has the columns ' Speaker' and 'speaker'"):
        hf.load(tmp_path / "two")


def test_rows_without_a_speaker_are_counted(tmp_path, isolated_cache):
    make(speaker=["a", None, "nan", "a"]).save_to_disk(tmp_path / "voices")
    (note,) = hf.load(tmp_path / "voices").notes
    assert note.startswith("2 of 4 utterances of voices name no speaker: each of them counts as")


def test_a_relative_file_is_one_of_the_datasets_folder_in_any_spelling(
    tmp_path, isolated_cache, monkeypatch
):
    made = {"audio": [r"Clips\X.wav"], "language": ["en"], "emotion": ["joy"], "gender": ["male"]}
    datasets.Dataset.from_dict(made).save_to_disk(tmp_path / "plain")
    (tmp_path / "plain" / "clips").mkdir()
    (tmp_path / "plain" / "clips" / "x.wav").write_bytes(sound(0))
    monkeypatch.chdir(tmp_path)
    corpus = hf.load(Path("plain"))
    assert corpus.table["path"].to_list() == [str(tmp_path / "plain" / "clips" / "x.wav")]
    assert "spelt unlike their files" in corpus.notes[0]


def test_a_file_that_lies_on_this_disk_is_used_where_it_is(tmp_path, isolated_cache):
    (tmp_path / "x.flac").write_bytes(sound(0, format="FLAC"))
    dataset = datasets.Dataset.from_dict(
        {"audio": [str(tmp_path / "x.flac")], "language": ["en"], "emotion": ["joy"],
         "gender": ["male"]}
    )  # fmt: skip
    dataset.save_to_disk(tmp_path / "plain")
    with pytest.raises(UserError, match=r"row 0: .*x.flac' lies outside .*data\.outside=true"):
        hf.load(tmp_path / "plain")
    table = hf.load(tmp_path / "plain", outside=True).table
    assert table["path"].to_list() == [str(tmp_path / "x.flac")]
    shutil.move(tmp_path / "x.flac", tmp_path / "plain" / "x.flac")
    (tmp_path / "x.flac").symlink_to(tmp_path / "plain" / "x.flac")
    assert len(hf.load(tmp_path / "plain").table) == 1
    assert not (isolated_cache / "hf").exists()


@pytest.mark.parametrize(
    ("keys", "splits"),
    [
        (("train", "validation", "test"), ["train", "dev", "test"]),
        (("train", "test"), ["", "test"]),
        (("train",), [""]),
        (("test",), [""]),
        (("fold1", "fold2"), ["", ""]),
    ],
)
def test_the_parts_of_a_dataset_become_splits_when_they_make_a_dev(
    tmp_path, isolated_cache, keys, splits
):
    parts = {key: make(2, offset=9 * i) for i, key in enumerate(keys)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    table = hf.load(tmp_path / "d").table
    assert table["split"].to_list() == [split for split in splits for _ in range(2)]


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        (("train", "test"), "by speaker: train (2 utterances); no part is called validation"),
        (("test",), "by speaker: test (2 utterances); no part is called validation"),
        (("train", "eval"), "by speaker: train (2 utterances), eval (2 utterances); no part"),
        (("train", "validation", "more"), "more (2 utterances); only train, validation and test"),
        (("train", "validation", "test"), None),
        (("train",), None),
    ],
)
def test_parts_that_are_left_open_are_noted(tmp_path, isolated_cache, keys, note):
    parts = {key: make(2, offset=9 * i) for i, key in enumerate(keys)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    notes = hf.load(tmp_path / "d").notes
    assert len(notes) == (note is not None) and (note or "") in "".join(notes)


def test_speakers_of_train_who_are_also_in_test_are_counted_wherever_it_is_read(
    tmp_path, isolated_cache, capsys
):
    speakers = [i // 2 for i in range(24)]
    gender = [("female", "male")[i // 2 % 2] for i in range(24)]
    parts = {"train": make(24, speaker=speakers, gender=gender)}
    parts["test"] = make(2, offset=50, speaker=[3, 4], gender=["male", "female"])
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    said = r"2 speakers \('d_3', 'd_4'\) are in test and also .*: 4 of these were moved to test"
    __main__.main(["describe", f"hf={tmp_path / 'd'}"])
    text = capsys.readouterr().out
    assert re.search(said, text) and "warning" not in text  # train and dev are yet to be drawn
    words = ["--preset", "small", "--data", f"hf={tmp_path / 'd'}", "--out", str(tmp_path / "out")]
    pareto.main([*words, "--dry-run"])
    assert re.search(said, capsys.readouterr().out)
    words += ["--set", "data.cell_support=1"]
    given = command_line.parse(command_line.options("", many=True), words)
    assert folders.prepare(given, kind="sweep", check=lambda *_: None)  # of the real run
    assert re.search(said, capsys.readouterr().out)


def test_a_missing_column_and_a_bad_value_are_one_sentence(tmp_path, isolated_cache):
    make().remove_columns("gender").save_to_disk(tmp_path / "a")
    with pytest.raises(UserError, match=r"\(all\) lacks the column gender; it has audio"):
        hf.load(tmp_path / "a")
    make(split=["train", "dev", "later", "test"]).save_to_disk(tmp_path / "b")
    with pytest.raises(UserError, match="row 2: split is 'later'"):
        hf.load(tmp_path / "b")


def test_what_is_neither_a_saved_dataset_nor_on_the_hub_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="not a dataset saved with save_to_disk"):
        hf.load(tmp_path)
    with pytest.raises(UserError, match=r"loaded from the hub .* save_to_disk\(FOLDER\)"):
        hf.load(Path("nobody/nothing-of-this-name"))
    for path in ("nowhere", "../nowhere/at/all"):
        with pytest.raises(UserError, match="wants a saved dataset, or OWNER/NAME"):
            hf.load(Path(path))


def test_mp3_bytes_without_an_index_are_read_whole_and_what_is_no_sound_is_left_out(
    tmp_path, isolated_cache
):
    silent = np.zeros(3 * RATE)
    parts = ([voice(3), silent, silent, voice(2)], [silent, voice(8)])
    files = [mp3(tmp_path / "clip.mp3", *each, indexed=False).read_bytes() for each in parts]
    audio = [{"bytes": content, "path": None} for content in (*files, b"no sound", b"")]
    make(4, audio=audio).save_to_disk(tmp_path / "voices")
    corpus = corpora.load([f"hf={tmp_path / 'voices'}"])
    assert corpus.table["end_s"].to_list() == pytest.approx([11, 11], abs=0.1)
    assert corpus.excluded["reason"].to_list() == ["unreadable", "empty"]
