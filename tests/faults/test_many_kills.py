"""A driver that is killed twenty times: no trial is lost, run twice or left running.

And two hundred trials with early stopping whose workers die at random.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
import yaml
from broker_story import states
from real_sweep import RealSweep, options, rows

from analysis.front import front
from ermgap.records import ENDED, Records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("ERMGAP_KILLS", "20"))
TRIALS = 24
EPOCHS = 4
SETTINGS = options(
    plugin="slow_steps.py",
    settings=(
        "train.batch=8", "train.patience=9", "sweep.stop_after=2", "sweep.sampler=random",
        "sweep.attempts=99",  # a kill of the driver is no fault of the configuration
    ),
    epochs=EPOCHS,
)  # fmt: skip


def ended_rows(folder: Path) -> dict[str, list[dict]]:
    """The final rows of each trial; there should be one."""
    found: dict[str, list[dict]] = {}
    for row in rows(folder):
        if row["status"] in ENDED:
            found.setdefault(row["trial_id"], []).append(row)
    return found


def test_twenty_kills_lose_nothing_and_run_nothing_twice(tmp_path):
    chance = random.Random(5)
    start = ["--smoke-test", "--trials", str(TRIALS), "--out", "out", *SETTINGS]
    out, left_over, kills = tmp_path / "out", [], 0
    known: dict[str, dict] = {}
    while kills < KILLS:
        resumed = (out / "sweep.yaml").exists()
        with RealSweep(tmp_path, "pareto.py", *(["--resume", "out"] if resumed else start)) as run:
            # From before the folder exists to the middle of an epoch; sometimes after a row.
            patience = chance.uniform(2.0, 30.0)
            before, end = len(rows(out)), time.monotonic() + patience
            while time.monotonic() < end and run.process.poll() is None:
                if chance.random() < 0.002 and len(rows(out)) > before:
                    break
                time.sleep(0.02)
            if run.process.poll() is not None:
                break  # it ended before it was killed
            run.crash()
            kills += 1
            left_over += run.left_over()
        ended = {name: found[0] for name, found in ended_rows(out).items()}
        assert {name: ended[name] for name in known} == known  # nothing that had ended is lost
        known = ended
    while not (out / "DONE").exists():
        with RealSweep(tmp_path, "pareto.py", "--resume", "out") as run:
            assert run.ends() == 0, run.said
            left_over += run.left_over()
    print(f"{kills} kills, {len(known)} trials had ended by the last one")
    final = ended_rows(out)
    assert {name: final[name][0] for name in known} == known
    assert all(len(found) == 1 for found in final.values())  # and none ran to an end twice
    assert len(final) == TRIALS and left_over == []
    assert all(trial.ended for trial in Records.open(out).trials())
    told = states(out)
    assert len(told) == TRIALS and "RUNNING" not in told.values() and "WAITING" not in told.values()
    # The sampler draws by trial number, so that a sweep in peace has the same configurations.
    with RealSweep(
        tmp_path, "pareto.py", *start[: -len(SETTINGS)], *SETTINGS, "--out", "peace"
    ) as run:
        run.out = tmp_path / "peace"
        assert run.ends() == 0, run.said
    of = [{t.trial_id: t.hyperparameters for t in Records.open(tmp_path / name).trials()}
          for name in ("out", "peace")]  # fmt: skip
    assert of[0] == of[1]
    assert kills == KILLS


def test_two_hundred_trials_with_dying_workers_are_all_accounted_for(tmp_path):
    count = int(os.environ.get("ERMGAP_TRIALS", "200"))
    settings = options(
        plugin="dying_workers.py",
        settings=("sweep.stop_after=1", "sweep.attempts=2", "train.batch=16", "train.patience=9"),
        epochs=4,
    )
    begun = time.monotonic()
    with RealSweep(tmp_path, "pareto.py", "--smoke-test", "--trials", str(count), "--out", "out",
                   *settings) as run:  # fmt: skip
        status = run.process.wait(3000)
        seconds = time.monotonic() - begun
        assert status == 0, run.said
        assert "Traceback" not in run.said
    assert run.left_over() == []
    records = Records.open(run.out)
    trials = records.trials()
    assert len(trials) == count and all(trial.ended for trial in trials)
    assert sorted(states(run.out)) == sorted(t.trial_id for t in trials)
    by = {s: sum(t.status == s for t in trials) for s in ENDED}
    deaths = len(list((tmp_path / "deaths").iterdir()))
    steps = ("train_seconds", "eval_seconds")
    trained = sum(row.get(name, 0) for row in rows(run.out) for name in steps)
    slots = yaml.safe_load((records.directory / "sessions.jsonl").read_text())["slots"]
    overhead = (seconds - trained / slots) / count
    print(f"{count} trials, {deaths} workers died, {by}; {seconds:.0f} s in all")
    print(f"{overhead:.2f} s a trial outside training")
    assert deaths >= 0.02 * count and by["stopped"] > 0
    assert {p.trial_id for p in front.info(records).front} <= {t.trial_id for t in trials}
    assert (tmp_path / "left.txt").read_text() == ""  # in Ray's tables, when the driver left it
