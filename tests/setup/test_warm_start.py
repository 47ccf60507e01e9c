"""A search that begins with what earlier sweeps found."""

from __future__ import annotations

import shutil

import pytest
from broker_story import create
from optuna.trial import TrialState

from ermgap.config import from_dict
from ermgap.errors import UserError
from ermgap.records import Records
from sweeps.search import order, space, warm_start
from sweeps.search.searcher import RecordsSearcher

POINT = {"loss": "vrex", "schedule": "constant", "lambda_max": 0.1, "relative": False}
POINT |= {"lr": 0.003, "lora_r": 8, "lora_dropout": 0.1}


def ended(folder, *, epochs: int = 6, status: str = "finished"):
    """A sweep with a finished, a stopped, a failed and an unfinished trial."""
    create(folder)
    records = Records.open(folder)
    config = records.sweep["config"] | {"train": {**records.sweep["config"]["train"]}}
    config["train"]["epochs"] = epochs
    records.write_sweep(records.sweep | {"config": config})
    for number, ending in enumerate((status, "stopped", "failed", "running")):
        scores = {"epoch": 1, "acc": 0.5, "max_gap": 0.1, "w_f1": 0.5, "worst_group_w_f1": 0.4}
        records.append({"trial_id": order.trial_id(number), "attempt": 1, "epoch": 1,
                        "status": ending, "reason": None, "config": POINT,
                        "selected": scores})  # fmt: skip
    return records


def config_of(records: Records):
    return from_dict(records.sweep["config"])


def test_it_learns_all_objectives_of_what_ended_even_when_the_old_folder_is_gone(tmp_path):
    old = ended(tmp_path / "old")
    create(tmp_path / "new", objectives=["acc", "max_gap", "worst_group_w_f1"])
    new = Records.open(tmp_path / "new")
    warm_start.require([str(old.directory)], config_of(new))
    warm_start.copy([str(old.directory)], new.directory)
    shutil.rmtree(old.directory)
    earlier = warm_start.trials(new, config_of(new))
    searcher = RecordsSearcher(config_of(new), earlier=earlier)
    known = searcher.study.get_trials()
    assert [trial.state for trial in known] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert known[0].values == [0.5, 0.1, 0.4]
    # They are no trials of the new sweep: its own begin with the baselines, under their own ids.
    assert searcher.suggest("a") == {"trial_id": "t0000", "hyperparameters": space.named_points(
        config_of(new))[0]}  # fmt: skip
    assert searcher.shares.proposed["erm"] == 1


@pytest.mark.parametrize(("epochs", "status"), [(3, "finished"), (6, "failed")])
def test_a_sweep_that_teaches_nothing_is_refused(tmp_path, epochs, status):
    old = ended(tmp_path / "old", epochs=epochs, status=status)
    rows = [row for row in old.rows() if row["status"] != "stopped"]
    (old.directory / "trials.jsonl").unlink()
    for row in rows:
        old.append(row)
    create(tmp_path / "new")
    with pytest.raises(UserError, match="no trial to learn from"):
        warm_start.require([str(old.directory)], config_of(Records.open(tmp_path / "new")))


def test_differences_are_told_and_named_points_refused(tmp_path, capsys):
    old = ended(tmp_path / "old")
    config = config_of(old).replace({"data.corpora": ["emodb=x"], "backbone.window_s": 10})
    warm_start.require([str(old.directory)], config)
    printed = capsys.readouterr().out
    assert "2 trials" in printed and "data.corpora" in printed and "backbone.window_s" in printed
    with pytest.raises(UserError, match="omit it"):
        warm_start.require([str(old.directory)], config.replace({"sweep.points": {"a": {}}}))
