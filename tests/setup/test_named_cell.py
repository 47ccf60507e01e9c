"""The cell that a sweep is about, named before it: checked when the sweep is planned."""

from __future__ import annotations

import pytest
from fake_sweep import LABELS, utterances

from ermgap.config import Config
from ermgap.errors import UserError
from sweeps.setup import command_line, plan


def asked(cell: str | None, *, women: int = 80, **data) -> None:
    """Plan on dev of three languages, with so many utterances of Japanese women."""
    table = utterances().rename(columns={"label": "emotion"}).drop(columns="modality")
    few = (table["language"] == "ja") & (table["gender"] == "female")
    table = table[~few | (few.cumsum() <= women)].assign(transcript="")
    changes = {"sweep.cell": cell, "data.labels": list(LABELS)}
    changes |= {f"data.{key}": value for key, value in data.items()}
    plan.require_named_cell(Config().replace(changes), table)


def test_a_cell_that_counts_on_dev_passes_and_so_does_none():
    asked(None)
    asked("de/speech")
    asked("ja/speech")
    asked("ja/speech", women=40, cell_support=20)


def test_an_unknown_cell_is_refused_with_those_there_are():
    with pytest.raises(UserError) as refused:
        asked("fr/speech")
    assert str(refused.value) == (
        "sweep.cell = 'fr/speech' is no cell of dev: name one that counts there "
        "(de/speech, en/speech, ja/speech), or write null."
    )
    with pytest.raises(UserError, match="de/speech, en/speech, ja/speech"):
        asked("de/speech+text", modalities=["speech", "speech+text"])  # without any transcript


def test_a_cell_that_is_too_small_is_refused_with_its_numbers():
    with pytest.raises(UserError) as refused:
        asked("ja/speech", women=9)
    assert "9 female and 80 male utterances (data.cell_support)" in str(refused.value)
    assert "(de/speech, en/speech)" in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "cell"),
    [
        ([], "de/speech"),
        (["--data", "demo"], "de/speech"),
        (["--data", "emodb=there"], None),  # the demo's cell is none of theirs
        (["--data", "emodb=there", "--set", "sweep.cell=de/speech"], "de/speech"),
        (["--set", "objective.attribute=[language, gender]"], None),
        (["--set", "objective.attribute=[style]", "--set", "sweep.cell=en/speech"], "en/speech"),
        (["--set", "sweep.cell=null"], None),
        (["--smoke-test"], None),
    ],
)
def test_a_presets_cell_is_one_of_its_own_corpora_and_attribute(arguments, cell):
    given = command_line.parse(command_line.options("", many=True), arguments)
    assert command_line.make_config(given).sweep.cell == cell
