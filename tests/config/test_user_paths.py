"""Paths that a user writes mean the same in every process, whatever its working directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ermgap import config
from ermgap.config import absolute_corpus, make_absolute
from ermgap.errors import UserError
from sweeps.setup import command_line

RELATIVE = {
    "plugins": ["mine.py", "sub/other.py", "a.module"],
    "data": {"corpora": ["manifest=clips", "demo", "hf=OWNER/NAME"], "genders": "who.csv"},
    "backbone": {"path": "../model", "prompt": "words.yaml"},
}


def absolute(base: Path) -> dict:
    return {
        "plugins": [f"{base}/mine.py", f"{base}/sub/other.py", "a.module"],
        "data": {
            "corpora": [f"manifest={base}/clips", "demo", "hf=OWNER/NAME"],
            "genders": f"{base}/who.csv",
        },
        "backbone": {"path": f"{base}/../model", "prompt": f"{base}/words.yaml"},
    }


def settings() -> list[str]:
    lists = "data.corpora=[manifest=clips, demo, hf=OWNER/NAME]"
    texts = ("data.genders=who.csv", "backbone.path=../model", "backbone.prompt=words.yaml")
    return ["plugins=[mine.py, sub/other.py, a.module]", lists, *texts]


def held(made: config.Config) -> dict:
    values = made.to_dict()
    keys = {"data": ("corpora", "genders"), "backbone": ("path", "prompt")}
    found = {section: {key: values[section][key] for key in keys[section]} for section in keys}
    return {"plugins": values["plugins"]} | found


def test_every_path_of_a_preset_is_relative_to_the_preset(tmp_path, monkeypatch):
    import yaml

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "first.yaml").write_text(yaml.safe_dump({"plugins": ["mine.py"]}))
    (tmp_path / "presets" / "mine.yaml").write_text(
        yaml.safe_dump(RELATIVE | {"extends": ["first"]})
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("../presets/mine.yaml", tmp_path / "presets" / "mine.yaml"):
        paths = held(config.load(Path(name)))
        text = str(paths).replace("elsewhere/../", "")
        assert text == str(absolute(tmp_path / "presets"))


def test_every_path_of_a_setting_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "presets").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "presets" / "mine.yaml").write_text("")
    monkeypatch.chdir(tmp_path / "here")
    assert held(config.load(Path("../presets/mine.yaml"), settings())) == absolute(Path.cwd())


def test_the_options_of_the_command_line_are_relative_to_the_working_directory(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = ["--data", "manifest=clips", "ravdess=~/r", "--genders", "who.csv"]
    made = command_line.make_config(
        command_line.parse(command_line.options("", many=True), options)
    )
    assert made.data.corpora == (f"manifest={tmp_path}/clips", f"ravdess={Path.home()}/r")
    assert made.data.genders == f"{tmp_path}/who.csv"


def test_a_relative_cache_is_the_same_folder_for_every_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ERMGAP_CACHE", "cache")
    command_line.parse(command_line.options("", many=True), [])
    assert os.environ["ERMGAP_CACHE"] == f"{tmp_path}/cache"


def test_a_dataset_of_the_hub_is_a_path_only_where_there_is_such_a_folder(tmp_path):
    assert absolute_corpus("hf=OWNER/NAME", tmp_path) == "hf=OWNER/NAME"
    (tmp_path / "OWNER" / "NAME").mkdir(parents=True)
    assert absolute_corpus("hf=OWNER/NAME", tmp_path) == f"hf={tmp_path}/OWNER/NAME"
    assert absolute_corpus("hf=./OWNER/OTHER", tmp_path) == f"hf={tmp_path}/./OWNER/OTHER"
    assert absolute_corpus("manifest=OWNER/OTHER", tmp_path) == f"manifest={tmp_path}/OWNER/OTHER"


@pytest.mark.parametrize("value", [3, None, [1], {"a": "b"}, "", [""], ["manifest="]])
def test_values_of_a_wrong_type_are_left_to_be_refused(tmp_path, value):
    values = {"plugins": value, "data": {"corpora": value, "genders": value}, "backbone": value}
    before = str(values)
    make_absolute(values, base=tmp_path)
    if value in ("", [""]) or not isinstance(value, (str, list)):
        assert str(values) == before
    with pytest.raises(UserError):
        config.from_dict(values | {"train": 3})
