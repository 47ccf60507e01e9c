"""Splits: groups are never cut, a seed decides, and both genders are on both sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ermgap import corpora
from ermgap.config import GENDERS, MELD_LABELS
from ermgap.corpora import table as tables
from ermgap.corpora.split import assign, complete_groups
from ermgap.errors import UserError


def make(speakers: dict[str, tuple[str, str, int]], *, seed: int = 0) -> pd.DataFrame:
    """A table of `speakers`: name -> (language, gender, utterances), with random emotions."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "utterance_id": f"{name}/{i}", "corpus": "made", "language": language,
            "gender": gender, "emotion": str(random.choice(MELD_LABELS)),
            "speaker": name, "path": f"/{name}/{i}.wav", "end_s": 1.0,
        }
        for name, (language, gender, n) in speakers.items()
        for i in range(n)
    ]  # fmt: skip
    return tables.frame(rows)


def even(languages: str, *, speakers: int, clips: int = 20) -> pd.DataFrame:
    return make(
        {
            f"{language}_{gender}_{i}": (language, gender, clips)
            for language in languages.split()
            for gender in GENDERS
            for i in range(speakers)
        }
    )


def skewed(*, speakers: int = 120) -> pd.DataFrame:
    """Television-like: six voices hold most utterances, many hold one or two."""
    sizes = [1500, 1300, 1200, 1100, 1000, 900] + [2 + 60 // (i + 1) for i in range(speakers - 6)]
    return make({f"s{i}": ("en", GENDERS[i % 2], n) for i, n in enumerate(sizes)})


def sides(table: pd.DataFrame) -> dict[str, set[str]]:
    return table.groupby("split")["group"].agg(set).to_dict()


@pytest.mark.parametrize("seed", range(5))
def test_every_row_gets_a_split_and_no_group_is_in_two(seed):
    table = assign(skewed(), seed=seed, fold=1, folds=4, test=True)
    assert set(table["split"]) == {"train", "dev", "test"}
    assert (table.groupby("group")["split"].nunique() == 1).all()


def test_one_seed_gives_one_split_whatever_the_order_of_rows():
    table = even("de en", speakers=5)
    mixed = table.sample(frac=1, random_state=3)
    first = assign(table, seed=7).set_index("utterance_id")["split"]
    assert first.equals(assign(table, seed=7).set_index("utterance_id")["split"])
    assert first.equals(assign(mixed, seed=7).set_index("utterance_id")["split"].loc[first.index])


def test_seeds_give_different_splits():
    table = even("en", speakers=8)
    devs = {frozenset(sides(assign(table, seed=seed))["dev"]) for seed in range(6)}
    assert len(devs) > 3


def test_any_two_speakers_can_meet_in_a_fold():
    table = even("en", speakers=4)
    devs = [sides(assign(table, seed=seed, folds=2))["dev"] for seed in range(40)]
    first = {name for dev in devs if "en_female_0" in dev for name in dev}
    assert first == set(table["group"])


def test_the_dev_folds_of_a_seed_are_disjoint_and_together_hold_every_group():
    table = even("de en", speakers=6)
    devs = [sides(assign(table, seed=2, fold=fold, folds=4))["dev"] for fold in range(4)]
    assert sum(len(dev) for dev in devs) == table["group"].nunique()
    assert set.union(*devs) == set(table["group"])


def test_asking_for_test_leaves_dev_as_it_was():
    table = even("en", speakers=6)
    without = sides(assign(table, seed=0, fold=2, folds=4))
    with_test = sides(assign(table, seed=0, fold=2, folds=4, test=True))
    assert with_test["dev"] == without["dev"]
    assert with_test["train"] | with_test["test"] == without["train"]


@pytest.mark.parametrize("speakers", [2, 3, 4, 7])
@pytest.mark.parametrize("fold", range(4))
def test_each_language_has_both_genders_on_both_sides_when_it_has_two_groups_of_each(
    speakers, fold
):
    for seed in range(5):
        table = assign(even("de en ja", speakers=speakers), seed=seed, fold=fold, folds=4)
        cells = table.groupby(["language", "split", "gender"]).size()
        assert len(cells) == 3 * 2 * 2
        assert tables.warnings(table) == []


@pytest.mark.parametrize("seed", range(4))
def test_folds_of_even_speakers_are_as_even_as_whole_speakers_allow(seed):
    table = even("en", speakers=6, clips=50)
    sizes = [
        assign(table, seed=seed, fold=fold, folds=4)
        .query("split == 'dev'").groupby("gender")["group"].nunique().to_dict()
        for fold in range(4)
    ]  # fmt: skip
    assert all(sorted(size.values()) == [1, 2] for size in sizes)  # 12 speakers, 3 a fold


@pytest.mark.parametrize("seed", range(3))
def test_skewed_groups_still_give_even_folds_of_each_gender_and_emotion(seed):
    table = skewed()
    shares = pd.concat(
        [
            assign(table, seed=seed, fold=fold, folds=3).query("split == 'dev'")
            .groupby(["gender", "emotion"]).size()
            for fold in range(3)
        ],
        axis=1,
    )  # fmt: skip
    assert (shares.sum() / len(table) - 1 / 3).abs().max() < 0.05
    part = shares.div(shares.sum(axis=1), axis=0)
    assert part.min().min() > 0.2 and part.max().max() < 0.47


def test_groups_of_several_languages_and_genders_stay_whole_and_balanced():
    random = np.random.default_rng(0)
    table = make({f"{x}{i}": (x, g, 40) for x in ("de", "en") for i, g in
                  enumerate(GENDERS * 4)})  # fmt: skip
    table["group"] = [f"dialogue{i}" for i in random.integers(0, 60, len(table))]
    result = assign(table, seed=0, folds=4)
    assert (result.groupby("group")["split"].nunique() == 1).all()
    dev = (result["split"] == "dev").groupby([result["language"], result["gender"]]).mean()
    assert len(dev) == 4 and dev.between(0.15, 0.35).all()


def test_a_given_split_is_kept_and_pulls_the_rest_of_its_group_along():
    table = even("en", speakers=5)
    table.loc[table.index[0], "split"] = "test"
    result = assign(table, seed=0)
    group = table["group"].iloc[0]
    assert set(result.loc[result["group"] == group, "split"]) == {"test"}
    given = result.assign(split=result["split"])
    assert assign(given, seed=99, fold=3)["split"].equals(result["split"])


def test_more_folds_than_groups_of_a_gender_deals_that_gender_to_fewer_folds():
    table = make({"a": ("en", "female", 9), "b": ("en", "female", 9)} | {
        f"m{i}": ("en", "male", 9) for i in range(10)})  # fmt: skip
    for fold in range(10):
        dev = assign(table, seed=0, fold=fold, folds=10).query("split == 'dev'")
        assert dev.groupby("gender")["group"].nunique().to_dict() == {"female": 1, "male": 1}


def test_a_gender_with_one_group_stays_in_train_and_is_warned_about():
    speakers = {f"{g}{i}": ("en", g, 9) for g in GENDERS for i in range(4)}
    table = make(speakers | {"x": ("ja", "female", 9), "y": ("ja", "male", 9),
                             "z": ("ja", "male", 9)})  # fmt: skip
    result = assign(table, seed=0)
    assert set(result.loc[result["group"] == "x", "split"]) == {"train"}
    assert tables.warnings(result) == [
        "ja has no female utterance in dev: no gap is defined there."
    ]


@pytest.mark.parametrize(
    ("speakers", "wrong", "word"),
    [
        (1, {}, "two groups"),
        (4, {"folds": 1}, "folds"),
        (4, {"folds": 2, "test": True}, "at least 3"),
        (4, {"fold": 4}, "0 to 3"),
        (4, {"fold": -1}, "0 to 3"),
    ],
)
def test_a_split_that_cannot_be_is_refused_in_a_sentence(speakers, wrong, word):
    with pytest.raises(UserError, match=word):
        assign(even("en", speakers=speakers), **{"seed": 0, **wrong})


def test_every_fold_of_real_speech_has_unseen_speakers_of_both_genders_in_both_languages(
    shared_data,
):
    names = [f"{name}={shared_data / name}" for name in ("emodb", "ravdess")]
    table = corpora.load(names, labels=MELD_LABELS).table
    for fold in range(4):
        result = assign(table, seed=0, fold=fold, folds=4)
        assert not sides(result)["dev"] & sides(result)["train"]
        speakers = result.groupby(["split", "language", "gender"])["speaker"].nunique()
        assert speakers["dev"]["de"].to_dict() == {"female": 1, "male": 1}
        assert speakers["dev"]["en"].sum() == 3 and speakers["dev"]["en"].min() == 1


def conflicting(open_speakers: int, *, speakers: int = 4) -> pd.DataFrame:
    """One utterance of each of the first speakers is test, all others have no split."""
    table = even("en", speakers=speakers, clips=10)
    chosen = pd.unique(table["group"])[:open_speakers]
    for group in chosen:
        table.loc[table.index[table["group"] == group][0], "split"] = "test"
    return table


def test_rows_that_follow_their_speaker_are_counted_and_named():
    table = conflicting(3, speakers=6)
    followed, (note,) = complete_groups(table)
    assert note.startswith("3 speakers ('en_female_0', 'en_female_1', 'en_female_2') are in test")
    assert "27 of these were moved to test" in note
    assert (followed["split"] == "test").sum() == 30 and (followed["split"] == "").sum() == 90
    result = assign(table, seed=0)
    assert set(result.loc[followed["split"] == "test", "split"]) == {"test"}
    assert complete_groups(result)[1] == []


def test_one_row_that_follows_is_said_in_the_singular_and_groups_are_called_groups():
    table = conflicting(1)
    table = table[(table["split"] == "test") | (table["utterance_id"].str.contains("/[1]$"))]
    assert "1 of these was moved to test" in complete_groups(table)[1][0]
    table["speaker"] = "x"
    assert complete_groups(table)[1][0].startswith("1 group ('en_female_0') is in test")


def test_rows_move_to_every_split_with_a_note_for_each():
    table = even("en", speakers=4, clips=10)
    for group, split in (("en_female_0", "train"), ("en_male_0", "dev"), ("en_male_1", "dev")):
        table.loc[table.index[table["group"] == group][0], "split"] = split
    notes = complete_groups(table)[1]
    assert [("9 of these" in note, "18 of these" in note) for note in notes] == [
        (False, True),
        (True, False),
    ]


def test_nothing_moves_where_splits_are_whole_or_open():
    table = even("en", speakers=4)
    assert complete_groups(table)[1] == []
    assert complete_groups(assign(table, seed=0))[1] == []


def test_a_gap_that_is_lost_to_moved_rows_is_refused_with_that_cause():
    with pytest.raises(UserError) as refused:
        assign(conflicting(4), seed=0)
    text = str(refused.value)
    assert "no language has female and male utterances in both train and dev" in text
    assert "because 4 speakers (" in text and "36 of these were moved to test" in text
    assert "two groups of each gender" not in text and text.endswith(".") and "\n" not in text


def test_moved_rows_are_no_cause_where_there_was_no_gap_before():
    table = make({"a": ("en", "female", 9), "b": ("en", "male", 9)})
    table.loc[table.index[0], "split"] = "train"
    with pytest.raises(UserError, match="measured; give a language two groups of each gender"):
        assign(table, seed=0)


def test_a_split_column_without_dev_is_named_as_the_cause():
    table = even("en", speakers=4).assign(split="train")
    table.loc[table["group"] == "en_male_3", "split"] = "test"
    with pytest.raises(UserError, match="only train and test; leave those of train empty"):
        assign(table, seed=0)


def test_speakers_that_are_given_two_splits_are_counted_and_named():
    table = even("en", speakers=4).assign(split="train")
    table.loc[table["utterance_id"].str.endswith("/0"), "split"] = "test"
    with pytest.raises(UserError, match=r"8 speakers \(.* and 5 more\) are in the splits test and"):
        tables.check(table)
