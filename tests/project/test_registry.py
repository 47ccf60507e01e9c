"""Plugins: which files are imported, and what happens to the names that they register."""

from __future__ import annotations

from pathlib import Path

import pytest

from ermgap.errors import UserError
from ermgap.registry import Registry, load_plugins


@pytest.fixture
def losses(monkeypatch) -> Registry:
    monkeypatch.setattr(Registry, "all", [])
    registry = Registry("loss")
    registry["erm"] = "built in"
    return registry


def plugin(folder: Path, *names: str, stem: str = "mine", after: str = "") -> str:
    folder.mkdir(exist_ok=True)
    lines = [f"Registry.all[0][{name!r}] = {str(folder)!r}" for name in names]
    path = folder / f"{stem}.py"
    text = "\n".join(["from ermgap.registry import Registry", *lines, after])
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_two_plugins_of_one_file_name_are_both_imported(losses, tmp_path):
    load_plugins([plugin(tmp_path / "a", "first"), plugin(tmp_path / "b", "second")])
    assert set(losses) == {"erm", "first", "second"}


def test_a_file_that_is_named_twice_is_imported_once(losses, tmp_path, monkeypatch):
    path = plugin(tmp_path / "a", "first")
    (tmp_path / "link.py").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    load_plugins([path, "a/mine.py", "link.py"])
    load_plugins([path])
    assert set(losses) == {"erm", "first"}


def test_a_name_of_another_plugin_is_refused_and_stays_what_it_was(losses, tmp_path):
    first, second = plugin(tmp_path / "b", "same"), plugin(tmp_path / "c", "new", "same")
    with pytest.raises(UserError, match=r"b/mine\.py' and .*c/mine\.py' both register the loss"):
        load_plugins([first, second])
    assert dict(losses) == {"erm": "built in", "same": str(tmp_path / "b")}


def test_a_plugin_may_replace_what_the_package_registers(losses, tmp_path):
    path = plugin(tmp_path / "a", "erm")
    load_plugins([path, path])
    assert losses["erm"] == str(tmp_path / "a")


def test_a_plugin_that_fails_half_way_leaves_no_name_and_is_tried_again(losses, tmp_path):
    path = plugin(tmp_path / "a", "half", after="raise ValueError('later')")
    with pytest.raises(UserError, match="cannot be imported"):
        load_plugins([path])
    assert set(losses) == {"erm"}
    load_plugins([plugin(tmp_path / "a", "half")])
    assert set(losses) == {"erm", "half"}


def test_a_module_on_the_path_may_not_take_a_plugins_name_either(losses, tmp_path, monkeypatch):
    plugin(tmp_path / "modules", "same", stem="takes_a_name_of_a_plugin")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    with pytest.raises(UserError, match="both register the loss 'same'"):
        load_plugins([plugin(tmp_path / "a", "same"), "takes_a_name_of_a_plugin"])
    assert losses["same"] == str(tmp_path / "a")
