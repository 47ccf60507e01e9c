"""The dial of a sweep: which lines, what is written, and what a user hears of a mistake."""

from __future__ import annotations

import argparse
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny_run
from saved_adapters import saved
from tiny_run import LABELS, WINDOW_S

from ermgap import config, metrics, predict
from ermgap.adapters import config_of, lower_end
from ermgap.baselines import SYSTEMS, Context
from ermgap.errors import UserError
from ermgap.records import POSITIONS, Mirror, Records, bucket_mirror, dial_id, file_names
from sweeps import dial as command
from sweeps.running import run_sweep
from sweeps.scoring import dial

LOGP = [f"logp_{label}" for label in LABELS]
# Of t0000 ...: loss, accuracy, largest gap.
TRIALS = [("erm", 0.7, 0.3), ("minmaxgap", 0.6, 0.1), ("minmaxgap", 0.65, 0.2), ("erm", 0.6, 0.3)]

CONFIG = config.Config().replace(
    {
        "backbone.name": "random-tiny",
        "backbone.window_s": WINDOW_S,
        "backbone.dtype": "float32",
        "data.labels": list(LABELS),
        "data.min_support": 1,
        "adapter.r": 3,
        "sweep.dial": True,
        "sweep.trials": len(TRIALS),
        "sweep.device": "cpu",
    }
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A sweep with rows and adapters of every trial, and predictions of the first."""
    place = tmp_path_factory.mktemp("store")
    table = tiny_run.tones(place / "tones", train=1, dev=2)
    described = {
        "kind": "sweep",
        "config": CONFIG.to_dict(),
        "objectives": ["acc", "max_gap"],
        "directions": {"acc": "max", "max_gap": "min"},
        "reference_point": {"acc": 0.3, "max_gap": 0.3},
        "majority_rate": 0.3,
        "trials": len(TRIALS),
        "labels": list(LABELS),
    }
    records = Records.create(place / "sweep", sweep=described, table=table)
    for number, (loss, acc, gap) in enumerate(TRIALS):
        name = f"t{number:04d}"
        scores = {"acc": acc, "max_gap": gap, "w_f1": acc, "worst_group_w_f1": acc}
        row = {"trial_id": name, "attempt": 1, "epoch": 1, "config": {"loss": loss}, "dev": {}}
        row |= {"status": "finished", "selected": {"epoch": 1, "max_loss_gap": 0.1} | scores}
        records.append(row | {"seconds": 3.0, "eval_seconds": 0.1})
        saved(records.storage / "adapters" / name, CONFIG, seed=number)
    return records


@pytest.fixture
def records(template, tmp_path, monkeypatch):
    """A copy of it; features are kept beside it for all tests."""
    shutil.copytree(template.directory, tmp_path / "sweep")
    monkeypatch.setenv("ERMGAP_CACHE", str(template.directory.parent / "cache"))
    return Records.open(tmp_path / "sweep")


def make(records: Records, lines, positions=(0.0, 0.5, 1.0), **given) -> None:
    dial.require(records, lines)
    dial.make(records, CONFIG, lines, address=None, positions=positions, **given)


# Which lines --------------------------------------------------------------------------------------


def test_lines_go_from_the_best_erm_to_fair_trials_on_the_front_fairest_first(records):
    assert dial.default_lines(records) == [("t0000", "t0001"), ("t0000", "t0002")]
    shutil.rmtree(records.storage / "adapters" / "t0002")
    assert dial.default_lines(records) == [("t0000", "t0001")]
    shutil.rmtree(records.storage / "adapters" / "t0001")
    assert dial.default_lines(records) == []


def again(records: Records, trial_id: str, *, selected=(), **changes) -> None:
    """Commit the last row of a trial once more, changed."""
    row = next(trial for trial in records.trials() if trial.trial_id == trial_id).rows[-1]
    records.append(row | changes | {"selected": row["selected"] | dict(selected)})


def test_where_erm_beats_every_fair_trial_the_best_of_these_are_taken(records):
    again(records, "t0000", selected={"max_gap": 0.05})
    assert dial.default_lines(records) == [("t0000", "t0001"), ("t0000", "t0002")]


def test_a_branch_is_joined_to_its_trunk(records):
    again(records, "t0002", epoch=2, branch_from={"trial": "t0003", "epoch": 1})
    assert dial.default_lines(records) == [("t0000", "t0001"), ("t0003", "t0002")]


def test_there_are_few_lines_and_every_branch(records):
    row = records.rows()[0]
    for number in range(4, 12):
        name, acc = f"t{number:04d}", 0.6 + number / 1000
        chosen = {"acc": acc, "w_f1": acc, "max_gap": acc - 0.5}
        made = row | {"trial_id": name, "config": {"loss": "minmaxgap"}}
        if number == 5:
            made["epoch"], made["branch_from"] = 2, {"trial": "t0000", "epoch": 1}
        records.append(made | {"selected": row["selected"] | chosen})
        shutil.copytree(records.storage / "adapters/t0001", records.storage / "adapters" / name)
    uppers = [upper for _, upper in dial.default_lines(records)]
    assert len(uppers) == dial.MOST + 1 and "t0005" in uppers
    assert (uppers[0], uppers[-1]) == ("t0001", "t0002")


def test_a_sweep_makes_the_lines_that_take_under_a_tenth_of_its_epochs(records):
    lines = [("t0000", "t0001"), ("t0000", "t0002"), ("t0003", "t0002")]
    assert dial.affordable(records, lines) == lines[:1]  # 12 s; a line is 1.4 s
    again(records, "t0003", epoch=2, seconds=30.0)
    assert dial.affordable(records, lines) == lines
    assert dial.affordable(records, []) == []


# What is written ----------------------------------------------------------------------------------


def test_rows_and_predictions_are_those_of_the_model_at_each_position(records, capsys):
    line = ("t0000", "t0001")
    make(records, [line])
    assert [row["position"] for row in records.dial()] == [0.0, 0.5, 1.0]
    assert "3 positions from t0000 to t0001" in capsys.readouterr().out
    folders = ":".join(str(folder) for folder in dial.folders_of(records, line))
    system = SYSTEMS.find("dial")(f"0.5:{folders}", Context(LABELS, CONFIG, "cpu", records.storage))
    dev = records.table().query("split == 'dev'")
    wanted = system.predict(dev, modality="speech").drop(columns="position")
    for row in records.dial():
        answers = records.predictions(row["id"])
        dev = metrics.evaluate(answers, labels=LABELS, **CONFIG.data.support)
        assert row["dev"]["acc"] == pytest.approx(dev["acc"])
        assert row["dev"]["gaps"].keys() == dev["gaps"].keys()
        assert row["seconds"] >= 0 and row["id"] == dial_id(*line, row["position"])
        if row["position"] == 0.5:
            pd.testing.assert_frame_equal(answers, wanted, rtol=1e-4)


def test_the_ends_are_the_predictions_of_their_trials_where_these_are_kept(records):
    make(records, [("t0000", "t0001")], positions=(0.5,))
    kept = records.predictions(dial_id("t0000", "t0001", 0.5)).assign(prediction="joy")
    path = records.storage / "predictions" / "t0000.parquet"
    kept.to_parquet(path, index=False)
    make(records, [("t0000", "t0001")])
    assert (records.predictions(dial_id("t0000", "t0001", 0.0))["prediction"] == "joy").all()
    assert len(records.dial()) == 3


def test_what_has_a_row_is_not_made_again_and_what_lost_it_is(records, monkeypatch):
    line = ("t0000", "t0001")
    make(records, [line])
    path = records.directory / file_names.DIAL
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:20])  # a kill in the middle of a row
    asked = []
    original = dial.evaluator.ask
    monkeypatch.setattr(
        dial.evaluator, "ask", lambda spec, *a, **k: asked.append(spec) or original(spec, *a, **k)
    )
    make(records, [line])
    make(records, [line])
    assert [spec.split(":")[0] for spec in asked] == ["dial=0.5,1"]
    rows = {row["id"]: row["dev"] for row in records.dial()}
    before = {(row := json.loads(line))["id"]: row["dev"] for line in lines}
    assert rows == before


def test_workers_of_a_cluster_are_asked_one_request_a_line(records, monkeypatch):
    asked = []

    def on_workers(requests, *, done, address, **given):
        asked.extend(requests)
        context = Context(LABELS, CONFIG, "cpu", records.storage)
        for request in requests:
            done(request, dial.evaluator.ask(request.spec, request.utterances, context=context,
                                             note=print))  # fmt: skip

    monkeypatch.setattr(dial.evaluation, "on_workers", on_workers)
    lines = dial.default_lines(records)
    dial.make(records, CONFIG, lines, address="auto", positions=(0.0, 1.5))
    assert len(asked) == len(lines) == 2
    assert len(records.dial()) == 4 and "system" not in records.predictions("t0000-t0001@1.5")


def test_in_a_bucket_rows_and_predictions_are_there_for_another_machine(records, bucket, tmp_path):
    uri = f"{bucket.uri}/dial"
    records.write_sweep(records.sweep | {"storage": uri})
    for path in (records.directory / "adapters").glob("*/*"):
        records.store.upload(str(path.relative_to(records.directory)))
    shutil.rmtree(records.directory / "adapters")
    with Mirror(records):
        pass
    make(records, [("t0000", "t0001")])
    there = Records.open(bucket_mirror.restore(uri, tmp_path / "elsewhere"))
    assert there.dial() == records.dial() and len(there.dial()) == 3
    assert len(there.predictions("t0000-t0001@0.5")) == 24
    upper = there.store.fetch_folder("adapters/t0001")
    there.store.fetch_folder("adapters/t0000")
    assert lower_end(upper).resolve() == (upper.parent / "t0000").resolve()


# Prediction and export ----------------------------------------------------------------------------


def test_predict_answers_at_a_position_and_the_exported_adapter_does_the_same(records, tmp_path):
    upper, out = records.storage / "adapters" / "t0001", tmp_path / "mixed"
    clips = list(records.table().query("split == 'dev'")["path"])[:6]
    given = ["--sweep", str(records.directory), "--ends", "t0000", "t0001"]
    assert command.main([*given, "--export", "0.7", "--out", str(out)]) == 0
    assert [row["position"] for row in records.dial()] == [0.7]
    at = predict.predict(upper, clips, dial=0.7)
    columns = [f"p_{label}" for label in LABELS]
    exported = predict.predict(out, clips)[columns]
    np.testing.assert_allclose(at[columns], exported, atol=1e-5)
    own = predict.predict(upper, clips)[columns]
    np.testing.assert_allclose(predict.predict(upper, clips, dial=1)[columns], own, atol=1e-5)
    assert np.abs(exported - own).to_numpy().max() > 1e-3
    assert config_of(out).adapter.r == 6
    card = (out / "README.md").read_text()
    assert "position 0.7 on the line from trial t0000 (0) to trial t0001 (1)" in card
    assert json.loads((out / "ermgap.json").read_text())["line"] == ["t0000", "t0001", 0.7]
    with pytest.raises(UserError, match="holds something already"):
        command.main([*given, "--export", "0.7", "--out", str(out)])


def test_predict_without_a_line_says_how_to_make_one(records):
    with pytest.raises(UserError, match=r"is the upper end of no dial.*sweeps/dial\.py"):
        predict.predict(records.storage / "adapters" / "t0001", ["clip.wav"], dial=0.5)


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--ends", "t0000"], "needs the lower end and an upper one"),
        (["--ends", "t0000", "t0009"], "has no trial t0009; its trials are t0000"),
        (["--ends", "t0000", "t0000"], "both ends of a line are t0000"),
        (["--ends", "t0000", "t0003"], "t0003 has no saved adapter"),
        (["--ends", "t0000", "t0001", "--export", "0.5"], "--out FOLDER belong together"),
        (["--export", "0.5", "--out", "x"], "--export is of one line; .*t0000 t0001; t0000 t0002"),
        (["--ends", "t0000", "t0001", "--export", "2", "--out", "x"], "position 2 is not possible"),
    ],
)
def test_mistakes_are_a_sentence(records, arguments, message):
    shutil.rmtree(records.storage / "adapters" / "t0003")
    with pytest.raises(UserError, match=message):
        command.main(["--sweep", str(records.directory), *arguments])
    assert records.dial() == []


def test_an_end_that_still_trains_or_another_prompt_is_a_mistake(records):
    again(records, "t0002", status="running")
    with pytest.raises(UserError, match="t0002 has not ended"):
        dial.require(records, [("t0000", "t0002")])
    path = records.storage / "adapters" / "t0001" / "ermgap.json"
    values = json.loads(path.read_text())
    values["prompt"]["texts"] = {"speech": {"": "Other {audio}"}}
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="they differ in their prompt"):
        dial.require(records, [("t0000", "t0001")])


# As the last step of a sweep ----------------------------------------------------------------------


def last_step(records: Records, settings=CONFIG, **session) -> argparse.Namespace:
    given = argparse.Namespace(interrupted=False, dial=0.0, **session)
    run_sweep.make_dial(settings, records, given, address=None)
    return given


def test_a_sweep_ends_with_its_dial_and_a_second_time_nothing_is_made(records, capsys):
    assert last_step(records).dial > 0
    assert len(records.dial()) == len(POSITIONS)
    assert {row["lower"] for row in records.dial()} == {"t0000"}
    capsys.readouterr()
    last_step(records)
    assert capsys.readouterr().out == ""


def test_no_dial_is_made_of_points_or_before_the_end_and_without_a_line_it_is_said(records, capsys):
    last_step(records, CONFIG.replace({"sweep.dial": False}))
    last_step(records, CONFIG.replace({"sweep.points": {"a": {"loss": "erm"}}}))
    last_step(records, CONFIG.replace({"sweep.trials": 5}))
    assert records.dial() == [] and capsys.readouterr().out == ""
    shutil.rmtree(records.storage / "adapters")
    last_step(records)
    assert capsys.readouterr().out.startswith("no dial: ")


@pytest.mark.parametrize("problem", [UserError("no room."), RuntimeError("no memory\n at")])
def test_what_goes_wrong_hinders_no_report_and_ctrl_c_leaves_it_to_resume(
    records, problem, monkeypatch, capsys
):
    def fail(*given, **options):
        raise problem

    monkeypatch.setattr(dial.evaluator, "ask", fail)
    assert not last_step(records).interrupted
    assert capsys.readouterr().out.startswith("no dial: ")
    problem = KeyboardInterrupt()
    assert last_step(records).interrupted
    monkeypatch.undo()
    assert not last_step(records).interrupted and records.dial()
