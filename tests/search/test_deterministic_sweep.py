"""Two real sweeps of one seed: the same rows, and the proposals that the ends of trials lead to."""

from __future__ import annotations

import pytest
from real_sweep import RealSweep

from ermgap.config import from_dict
from ermgap.records import Records
from sweeps.search import order
from sweeps.search.searcher import RecordsSearcher

TIMING = {"time", "seconds", "train_seconds", "eval_seconds", "utterances_per_second"}
TIMING |= {"peak_memory_mb"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "settings",
    [["sweep.slots=1"], ["sweep.slots=2", "sweep.deterministic=true", "sweep.stop_after=1"]],
    ids=["one slot", "two slots"],
)
def test_the_same_seed_gives_the_same_rows_to_the_bit(tmp_path, settings):
    told = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        given = [word for setting in settings for word in ("--set", setting)]
        with RealSweep(
            folder, "pareto.py", "--smoke-test", "--trials", "9", "--out", "out", *given
        ) as sweep:
            assert sweep.ends() == 0, sweep.said
        told.append(by_epoch(sweep.rows()))
    assert len(told[0]) >= 18 and told[0] == told[1]
    records = Records.open(tmp_path / "first" / "out")
    proposed = {trial.trial_id: trial.hyperparameters for trial in records.trials()}
    if settings == ["sweep.slots=1"]:
        assert replayed(records) == proposed


def replayed(records: Records) -> dict[str, dict]:
    """What a searcher proposes that hears, without Ray, how the trials of the records ended."""
    config, rule = from_dict(records.sweep["config"]), records.rule([])
    trials = {trial.trial_id: trial for trial in records.trials()}
    searcher = RecordsSearcher(config, rule=rule, lag=order.lag_of(config, slots=1))
    proposed: dict[str, dict] = {}
    for count, (name, trial) in enumerate(trials.items(), order.concurrent(1)):
        while len(proposed) < min(count, len(trials)):
            offer = searcher.suggest(order.trial_id(len(proposed)))
            proposed[offer["trial_id"]] = offer["hyperparameters"]
        rule.note(name, trial.status, trial.hyperparameters, trial.selected)
        searcher.on_trial_complete(name, trial.selected | {"status": trial.status, "curve": []})
    return proposed


def by_epoch(rows: list[dict]) -> dict:
    """Rows by trial and epoch, without what depends on the clock and on which slot was free."""
    left_out = TIMING | {"slot"}
    return {
        (row["trial_id"], row["epoch"]): {k: v for k, v in row.items() if k not in left_out}
        for row in rows
    }
