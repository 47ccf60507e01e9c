"""Tables by any attribute: counts, description, warnings and splits by its sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ermgap import attributes
from ermgap.config import GENDERS, MELD_LABELS
from ermgap.corpora import split
from ermgap.corpora import table as tables
from ermgap.errors import UserError

ACCENTS = ("east", "north", "south", "west")


def make(*, languages: str = "de en", speakers: int = 4, clips: int = 12, seed: int = 0, **accents):
    """Speakers of each language and accent (`accents`: those of a language, else all four)."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "utterance_id": f"{language}{accent}{i}/{k}", "corpus": "made", "language": language,
            "gender": GENDERS[i % 2], "accent": accent, "path": f"/{language}{accent}{i}/{k}.wav",
            "emotion": str(random.choice(MELD_LABELS)), "speaker": f"{language}_{accent}_{i}",
            "end_s": 1.0,
        }
        for language in languages.split()
        for accent in accents.get(language, ACCENTS)
        for i in range(speakers)
        for k in range(clips)
    ]  # fmt: skip
    return tables.frame(rows, attributes=("gender", "accent"))


def test_a_frame_has_its_attributes_as_text_and_what_is_absent_is_unknown():
    rows = [{"utterance_id": "a", "corpus": "c", "language": "en", "emotion": "joy",
             "speaker": "s", "path": "/a", "age": "20s"},
            {"utterance_id": "b", "corpus": "c", "language": "en", "emotion": "joy",
             "speaker": "s", "path": "/b", "accent": "north"}]  # fmt: skip
    table = tables.frame(rows, attributes=("age", "accent", "region"))
    assert list(table) == [*tables.COLUMNS, "age", "accent", "region"]
    assert table[["gender", "age", "accent", "region"]].to_numpy().tolist() == [
        ["", "20s", "", ""], ["", "", "north", ""],
    ]  # fmt: skip
    tables.check(table)
    assert list(tables.frame([], attributes=("age",))) == [*tables.COLUMNS, "age"]


def test_gender_may_be_unknown_or_another_word():
    table = make()
    table.loc[:2, "gender"] = ["nonbinary", "", "agender"]
    tables.check(table)
    assert tables.counts(table).index.unique("gender").tolist() == [
        "agender", "female", "male", "nonbinary", "",
    ]  # fmt: skip


def test_counts_have_the_sides_of_each_language_and_the_unknown_ones():
    table = split.assign(make(en=("north", "south")), seed=0, attribute=("accent",))
    table.loc[table.index[:5], "accent"] = ""
    tally = tables.counts(table, attribute=("accent",))
    assert tally.index.names == ["split", "language", "accent"]
    assert tally.loc["train"].index.to_list() == [
        *(("de", accent) for accent in (*ACCENTS, "")), ("en", "north"), ("en", "south"),
    ]  # fmt: skip
    assert tally.to_numpy().sum() == len(table)
    assert tally.xs("", level="accent").to_numpy().sum() == 5
    crossed = tables.counts(table, attribute=("gender", "accent"))
    assert crossed.index.names[2] == "gender & accent"
    assert ("dev", "de", "female & west") in crossed.index
    assert crossed.to_numpy().sum() == len(table)


def test_a_description_lists_further_attributes_with_utterances_speakers_and_unknown_ones():
    table = split.assign(make(speakers=2), seed=0)
    table.loc[table["speaker"] == "de_east_0", "accent"] = ""
    text = tables.describe(table)
    assert "accent: east (36 of 3 speakers), north (48 of 4 speakers)" in text
    assert "west (48 of 4 speakers), unknown (12 of 1 speaker)" in text
    by_accent = tables.describe(table, attribute=("accent",))
    assert "\ngender: female (96 of 8 speakers), male (96 of 8 speakers)\n" in by_accent
    lines = by_accent.splitlines()
    assert lines[0].split()[:3] == ["split", "language", "accent"]
    assert sum("unknown" in line.split()[:3] for line in lines) == 2  # train and dev of de
    crossed = tables.describe(table, attribute=("gender", "accent"))
    assert "\ngender: " in crossed and "\naccent: " in crossed
    without = tables.describe(table.drop(columns="accent"))
    assert without == "\n".join(line for line in text.splitlines() if line[:7] != "accent:")


def test_a_description_of_many_values_is_cut_and_says_how_many_more():
    table = make(speakers=20, clips=1).assign(region=lambda t: "r" + t["speaker"].str[-2:])
    (line,) = (line for line in tables.describe(table).splitlines() if line.startswith("region:"))
    assert line.count("(") == 12 and line.endswith("more values") and "unknown" not in line
    table.loc[0, "region"] = ""
    (line,) = (line for line in tables.describe(table).splitlines() if line.startswith("region:"))
    assert line.endswith("more values, unknown (1 of 1 speaker)")


def test_values_from_a_file_do_not_control_the_terminal():
    table = make().assign(accent="a\x1b[31m\nb")
    for attribute in (("gender",), ("accent",)):
        text = tables.describe(table, attribute=attribute)
        assert "\x1b" not in text and "a [31m b" in text


def test_warnings_name_languages_in_which_no_two_sides_meet():
    table = make(speakers=2).assign(split="train")
    table.loc[table["speaker"].str.endswith("1"), "split"] = "dev"
    assert tables.warnings(table, attribute=("accent",)) == []
    less = table[(table["language"] != "en") | (table["accent"] == "west")]
    assert tables.warnings(less, attribute=("accent",)) == [
        "en has but one accent (west) in train: no gap is defined there.",
        "en has but one accent (west) in dev: no gap is defined there.",
    ]
    unknown = table.assign(accent=table["accent"].where(table["split"] == "train", ""))
    assert "en has no known accent in dev: no gap is defined there." in tables.warnings(
        unknown, attribute=("accent",)
    )
    two = table[table["accent"].isin(["east", "west"])]
    two = two[(two["accent"] == "east") | (two["split"] == "train")]
    assert tables.warnings(two, attribute=("accent",))[0] == (
        "de has no west utterance in dev: no gap is defined there."
    )
    one = table[(table["split"] == "train") | (table["language"] == "de")]
    assert tables.warnings(one, attribute=("language",)) == [
        "the table has no en utterance in dev: no gap is defined there."
    ]


@pytest.mark.parametrize("attribute", [("accent",), ("gender", "accent"), ("language", "gender")])
@pytest.mark.parametrize("fold", range(4))
def test_every_side_with_two_groups_is_in_train_and_in_dev(attribute, fold):
    table = make(speakers=4)
    for seed in range(4):
        result = split.assign(table, seed=seed, fold=fold, attribute=attribute)
        assert list(result) == list(table)
        sides = attributes.values(result, attribute)
        cells = attributes.cell_languages(result, attribute)
        assert result.groupby([cells, sides])["split"].nunique().eq(2).all()


def test_utterances_of_unknown_side_are_dealt_like_those_of_a_side():
    table = make()
    table.loc[table["speaker"].str.startswith("de_east"), "accent"] = ""
    dev = [
        set(
            split.assign(table, seed=0, fold=fold, attribute=("accent",))
            .query("split == 'dev' and accent == ''")["speaker"]
        )
        for fold in range(4)
    ]  # fmt: skip
    assert all(len(speakers) == 1 for speakers in dev) and len(set.union(*dev)) == 4


def test_a_split_by_gender_knows_nothing_of_other_attributes():
    table = make(speakers=6)
    bare = table[list(tables.COLUMNS)]
    for seed in range(3):
        drawn = split.assign(table, seed=seed)["split"]
        assert drawn.equals(split.assign(bare, seed=seed)["split"])


@pytest.mark.parametrize(
    ("accents", "attribute", "sentence"),
    [
        (("north",), ("accent",), "no language has north utterances in both train and dev"),
        (("north", "south"), ("accent",), "no language has north and south utterances in both"),
        (ACCENTS, ("accent",), "has two of east, north, south, west utterances in both train"),
        (ACCENTS, ("language", "accent"), "the table does not have two of de & east, de & north"),
    ],
)
def test_a_split_without_two_sides_on_both_sides_is_refused(accents, attribute, sentence):
    table = make(de=accents, en=accents, speakers=1)
    with pytest.raises(UserError) as caught:
        split.assign(table, seed=0, attribute=attribute)
    text = str(caught.value)
    assert sentence in text and "two groups of each " + attributes.title(attribute) in text
    assert "\n" not in text and text.endswith(".")


def test_the_same_two_sides_must_be_in_train_and_dev():
    table = make(languages="de", speakers=1).assign(split="train")
    table.loc[table["accent"].isin(["east", "west"]), "split"] = "dev"
    with pytest.raises(UserError, match="no language has two of"):
        split.assign(table, seed=0, attribute=("accent",))
    table.loc[table["utterance_id"].str.endswith("/1"), ["split", "group"]] = ["train", "x"]
    split.assign(table, seed=0, attribute=("accent",))


def test_strata_are_by_side():
    table = make(speakers=1, clips=3)
    assert split.strata_of(table, ("accent",))["en_west_0"] == ("en", "west")
    assert split.strata_of(table)["en_west_0"] == ("en", "female")
    assert split.strata_of(table, ("language",))["en_west_0"] == (attributes.ALL, "en")


def test_a_table_with_attributes_comes_back_from_parquet(tmp_path):
    table = make(speakers=1)
    table.loc[0, "accent"] = ""
    table.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)
