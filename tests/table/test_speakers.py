"""Ids of speakers that differ in spelling alone are listed, others are not."""

from __future__ import annotations

import pytest

from ermgap.corpora import table as tables
from ermgap.corpora.split import spelling_notes


def table(*speakers: str, **columns):
    rows = [
        {"utterance_id": f"u{i}", "corpus": "made", "language": "en", "gender": "female",
         "emotion": "joy", "speaker": name, "path": f"/{i}.wav"}
        for i, name in enumerate(speakers)
    ]  # fmt: skip
    return tables.frame(rows).assign(**columns)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("v_3", "v_03"),
        ("v_3", "v_3.0"),
        ("v_Anna", "v_anna"),
        ("v_Anna  B", "v_anna b"),
        ("v_Anna B", "v_AnnaB"),
        ("v_spk_1", "v_spk-01"),
        ("v_spk1", "v_SPK 001"),
        ("v_s.1.2", "v_s_1-02"),
        ("v_jos\u00e9", "v_jose\u0301"),
        ("v_\uff11\uff12", "v_12"),
        ("v_000", "v_0"),
    ],
)
def test_ids_that_differ_in_spelling_alone_are_named(one, other):
    (note,) = spelling_notes(table(one, "v_x", other, one))
    first, second = sorted([one, other])
    assert any(f"{show(first)} and {show(second)}" in note for show in (repr, ascii))
    assert "v_x" not in note


@pytest.mark.parametrize(
    "names",
    [
        ("v_1", "v_10", "v_11", "v_1_1"),
        ("v_anna", "v_anne", "v_anna 2", "v_hanna"),
        ("v_F1", "v_M1", "v_1"),
        ("a_1", "b_1"),
        ("v_?", "v_"),
        ("v_क", "v_का"),
    ],
)
def test_ids_that_differ_in_more_are_not(names):
    assert [note for note in spelling_notes(table(*names)) if "'v_?'" not in note] == []


def test_many_are_counted_and_groups_count_as_well():
    (note,) = spelling_notes(table(*(f"v_{zero}{i}" for i in range(1, 10) for zero in ("", "0"))))
    assert note.count(" and ") == 7 and "and 3 more" in note
    made = table("v_a", "v_b", group=["v_dialogue 1", "v_Dialogue_01"])
    assert "'v_Dialogue_01' and 'v_dialogue 1'" in spelling_notes(made)[0]


def test_an_utterance_that_stands_for_its_speaker_is_no_spelling():
    ids = ["v/take_1", "v/take_01"]
    assert spelling_notes(table(*ids).assign(utterance_id=ids)) == []
