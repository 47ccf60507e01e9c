"""The plan of a sweep by any attribute: what is passed on, named, counted, and refused at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ermgap.config import Config
from ermgap.corpora import table as tables
from ermgap.errors import UserError
from sweeps.setup import cells, plan

SETTINGS = {"data.labels": ["joy", "anger"], "data.cell_support": 4, "data.min_support": 2}


def config(folder: Path, *rows: str, header: str, **settings) -> Config:
    """A configuration of a manifest whose rows are `speaker` and what `header` names, four each."""
    folder.mkdir(exist_ok=True)
    lines = [f"path,language,emotion,speaker,{header}"]
    for number, row in enumerate(rows):
        speaker, rest = row.split(",", 1)
        for k in range(4):
            name = f"{number}-{k}.wav"
            noise = np.random.default_rng(97 * number + k).normal(0, 0.1, 4000)
            soundfile.write(folder / name, noise, 16000)
            lines.append(f"{name},{speaker[:2]},{('joy', 'anger')[k % 2]},{speaker},{rest}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    changes = {"data.corpora": [f"voices={folder}"]} | SETTINGS
    changes |= {key.replace("__", "."): value for key, value in settings.items()}
    return Config().replace(changes)


def accents(folder: Path, **settings) -> Config:
    """Two languages; two speakers of each accent, but one of `west`, and one who is unknown."""
    rows = [
        f"{language}{number}{accent},{'fm'[number % 2]},{accent}"
        for language in ("de", "en")
        for accent in ("north", "south", "west")
        for number in range(1 if accent == "west" else 4)
    ]
    given = {"objective__attribute": ["accent"], "data__folds": 2} | settings
    return config(folder, *rows, "de9,f,", header="gender,group:accent", **given)


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


def test_an_attribute_is_read_balanced_described_and_its_small_sides_are_named(tmp_path):
    made = accents(tmp_path / "v")
    result = plan.make_plan(made)
    dev = result.utterances.query("split == 'dev'")
    assert set(dev["accent"]) == {"north", "south"}  # of west and unknown there is one speaker each
    assert len(result.utterances) == 2 * 9 * 4 + 4
    lines = result.description.splitlines()
    assert lines[0].split()[:3] == ["split", "language", "accent"]
    assert any(line.startswith("gender: female (") for line in lines)
    notes = [line for line in lines if line.startswith("note:")]
    for language in ("de", "en"):
        assert (
            f"note: on dev {language} has 0 west utterances by 0 speakers: not estimable there "
            "with fewer than 4 utterances (data.cell_support); it is compared between the others"
        ) in notes
    assert any("4 of 76 utterances of voices are of unknown accent" in note for note in notes)
    cells.require_a_cell(made, result.utterances)


def test_unknown_utterances_are_dropped_where_the_configuration_says_so(tmp_path):
    result = plan.make_plan(accents(tmp_path / "v", data__unknown="drop"))
    assert len(result.utterances) == 2 * 9 * 4
    assert "excluded from voices: 4 (4 x its accent is unknown)" in result.description
    assert "are of unknown accent" not in result.description


def test_crossed_attributes_are_one(tmp_path):
    made = accents(tmp_path / "v", objective__attribute=["gender", "accent"])
    result = plan.make_plan(made)
    assert result.description.splitlines()[0].split("  ")[2:3] == ["gender & accent"]
    dev = result.utterances.query("split == 'dev'")
    assert dev.groupby("language")[["gender", "accent"]].value_counts().size >= 8


def test_language_may_be_the_attribute_with_one_cell_for_all(tmp_path):
    made = accents(tmp_path / "v", objective__attribute=["language"])
    result = plan.make_plan(made)
    assert "warning" not in result.description
    cells.require_a_cell(made, result.utterances)
    assert "on dev there are not 400 utterances of each language (all " in refused(
        cells.require_a_cell, made.replace({"data.cell_support": 400}), result.utterances
    )


def test_provenance_is_the_corpuss_unless_the_configuration_says_more(tmp_path):
    made = accents(tmp_path / "v", data__provenance={"accent": "self-reported"})
    result = plan.make_plan(made)
    assert result.provenance == {"gender": "not stated", "accent": "self-reported"}
    described = plan.describe_sweep(
        made, preset="x", utterances=result.utterances, storage=None, provenance=result.provenance
    )
    assert described["provenance"] == {"gender": "not stated", "accent": "self-reported"}
    wrong = made.replace({"data.provenance": {"acent": "inferred"}})
    assert "data.provenance names 'acent', which is no attribute of these corpora; write one " in (
        refused(plan.make_plan, wrong)
    )


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["de1,f,north", "de2,m,north", "en3,f,north", "en4,m,"],
         "the attribute accent has one value only, north (12 utterances), so that nothing"),
        (["de1,f,", "de2,m,?", "en3,f,unknown", "en4,m,N/A"],
         "the attribute accent is unknown of every utterance, so that nothing"),
        (["de1,f,north", "de2,m,south", "en3,f,north", "en4,m,south"],
         "no language has north and south utterances in both train and dev"),
    ],
)  # fmt: skip
def test_an_attribute_that_divides_nobody_is_refused(tmp_path, rows, sentence):
    made = config(
        tmp_path / "v", *rows, header="gender,group:accent", objective__attribute=["accent"]
    )
    assert sentence in refused(plan.make_plan, made)


def test_a_missing_attribute_is_refused_with_what_to_add(tmp_path):
    text = refused(plan.make_plan, accents(tmp_path / "v", objective__attribute=["nation"]))
    assert text.startswith("there is no attribute 'nation' in voices, only accent, gender; add a")
    made = config(tmp_path / "w", "de1,north", header="group:accent")
    assert "lacks the column gender" in refused(plan.make_plan, made)


def test_values_that_are_all_under_the_minimum_are_refused_before_anything_is_launched(tmp_path):
    made = accents(tmp_path / "v", data__cell_support=9)
    result = plan.make_plan(made)
    assert refused(cells.require_a_cell, made, result.utterances) == (
        "on dev no language has 9 utterances of two values of accent (de 8 north, 8 south and 0 "
        "west, en 8 north, 8 south and 0 west), so that no gap would count; give dev more, or ask "
        "for less with --set data.cell_support=N."
    )
    assert (
        "on dev en has 8 north utterances by 2 speakers, 8 south utterances by 2 speakers and 0 "
        "west utterances by 0 speakers: not estimable there with fewer than 9 utterances "
        "(data.cell_support); its gap is measured, and does not count for the largest"
    ) in result.description


def test_speakers_count_too(tmp_path):
    made = accents(tmp_path / "v", data__speaker_support=3)
    result = plan.make_plan(made)
    text = refused(cells.require_a_cell, made, result.utterances)
    assert (
        "no language has 4 utterances by 3 speakers of two values of accent (de 8 north by 2, "
        in (text)
    )
    assert text.endswith("--set data.cell_support=N or data.speaker_support=N.")
    assert "4 utterances (data.cell_support) or 3 speakers (data.speaker_support)" in (
        result.description
    )
    cells.require_a_cell(made.replace({"data.speaker_support": 2}), result.utterances)


def test_many_small_sides_are_listed_up_to_a_few():
    table = tables.frame(
        [
            {"utterance_id": f"{i}", "corpus": "c", "language": f"{'abcdefghi'[i % 9]}x",
             "emotion": "joy", "speaker": f"s{i}", "path": f"/{i}", "accent": f"a{i // 9:02d}"}
            for i in range(9 * 20)
        ],
        attributes=("accent",),
    ).assign(split="dev")  # fmt: skip
    made = Config().replace({"objective.attribute": ["accent"]})
    text = refused(cells.require_a_cell, made, table)
    assert "1 a05 and 14 more" in text and "fx 1 a00" in text and ", ...), so that" in text
    assert "gx" not in text and len(text) < 700


@pytest.mark.parametrize("limit", [10, 48, 100])
def test_a_sample_takes_turns_over_the_sides(limit):
    table = tables.frame(
        [
            {"utterance_id": f"{i}", "corpus": "c", "language": ("de", "en")[i % 2],
             "emotion": ("joy", "anger")[i // 2 % 2], "speaker": f"s{i}", "path": f"/{i}",
             "gender": ("female", "male")[i % 3 > 0], "accent": f"a{i % 5}"}
            for i in range(400)
        ],
        attributes=("accent",),
    ).assign(split="train")  # fmt: skip
    taken = plan._sample(table, limit, ("accent",))
    n = taken.groupby(["language", "accent"]).size()
    assert len(taken) == limit and len(n) == 10 and n.max() - n.min() <= 1
    # By gender as it was before there were other attributes.
    group = ["split", "language", "gender"]
    turn = table.groupby([*group, "emotion"]).cumcount()
    draw = np.random.default_rng(0).random(len(table))
    ranked = table.assign(turn=turn, draw=draw).sort_values(["turn", "draw"], kind="stable")
    order = ranked.groupby(group).cumcount().sort_values(kind="stable").index
    wanted = table.loc[order[:limit]].sort_index().reset_index(drop=True)
    pd.testing.assert_frame_equal(plan._sample(table, limit, ("gender",)), wanted)
