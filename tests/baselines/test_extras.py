"""A feature whose packages are an extra says, where they are absent, what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ermgap import baselines, corpora
from ermgap.config import Config
from ermgap.errors import UserError

CONTEXT = baselines.Context(("anger", "joy"), Config(), "cpu", Path("."))


def endpoint(folder: Path) -> None:
    baselines.SYSTEMS.find("openai")("model@http://127.0.0.1:1/v1", CONTEXT)


def voxtral(folder: Path) -> None:
    baselines.SYSTEMS.find("voxtral")(str(folder), CONTEXT)


def hf(folder: Path) -> None:
    (folder / "state.json").touch()
    corpora.load([f"hf={folder}"])


@pytest.mark.parametrize(
    ("use", "package"), [(endpoint, "httpx2"), (voxtral, "mistral_common"), (hf, "datasets")]
)
def test_where_its_package_is_absent_a_feature_names_the_extra(use, package, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("ermgap.baselines.endpoint.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("transformers.utils.is_mistral_common_available", lambda: False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as problem:
        use(tmp_path)
    assert str(problem.value) == (
        f"the package {package.replace('_', '-')} is not installed; "
        f"run pip install 'ermgap[{use.__name__}]'."
    )
