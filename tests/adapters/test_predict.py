"""A person's own audio gets the probabilities that the sweep itself recorded for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny_run
from scipy.signal import resample_poly
from tiny_run import LABELS, WINDOW_S, Trained, job

from ermgap import predict
from ermgap.errors import UserError
from ermgap.model import prompts
from ermgap.model.backbones import random_tiny
from ermgap.model.batches import IndexedUtterances, cells_of
from ermgap.model.features import store as features
from ermgap.records import Storage
from ermgap.training.context import TrainingContext

BOTH = ["speech", "speech+text"]
COLUMNS = [f"p_{label}" for label in LABELS]
SETTINGS = {
    "backbone.name": "random-tiny",
    "backbone.window_s": WINDOW_S,
    "backbone.dtype": "float32",
    "data.modalities": BOTH,
    "train.epochs": 2,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    tones = tiny_run.tones(tmp_path_factory.mktemp("tones"), train=2, dev=1)
    return tones.assign(transcript=[f"clip, number {i}" for i in range(len(tones))])


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    """An adapter of both modalities in a folder with its card, and its predictions on dev."""
    speech, place = tiny_run.speech("float32"), tmp_path_factory.mktemp("run")
    told = {"revision": "tests", "window_s": WINDOW_S, "dtype": "float32", "device": "cpu"}
    store = features.ensure(table, speech.model, speech.extractor, cache=place, **told)
    cells = cells_of(table, BOTH)
    given = {"store": store, "prompt": speech.prompt, "labels": LABELS, "cells": cells}
    splits = [
        IndexedUtterances(table[table["split"] == split], **given) for split in ("train", "dev")
    ]
    one = job(SETTINGS)
    run = Trained((speech, TrainingContext(*splits, cells, Storage(place))), one, place)
    return tiny_run.with_card(run, one, table, place), run.predictions


@pytest.fixture(scope="module")
def folder(trained):
    return trained[0]


@pytest.fixture
def clips(table, tmp_path):
    """A clip of dev, and the same one in other clothes."""
    path = table["path"][table["split"] == "dev"].iloc[0]
    samples, rate = soundfile.read(path)
    wide = resample_poly(samples, 441, 160)
    soundfile.write(tmp_path / "wide.wav", np.stack([1.2 * wide, 0.8 * wide], 1), 44100, "FLOAT")
    soundfile.write(tmp_path / "same.flac", samples, rate)
    soundfile.write(tmp_path / "lossy.ogg", samples, rate)
    return Path(path), tmp_path


def other(folder: Path, new: Path, change) -> Path:
    """A copy of the adapter whose ermgap.json `change` was applied to."""
    new.mkdir()
    for file in folder.iterdir():
        (new / file.name).write_bytes(file.read_bytes())
    values = json.loads((new / "ermgap.json").read_text())
    change(values)
    (new / "ermgap.json").write_text(json.dumps(values))
    return new


def stored(trained, table, modality: str) -> pd.DataFrame:
    logp = trained[1][trained[1]["modality"] == modality].set_index("utterance_id")
    dev = table[table["split"] == "dev"]
    found = np.exp(logp.loc[dev["utterance_id"], [f"logp_{label}" for label in LABELS]])
    return found.set_axis(COLUMNS, axis=1).set_axis(dev["path"])


# Probabilities ------------------------------------------------------------------------------------


def test_probabilities_are_those_that_the_run_recorded(trained, table, tmp_path):
    paths = list(table["path"][table["split"] == "dev"])[::-1]
    made = predict.predict(trained[0], paths, batch=5)
    assert list(made["file"]) == paths and (made["problem"] == "").all()
    wanted = stored(trained, table, "speech").loc[paths]
    np.testing.assert_allclose(made[COLUMNS], wanted, atol=1e-5)
    assert list(made["prediction"]) == [LABELS[i] for i in wanted.to_numpy().argmax(1)]
    assert len(set(made[COLUMNS[0]].round(4))) > 6, "the answers do not depend on the audio"


def test_with_transcripts_they_are_those_of_speech_and_text(trained, table, tmp_path):
    dev = table[table["split"] == "dev"]
    listed = tmp_path / "said.csv"
    dev[["path", "transcript"]][:-2].to_csv(listed, index=False)
    made = predict.predict(trained[0], list(dev["path"]), transcripts=listed)
    assert list(made["modality"]) == ["speech+text"] * (len(dev) - 2) + ["speech"] * 2
    heard, read = stored(trained, table, "speech"), stored(trained, table, "speech+text")
    np.testing.assert_allclose(made[COLUMNS][:-2], read[:-2], atol=1e-5)
    np.testing.assert_allclose(made[COLUMNS][-2:], heard[-2:], atol=1e-5)
    assert np.abs(read - heard).to_numpy().max() > 1e-3, "the text is not read"


def test_the_text_of_the_prompt_is_the_adapter_s_own(folder, clips, tmp_path, monkeypatch):
    before = predict.predict(folder, [clips[0]])
    monkeypatch.setitem(prompts.PROMPTS, "short", {"speech": {"": "Other {audio}"}})
    pd.testing.assert_frame_equal(predict.predict(folder, [clips[0]]), before)

    def german(values):
        values["prompt"]["texts"]["speech"] = {"de": "Gefühl? {audio}"}

    german = other(folder, tmp_path / "german", german)
    with pytest.raises(UserError, match="give --language with one of de"):
        predict.predict(german, [clips[0]])
    assert predict.predict(german, [clips[0]], language="de")["problem"][0] == ""


# Files --------------------------------------------------------------------------------------------


def test_any_format_and_rate_gives_nearly_the_same_answer(folder, clips):
    path, place = clips
    made = predict.predict(folder, [path, place])
    assert [Path(name).name for name in made["file"][1:]] == ["lossy.ogg", "same.flac", "wide.wav"]
    assert (made["problem"] == "").all()
    values = made[COLUMNS].to_numpy()
    np.testing.assert_allclose(values.sum(1), 1)
    np.testing.assert_allclose(values[2], values[0], atol=1e-5)
    np.testing.assert_allclose(values[3], values[0], atol=0.02)  # resampled there and back


def test_files_that_cannot_be_used_are_named_and_the_others_done(folder, clips, tmp_path, capsys):
    path, place = clips
    (place / "broken.wav").write_bytes(b"RIFF nothing")
    (place / "empty.wav").write_bytes(b"")
    (place / "none").mkdir()
    noise = 0.1 * np.random.default_rng(0).normal(size=16000 * 31)
    soundfile.write(place / "long.wav", noise, 16000)
    soundfile.write(place / "cut.wav", noise[: 16000 * 5], 16000)
    names = ["broken.wav", "empty.wav", "gone.wav", "none", "long.wav", "cut.wav"]
    files = [str(path), *(str(place / name) for name in names)]
    out = tmp_path / "new" / "out.csv"
    status = predict.main(["--adapter", str(folder), "--out", str(out), *files])
    printed, problems = capsys.readouterr()
    assert status == 1
    assert len(problems.splitlines()) == 5 and "Traceback" not in problems
    for name, reason in {
        "broken.wav": "unreadable",
        "empty.wav": "empty",
        "gone.wav": "missing",
        "none": "a folder without audio",
        "long.wav": "longer than 30 s",
    }.items():
        assert f"not done: {place / name} is {reason}" in problems
    assert f"cut to its first {WINDOW_S} s" in printed and len(printed.splitlines()) == 3
    read = pd.read_csv(out)
    assert list(read["file"]) == files and read[COLUMNS].notna().all(axis=1).sum() == 2


def test_what_is_no_speech_or_cannot_be_read_here_has_a_line_with_its_reason(
    folder, clips, tmp_path, capsys
):
    _, place = clips
    noise = 0.1 * np.random.default_rng(0).normal(size=16000)
    soundfile.write(place / "int16.wav", noise * 32768, 16000, "FLOAT")
    soundfile.write(place / "cancel.wav", np.stack([noise, -noise], 1), 16000)
    soundfile.write(place / "nearly.wav", np.stack([noise, -0.9 * noise], 1), 16000)
    (place / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    (place / "._same.flac").write_bytes(b"\0\5\x16\7" + bytes(100))
    (place / "__MACOSX").mkdir()
    (place / "__MACOSX" / "same.flac").write_bytes(b"\0\5\x16\7" + bytes(100))
    with open(os.fsencode(place) + b"/K\xe4the.flac", "wb") as file:
        file.write((place / "same.flac").read_bytes())
    for out in (tmp_path / "out.csv", tmp_path / "out.jsonl"):
        assert predict.main(["--adapter", str(folder), "--out", str(out), str(place)]) == 1
        printed, problems = capsys.readouterr()
        for name, reason in {
            "int16.wav": r"of an implausible level \(peak 1\d,\d\d\d; samples should lie",
            "cancel.wav": "without sound in the mean of its channels",
            "phone.m4a": r"in a format that is not read here \(.m4a\); convert it",
        }.items():
            assert re.search(f"not done: {place / name} is {reason}", problems)
        assert len(problems.splitlines()) == 3 and "MACOSX" not in printed
        assert "K\\xe4the.flac" in printed and "its channels cancel for the most part" in printed
        assert "\\xe4" in out.read_text(encoding="utf-8")
    read = pd.read_csv(tmp_path / "out.csv").set_index("file")
    alike = read.loc[[f"{place}/same.flac", f"{place}/K\\xe4the.flac"], COLUMNS].to_numpy()
    np.testing.assert_allclose(alike[0], alike[1])


def test_json_lines_hold_the_same_and_nothing_stays_in_the_cache(
    folder, clips, tmp_path, capsys, isolated_cache
):
    out = tmp_path / "out.jsonl"
    assert predict.main(["--adapter", str(folder), "--out", str(out), str(clips[0])]) == 0
    printed, problems = capsys.readouterr()
    assert problems == "" and printed.split()[:5] == ["file", "prediction", *LABELS]
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["prediction"] in LABELS and sum(row[name] for name in COLUMNS) == pytest.approx(1)
    assert [path.name for path in isolated_cache.iterdir()] == ["backbones"]


def test_when_no_file_can_be_used_no_model_is_loaded(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "_load", lambda *a, **k: pytest.fail("loaded"))
    assert predict.main(["--adapter", str(folder), str(tmp_path / "gone.wav")]) == 1
    assert capsys.readouterr().out == ""


# Mistakes -----------------------------------------------------------------------------------------


def test_an_adapter_of_another_backbone_is_refused(folder, clips, tmp_path):
    def deeper(values):
        values["backbone"]["layers"] = 3

    def narrower(values):
        values["adapter"]["r"] = 2

    for change in (deeper, narrower):
        changed = other(folder, tmp_path / change.__name__, change)
        with pytest.raises(UserError, match="another backbone: .*lora.*--backbone PATH"):
            predict.predict(changed, [clips[0]])
    random_tiny.save(tmp_path / "tiny", layers=1, window_s=WINDOW_S)
    with pytest.raises(UserError, match="another backbone: .*None in this one"):
        predict.predict(folder, [clips[0]], backbone=tmp_path / "tiny")


def test_a_folder_given_as_backbone_serves(folder, clips, tmp_path):
    random_tiny.save(tmp_path / "tiny", layers=2, window_s=WINDOW_S)
    made = predict.predict(folder, [clips[0]], backbone=tmp_path / "tiny")
    pd.testing.assert_frame_equal(made, predict.predict(folder, [clips[0]]))


def test_missing_and_damaged_adapters_are_refused_in_one_sentence(folder, clips, tmp_path):
    with pytest.raises(UserError, match="is not a folder; name an adapter's folder"):
        predict.predict(tmp_path / "nowhere", [clips[0]])
    damaged = other(folder, tmp_path / "damaged", lambda values: None)
    (damaged / "adapter_model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match="adapter_model.safetensors cannot be read"):
        predict.predict(damaged, [clips[0]])
    (damaged / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="adapter_model.safetensors cannot be read"):
        predict.predict(damaged, [clips[0]])
    damaged = other(folder, tmp_path / "odd", lambda values: values["backbone"].update(x=1))
    with pytest.raises(UserError, match="has no key backbone.x"):
        predict.predict(damaged, [clips[0]])


def test_transcripts_are_asked_for_where_needed_and_refused_where_useless(folder, clips, tmp_path):
    def only(*modalities):
        return lambda values: values["data"].update(modalities=list(modalities))

    text = other(folder, tmp_path / "text", only("speech+text"))
    with pytest.raises(UserError, match="give --transcripts FILE.csv"):
        predict.predict(text, [clips[0]])
    listed = tmp_path / "said.csv"
    listed.write_text("path,transcript\nsame.flac,so it goes\n")
    made = predict.predict(text, [clips[0], tmp_path / "same.flac"], transcripts=listed)
    assert made["problem"].str.contains("without a transcript").tolist() == [True, False]
    speech = other(folder, tmp_path / "speech", only("speech"))
    with pytest.raises(UserError, match="omit --transcripts"):
        predict.predict(speech, [clips[0]], transcripts=listed)
    with pytest.raises(UserError, match="names none of the files"):
        predict.predict(folder, [clips[0]], transcripts=listed)
    listed.write_text("file,text\na,b\n")
    with pytest.raises(UserError, match="rename 'file' to path and rename 'text' to transcript"):
        predict.predict(folder, [clips[0]], transcripts=listed)


def test_the_command_refuses_mistakes_before_it_loads_anything(root):
    command = [sys.executable, "-m", "ermgap.predict", "--adapter", "nowhere", "a.wav"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: nowhere is not a folder")
    for wrong, words in (("--out=x.xlsx", "neither .csv nor"), ("--batch=0", "at least 1")):
        with pytest.raises(UserError, match=words):
            predict.main(["--adapter", "nowhere", "a.wav", wrong])
