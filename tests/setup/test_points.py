"""Named points: the configurations of `sweep.points` alone, in their order, and no search."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml
from fake_sweep import write
from ray.tune.search import Searcher

from ermgap import config
from ermgap.config import Config, differing_keys
from ermgap.errors import UserError
from ermgap.records import Trial
from sweeps.scoring import tables
from sweeps.search import space
from sweeps.search.proposals import PointsSearcher
from sweeps.search.searcher import RecordsSearcher, require_space, searcher
from sweeps.setup import command_line

POINTS = {
    "plain": {"loss": "erm"},
    "rising, slow": {"loss": "minmaxgap", "schedule": "linear", "lambda_max": 0.1, "lr": 1e-3},
    "dotted": {"loss": "minmaxgap", "train.lr": 7e-4, "adapter.targets": ["q_proj"]},
    "last": {"loss": "vrex", "schedule": "constant", "lambda_max": 2.0},
}
IDS = [f"t{number:04d}" for number in range(len(POINTS))]


def settings(points: dict = POINTS) -> Config:
    return Config().replace({"sweep.points": points})


def record(trial_id: str, status: str) -> Trial:
    return Trial(trial_id, status, None, {}, 1, 1, {}, [])


def proposals(one, *, most: int = 20) -> list[dict]:
    """What it proposes until it says that there is no more."""
    made = []
    while (offer := one.suggest(f"tune-{len(made)}")) != Searcher.FINISHED:
        made.append(offer)
        assert len(made) <= most
        one.on_trial_complete(f"tune-{len(made)}", {"status": "finished"})
    return made


# The searcher -------------------------------------------------------------------------------------


def test_points_are_proposed_in_their_order_under_counted_ids_and_nothing_else():
    made = proposals(searcher(settings()))
    assert [offer["trial_id"] for offer in made] == IDS
    assert [offer["hyperparameters"] for offer in made] == list(POINTS.values())


def test_a_sweep_has_the_searcher_of_points_only_where_it_names_some():
    assert isinstance(searcher(settings()), PointsSearcher)
    assert isinstance(searcher(Config()), RecordsSearcher)


@pytest.mark.parametrize("status", ["finished", "stopped", "failed", "degenerate"])
def test_points_that_have_ended_are_not_proposed_again(status):
    trials = [record("t0002", status), record("t0000", "running"), record("t0001", status)]
    assert [offer["trial_id"] for offer in proposals(searcher(settings(), trials))] == [
        "t0000",
        "t0003",
    ]
    ended = [record(name, status) for name in IDS]
    assert proposals(searcher(settings(), ended)) == []


def test_an_interrupted_sweep_proposes_no_more_points():
    points = searcher(settings())
    assert points.suggest("a")["trial_id"] == "t0000"
    points.interrupted = True
    assert points.suggest("b") == Searcher.FINISHED


def test_a_proposal_that_is_changed_does_not_change_the_point():
    given = settings()
    searcher(given).suggest("a")["hyperparameters"]["loss"] = "vrex"
    assert next(iter(given.sweep.points.values())) == {"loss": "erm"}


# The configuration --------------------------------------------------------------------------------


def test_a_point_changes_what_it_names_and_nothing_else():
    base = settings()
    for name, point in POINTS.items():
        made = space.apply(point, base)
        keys = {key if "." in key else space.SPACE[key].key for key in point}
        assert set(differing_keys(base.to_dict(), made.to_dict())) <= keys, name
    dotted = space.apply(POINTS["dotted"], base)
    assert dotted.train.lr == 7e-4 and dotted.adapter.targets == ("q_proj",)
    assert space.apply(POINTS["rising, slow"], base).train.lr == 1e-3


def test_the_points_decide_how_many_trials_there_are(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text(yaml.safe_dump({"sweep": {"points": POINTS, "trials": 40}}, sort_keys=False))
    given = command_line.parse(
        command_line.options("", many=True), ["--preset", str(preset), "--trials", "2"]
    )
    made = command_line.make_config(given)
    assert made.sweep.trials == len(POINTS)
    assert list(made.sweep.points) == list(POINTS)  # as written, not sorted


def test_points_come_back_from_a_sweep_s_yaml_in_their_order():
    text = yaml.safe_dump(settings().to_dict(), sort_keys=False)
    back = config.from_dict(yaml.safe_load(text))
    assert back == settings() and list(back.sweep.points) == list(POINTS)


def test_points_that_can_be_trained_are_not_refused():
    require_space(settings())
    require_space(settings({"as it is": {}}))


MISTAKES = {
    "an unknown hyperparameter": ({"losss": "erm"}, ("losss = erm", "did you mean 'loss'")),
    "an unknown loss": ({"loss": "ermm"}, ("loss = ermm", "'erm'")),
    "an unknown weight": ({"loss": "minmaxgap", "schedule": "up"}, ("schedule = up",)),
    "an unknown dotted key": ({"train.lrr": 1e-3}, ("train.lrr", "train.lr")),
    "an unknown section": ({"training.lr": 1e-3}, ("training",)),
    "a key below a value": ({"train.lr.x": 1}, ("train.lr.x",)),
    "a value that is ruled out": ({"lr": -1}, ("lr = -1", "train.lr")),
    "a value of another type": ({"lambda_max": "much"}, ("lambda_max = much",)),
    "values that do not go together": (
        {"loss": "minmaxgap", "estimator": "unbiased", "p": 1.0},
        ("estimator = unbiased, p = 1.0", "objective.p"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_point_that_cannot_be_trained_is_refused_with_its_values(name):
    point, words = MISTAKES[name]
    with pytest.raises(UserError) as refused:
        require_space(settings({"fine": {"loss": "erm"}, "wrong": point}))
    said = str(refused.value)
    assert all(word in said for word in words) and "\n" not in said, said


def test_a_point_that_is_no_section_is_refused_by_its_name():
    for point in (3, ["erm"], "erm", None):
        with pytest.raises(UserError, match=r"sweep\.points\.mine"):
            settings({"mine": point})


# The table ----------------------------------------------------------------------------------------


def test_the_table_of_points_has_their_names_and_order_whichever_ended_first(tmp_path, capsys):
    trials = [{"acc": 0.5, "max_gap": 0.1}, {"acc": 0.8, "max_gap": 0.1}]
    trials += [{"acc": 0.6, "max_gap": 0.1, "status": "failed", "reason": "not finite"}]
    records = write(tmp_path / "sweep", trials)
    rows = records.directory / "trials.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[::-1]))
    points = {"second": {"loss": "minmaxgap"}, "first": {"loss": "erm"}}
    points |= {"broken": {"loss": "groupdro"}, "lost": {"loss": "vrex"}}
    tables.write_points(settings(points).replace({"data.min_support": 1}), records)
    said = capsys.readouterr().out
    assert "lost has no predictions" in said and "broken has no predictions" in said
    assert "Difference to first" in said
    shown = pd.read_csv(records.directory / "benchmark.csv")
    overall = shown[shown["block"] == "overall/speech"]
    assert list(overall["system"]) == ["second", "first"]
    for number, accuracy in enumerate(overall["acc"]):
        found = records.predictions(f"t{number:04d}")
        assert accuracy == pytest.approx((found["prediction"] == found["label"]).mean())
