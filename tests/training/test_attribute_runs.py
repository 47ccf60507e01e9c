"""Runs whose cells have other sides than two genders: another attribute, crossed, of languages."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny_run
from fake_sweep import LABELS as NAMES
from fake_sweep import predictions, utterances
from tiny_run import LABELS, WINDOW_S, Trained, job

from ermgap import attributes, metrics
from ermgap.config import CHANCE_GAP, Config
from ermgap.distributed import World
from ermgap.training import model_card
from ermgap.training.batch_sampler import epoch_batches
from ermgap.training.context import prepare
from ermgap.training.trainer import Training

SETTINGS = {"data.labels": list(LABELS), "backbone.name": "random-tiny"}
SETTINGS |= {"backbone.window_s": WINDOW_S, "backbone.dtype": "float32"}
ACCENTS = ("north", "south", "west")
CROSSED = tuple(f"{gender} & {accent}" for gender in ("female", "male") for accent in ACCENTS)
SIDES = {
    ("accent",): ACCENTS,
    ("gender", "accent"): CROSSED,
    ("language", "gender"): ("de & female", "de & male", "en & female", "en & male"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    """60 tones of which every seventh has no known accent."""
    table = tiny_run.tones(tmp_path_factory.mktemp("tones"))
    accents = [ACCENTS[i % 3] if i % 7 else "" for i in range(len(table))]
    return table.assign(accent=accents)


@pytest.fixture(scope="module")
def room_of(table, tmp_path_factory):
    """Backbone and training context for an attribute, prepared as a sweep's worker does it."""
    cache = tmp_path_factory.mktemp("features")

    def prepared(attribute: tuple[str, ...], changed: pd.DataFrame = table, least: int = 5):
        settings = SETTINGS | {"objective.attribute": list(attribute), "data.min_support": least}
        given = {"config": Config().replace(settings).to_dict(), "table": changed}
        return prepare(given | {"storage": "", "features": cache}, World(), lambda text: None)

    return prepared


def spec_of(attribute: tuple[str, ...], **changes):
    changed = {f"objective.{key}": value for key, value in changes.items()}
    return job(SETTINGS | {"objective.attribute": list(attribute), "train.epochs": 2} | changed)


def test_a_side_of_few_training_utterances_is_in_the_mean_loss_and_in_no_penalty(room_of, table):
    rare = table["accent"].eq("west") & (table.groupby(["language", "accent"]).cumcount() >= 3)
    changed = table.assign(accent=table["accent"].mask(rare, "south"))
    _, context = room_of(("accent",), changed, least=2)
    train = context.train
    west, unknown = ACCENTS.index("west"), len(ACCENTS)
    assert (train.group_counts()[:, west] == 0).all()
    was_west = (train.table["accent"] == "west").to_numpy()
    assert was_west.any() and (train.side[was_west] == unknown).all()
    kept = (train.table["accent"].isin(["north", "south"])).to_numpy()
    assert (train.side[kept] == attributes.codes(train.table, ("accent",), ACCENTS)[kept]).all()


def test_of_two_sides_a_rare_one_is_compared_as_before(room_of, table):
    rare = table["gender"].eq("male") & (table.groupby("gender").cumcount() >= 3)
    _, context = room_of(("gender",), table.assign(gender=table["gender"].mask(rare, "female")))
    assert not context.train.any_unknown


@pytest.mark.parametrize("attribute", list(SIDES), ids=attributes.title)
def test_cells_sides_and_counts_are_those_of_the_attribute(room_of, attribute):
    _, context = room_of(attribute)
    examples, languages = context.train, ["all"] if "language" in attribute else ["de", "en"]
    assert context.cells == [(language, "speech") for language in languages]
    assert examples.sides == context.dev.sides == SIDES[attribute]
    rows = examples.table.reset_index(drop=True)
    wanted = np.zeros((len(languages), len(examples.sides)), dtype=int)
    unknown = 0
    for row in rows.itertuples():
        side = " & ".join(getattr(row, name) for name in attribute)
        if "accent" in attribute and not row.accent:
            unknown += 1
            assert examples.side[row.Index] == len(examples.sides)
            continue
        assert examples.sides[examples.side[row.Index]] == side
        wanted[examples.cell[row.Index], examples.sides.index(side)] += 1
    assert examples.group_counts().tolist() == wanted.tolist()
    assert examples.any_unknown == (unknown > 0) == ("accent" in attribute)
    assert wanted.sum() + unknown == len(examples)


def test_where_language_is_an_attribute_prompts_are_still_in_the_utterance_s_own(room_of):
    speech, context = room_of(("language", "gender"))
    _, plain = room_of(("accent",))
    for ours, other in zip(context.train.before, plain.train.before, strict=True):
        assert ours.tolist() == other.tolist()


@pytest.mark.parametrize("attribute", list(SIDES), ids=attributes.title)
@pytest.mark.parametrize("loss", ["minmaxgap", "groupdro"])
def test_a_run_reports_every_side_and_resumes_bit_equal(room_of, tmp_path, attribute, loss):
    room, more = room_of(attribute), {"loss": loss, "estimator": "ema", "sides": "worse", "p": 1.0}
    whole = Trained(room, spec_of(attribute, **more), tmp_path / "whole")
    assert whole.failure is None and len(whole.rows) == 2
    cells = ["/".join(cell) for cell in room[1].cells]
    for row in whole.rows:
        names = {f"{cell}/{side}" for cell in cells for side in SIDES[attribute]}
        assert set(row["losses"]) == names and np.isfinite(list(row["losses"].values())).all()
        assert row["raised_share"] == 0
        assert set(metrics.side_counts(row["dev"]["gaps"][cells[0]])) == set(SIDES[attribute])
    first = Trained(room, spec_of(attribute, **more), tmp_path / "parts", until=1)
    changed = {f"objective.{key}": value for key, value in more.items()}
    changed |= {"objective.attribute": list(attribute), "train.epochs": 2}
    rest = Trained(room, job(SETTINGS | changed, epoch=1), tmp_path / "parts")
    assert first.results + rest.results == whole.results and rest.files == whole.files


@pytest.mark.parametrize("attribute", [("accent",), ("gender", "accent")], ids=attributes.title)
def test_sums_of_an_epoch_hold_the_unknown_in_a_last_column(room_of, attribute):
    speech, context = room_of(attribute)
    training = Training(spec_of(attribute), speech=speech, context=context, world=World())
    training.state.begin_epoch()
    sums, _, _ = training.train_epoch()
    sides = len(SIDES[attribute])
    assert sums.shape == (3, 2, sides + 1) and sums[2].sum() == len(context.train)
    assert sums[2, :, :sides].tolist() == context.train.group_counts().tolist()


def test_every_side_and_the_unknown_are_spread_over_the_batches(room_of):
    speech, context = room_of(("accent",))
    training = Training(spec_of(("accent",)), speech=speech, context=context, world=World())
    batches = epoch_batches(training.strata, batch=9, seed=0, epoch=1)
    assert len(np.unique(training.strata)) == 2 * (len(ACCENTS) + 1)
    for stratum in np.unique(training.strata):
        shares = [int((training.strata[rows] == stratum).sum()) for rows in batches]
        assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("cells", [1, 3])
def test_batches_of_two_known_sides_do_not_depend_on_there_being_a_place_for_unknown_ones(cells):
    random = np.random.default_rng(0)
    cell, side = random.integers(cells, size=200), random.integers(2, size=200)
    for epoch in (1, 2):
        given = {"batch": 16, "seed": 3, "epoch": epoch}
        former, ours = (epoch_batches(cell * n + side, **given) for n in (2, 3))
        assert [rows.tolist() for rows in former] == [rows.tolist() for rows in ours]


@pytest.mark.parametrize(
    ("dev", "reason"),
    [
        ({"accent": "west"}, "on dev no cell has utterances of two sides of accent"),
        ({}, "on dev no cell has two sides of accent with 99 utterances of 2 speakers each"),
    ],
)
def test_an_undefined_gap_names_the_attribute(room_of, table, tmp_path, dev, reason):
    changed = table.copy()
    for name, value in dev.items():
        changed.loc[changed["split"] == "dev", name] = value
    spec = job(SETTINGS | {"objective.attribute": ["accent"], "data.cell_support": 99,
                           "data.speaker_support": 2})  # fmt: skip
    run = Trained(room_of(("accent",), changed), spec, tmp_path)
    assert reason in run.failure and "gender" not in run.failure and not run.rows


def test_the_card_speaks_of_the_attribute_and_of_nothing_else(tmp_path):
    frame = utterances().assign(synthetic=False, path="clip.wav")
    frame = frame.assign(split=["train", "train", "dev", "dev", "train"] * (len(frame) // 5))
    frame = frame.assign(accent=[("", *ACCENTS)[i % 4] for i in range(len(frame))])
    heard = predictions(frame, right=0.6, handicap=0.2, seed=0).assign(accent=frame["accent"])
    changes = {"objective.attribute": ["accent"], "objective.loss": "minmaxgap"}
    changes |= {"data.labels": list(NAMES), "data.provenance": {"accent": "annotated"}}
    settings = Config().replace(changes)
    dev = metrics.evaluate(heard[heard["split"] == "dev"], labels=NAMES, **settings.compared)
    facts = model_card.CardFacts("t1", settings, frame, dev, 1, "", {"speech": {"": "?"}})
    model_card.write(tmp_path, facts=facts)
    page = (tmp_path / "README.md").read_text().replace(CHANCE_GAP, "")
    assert "Where attributes come from: accent annotated." in page
    assert "| cell | n north | n south | n west |" in page
    assert "| split | language | accent | utterances | speakers |" in page
    assert "| dev | de | unknown |" in page and "max_accent_gap" in page
    assert "| `attribute` | accent |" in page
    assert not [word for word in ("gender", "female", "male", "women") if word in page.lower()]
    assert model_card.read(tmp_path)["data"]["provenance"] == {"accent": "annotated"}
