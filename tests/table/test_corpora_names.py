"""`NAME=PATH`: any name for a manifest or a saved dataset, and several of them in one run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from ermgap import corpora
from ermgap.corpora import __main__
from ermgap.errors import UserError
from ermgap.training import model_card
from sweeps import pareto
from sweeps.setup import command_line, folders

HEADER = "path,language,emotion,gender,speaker"


def voices(folder: Path, *, seed: int, speakers: int = 8, rows: int | None = None) -> Path:
    """A folder with a manifest: two clips of each speaker, alternately female and male."""
    folder.mkdir(parents=True)
    lines = [HEADER]
    for i in range(rows or 2 * speakers):
        noise = np.random.default_rng(1000 * seed + i).normal(0, 0.1, 4000)
        soundfile.write(folder / f"{i}.wav", noise, 16000)
        speaker = i // 2
        emotion = "joy" if i % 2 else "anger"
        lines.append(f"{i}.wav,en,{emotion},{'female' if speaker % 2 else 'male'},{speaker}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    return voices(tmp_path / "A", seed=1), voices(tmp_path / "B", seed=2)


def test_two_folders_with_manifests_are_two_corpora_of_one_run(two):
    table = corpora.load([f"manifest={folder}" for folder in two]).table
    assert table["corpus"].value_counts(sort=False).to_dict() == {"A": 16, "B": 16}
    assert table["speaker"].nunique() == 16 and table["utterance_id"].is_unique


def test_any_name_stands_for_a_folder_or_a_file_and_is_the_corpus(two):
    first, second = two
    table = corpora.load([f"ased={first}", f"nEMO-2={second / 'manifest.csv'}", "demo"]).table
    sizes = table["corpus"].value_counts(sort=False).to_dict()
    assert sizes == {"ased": 16, "nEMO-2": 16, "demo": 690}
    assert {"ased_0", "nEMO-2_0"} < set(table["speaker"])
    assert table["utterance_id"][0] == "ased/0"


def test_folders_of_one_name_are_told_apart_by_names_of_ones_own(tmp_path):
    data = [voices(tmp_path / name / "data", seed=i) for i, name in enumerate("xy")]
    with pytest.raises(UserError, match="would both be the corpus 'data'.* such as data2="):
        corpora.load([f"manifest={folder}" for folder in data])
    with pytest.raises(UserError, match="would both be the corpus 'one'"):
        corpora.load([f"one={folder}" for folder in data])
    table = corpora.load([f"manifest={data[0]}", f"data2={data[1]}"]).table
    assert table["speaker"].nunique() == 16


def test_a_saved_dataset_may_have_any_name_too(two, tmp_path, isolated_cache):
    datasets = pytest.importorskip("datasets")
    clip = {"bytes": (two[1] / "0.wav").read_bytes(), "path": "0.wav"}
    made = datasets.Dataset.from_dict(
        {"audio": [clip], "language": ["en"], "emotion": ["joy"], "gender": ["male"]}
    )
    made.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "parts")
    for name in ("saved", "parts"):
        table = corpora.load([f"mine={tmp_path / name}", f"ased={two[0]}"]).table
        assert table["corpus"].value_counts(sort=False).to_dict() == {"mine": 1, "ased": 16}
        assert table["utterance_id"][0].startswith("mine/")


def test_the_name_of_a_loader_keeps_its_meaning(two):
    with pytest.raises(UserError, match="nothing remains of the corpus 'emodb': 16 x its name is"):
        corpora.load([f"emodb={two[0]}"])


MISTAKES = {
    "the same folder": (["a=A", "b=A"], "a=.* and b=.* are the same corpus; name it once"),
    "a folder and its file": (["manifest=A", "b=A/manifest.csv"], "are the same corpus"),
    "by a link": (["a=A", "b=LINK"], "are the same corpus"),
    "a name and a folder's": (["manifest=A", "A=B"], "would both be the corpus 'A'"),
    "a loader's and a folder's": (["demo", "manifest=demo"], "would both be the corpus 'demo'"),
    "a loader twice": (["demo", "demo"], "the corpus 'demo' is named twice"),
    "neither": (["ased=EMPTY"], "no corpus called 'ased', and .*EMPTY holds no manifest.csv and"),
    "almost a loader": (["EmoDBs=EMPTY"], "did you mean 'emodb'"),
    "nothing there": (["ased=GONE"], "no corpus called 'ased', and .*GONE does not exist"),
    "no path": (["ased"], "there is no corpus called 'ased'"),
    "no name": (["A"], "is a path; write NAME=.*A"),
    "a name with a slash": (["a/b=A"], "has a name that cannot go before its ids"),
    "an empty name": (["=A"], "has a name that cannot go before its ids"),
    "two files of a folder": (["a=A", "b=A/more.csv"], "both have the speaker or group '0'; join"),
    "the same, unnamed": (["manifest=A", "manifest=A/more.csv"], "join the two files in one"),
    "a name that begins another": (["A=A", "A_x=B"], "both have the speaker or group 'A_x_1'"),
}


@pytest.mark.parametrize(("names", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_name_that_leads_to_no_corpus_of_its_own_is_one_sentence(
    two, tmp_path, monkeypatch, names, sentence
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(two[0] / "manifest.csv", two[0] / "more.csv")
    voices(tmp_path / "demo", seed=3)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "LINK").symlink_to(two[0])
    if "A_x=B" in names:
        text = (two[0] / "manifest.csv").read_text()
        (two[0] / "manifest.csv").write_text(text.replace("male,1\n", "male,x_1\n"))
    with pytest.raises(UserError, match=sentence) as caught:
        corpora.load(names)
    assert "\n" not in str(caught.value) and str(caught.value)[-1] in ".?"


def test_what_is_wrong_with_one_of_two_manifests_names_its_folder(two):
    (two[1] / "manifest.csv").write_text(f"{HEADER}\ngone.wav,en,joy,male,1\n")
    with pytest.raises(UserError, match=f"nothing remains of the corpus 'manifest={two[1]}'"):
        corpora.load([f"manifest={folder}" for folder in two])


def test_names_of_ones_own_reach_describe_the_dry_run_the_sweep_and_the_card(
    two, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = ["--data", "ased=A", "nemo=B", "--set", "data.cell_support=1"]
    __main__.main(["describe", "ased=A", "nemo=B"])
    assert "32 utterances of 16 speakers" in capsys.readouterr().out
    assert pareto.main(["--preset", "small", *data, "--dry-run", "--trials", "4"]) == 0
    given = command_line.parse(
        command_line.options("", many=True), ["--preset", "small", *data, "--out", "out"]
    )
    made, records = folders.prepare(given, kind="sweep", check=lambda *_: None)
    kept = yaml.safe_load((tmp_path / "out" / "sweep.yaml").read_text())
    names = [f"ased={two[0]}", f"nemo={two[1]}"]
    assert kept["data"] == kept["config"]["data"]["corpora"] == names
    assert pareto.main(["--resume", "out", *data, "--dry-run"]) == 0
    with pytest.raises(UserError, match="other values of data.corpora"):
        pareto.main(["--resume", "out", "--data", "ased=A", *data[3:], "--dry-run"])
    shutil.rmtree(two[0])  # the utterances are in the sweep's folder
    assert pareto.main(["--resume", "out", "--trials", "99", "--dry-run"]) == 0
    told = model_card.CardFacts("t0", made, records.table(), {}, 1, "x/y", {})
    assert told.corpora == ["ased", "nemo"]
    assert str(tmp_path) not in json.dumps(model_card.contents(told))
