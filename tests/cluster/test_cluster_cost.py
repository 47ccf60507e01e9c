"""cluster/cost.py by its properties: what must hold between plans, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
import subprocess
import sys

import cluster_files as files
import numpy as np
import pytest

SPEC = importlib.util.spec_from_file_location("cluster_cost", files.CLUSTER / "cost.py")
cost = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = cost  # dataclasses look their module up
SPEC.loader.exec_module(cost)

RESULTS = files.ROOT / "tests" / "benchmarks" / "results"
LEAST = ["--utterances", "100", "--epochs", "2", "--trials", "3", "--price", "1"]


def plans(count: int = 200) -> list:
    """Random sweeps that fit their GPUs."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(count):
        workers = int(rng.integers(1, 5))
        drawn.append(
            cost.Sweep(
                utterances=int(rng.integers(1, 50_000)),
                dev=int(rng.integers(0, 5_000)),
                epochs=int(rng.integers(1, 30)),
                trials=int(rng.integers(1, 500)),
                rate=float(rng.uniform(1, 300)),
                dev_rate=float(rng.uniform(1, 600)),
                extract_rate=[None, float(rng.uniform(1, 300))][int(rng.integers(2))],
                modalities=int(rng.integers(1, 3)),
                gpus=workers * int(rng.integers(1, 17)),
                workers=workers,
                saved=float(rng.uniform(0, 0.9)),
                price=float(rng.uniform(0, 10)),
                head_price=float(rng.uniform(0, 1)),
            )
        )
    return drawn


def test_no_more_is_worked_than_is_paid_and_no_gpu_is_held_without_a_slot():
    for sweep in plans():
        found = cost.estimate(sweep)
        held = found.at_once * sweep.workers
        assert found.busy_gpu_h <= found.paid_gpu_h
        assert held <= sweep.gpus and 1 <= found.at_once <= sweep.trials
        assert found.wall_h * held <= found.paid_gpu_h
        assert found.gpu_dollars == pytest.approx(found.paid_gpu_h * sweep.price)
        # All trials fit into the time, and one round less would not hold them.
        rounds = math.ceil(sweep.trials / found.at_once)
        assert rounds * found.at_once >= sweep.trials > (rounds - 1) * found.at_once
        assert found.wall_h >= rounds * found.trial_h


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 2.0},
        {"dev_rate": 2.0},
        {"utterances": 0.5},
        {"epochs": 0.5},
        {"price": 0.5},
        {"head_price": 0.5},
        {"start_minutes": 0.5},
        {"idle_minutes": 0.5},
    ],
)
def test_faster_fewer_or_cheaper_never_costs_more(change):
    ((name, factor),) = change.items()
    for sweep in plans(50):
        value = getattr(sweep, name) * factor
        value = max(1, int(value)) if isinstance(getattr(sweep, name), int) else value
        less = cost.estimate(dataclasses.replace(sweep, **{name: value}))
        before = cost.estimate(sweep)
        assert less.gpu_dollars + less.head_dollars <= before.gpu_dollars + before.head_dollars
        assert less.wall_h <= before.wall_h


def test_more_gpus_never_take_longer():
    for sweep in plans(50):
        more = dataclasses.replace(sweep, gpus=2 * sweep.gpus)
        assert cost.estimate(more).wall_h <= cost.estimate(sweep).wall_h


def test_a_sweep_worked_out_by_hand():
    sweep = cost.Sweep(
        utterances=3_600, dev=1_800, epochs=10, trials=5, rate=10, dev_rate=20, gpus=2, workers=1,
        saved=0.5, price=2, head_price=1, start_minutes=30, idle_minutes=30,
    )  # fmt: skip
    found = cost.estimate(sweep)
    assert found.epoch_s == 360 + 90
    assert found.trial_h == pytest.approx(0.625)  # half of ten epochs
    assert found.wall_h == pytest.approx(0.5 + 3 * 0.625)  # three rounds of two
    assert found.paid_gpu_h == pytest.approx(2 * (0.5 + 3 * 0.625 + 0.5))
    assert found.gpu_dollars + found.head_dollars == pytest.approx(2.875 * 5)
    assert found.dollars_an_hour == 5


@pytest.mark.parametrize("path", sorted(RESULTS.glob("gpu-*.json")), ids=lambda path: path.name)
def test_measured_rates_are_those_of_the_file(path):
    told = json.loads(path.read_text())["summary"]["runs"]["ours"]
    sweep, source = cost.read([*LEAST, "--measured", str(path)])
    assert sweep.rate == told["train_utterances_per_second"]
    assert sweep.dev_rate == told["eval_utterances_per_second"]
    assert source == str(path)
    # What is typed beside it wins.
    assert cost.read([*LEAST, "--measured", str(path), "--dev-rate", "9"])[0].dev_rate == 9


def test_the_share_that_early_stopping_saves_is_as_measured():
    rows = (RESULTS / "search-stopping.md").read_text().splitlines()
    saved = [int(found[1]) for row in rows if (found := re.search(r"\| (\d+) % \|", row))]
    helped = " ".join(cost.parser().format_help().split())
    assert f"{min(saved) / 100:.2f} to {max(saved) / 100:.2f} in replays" in helped
    assert cost.Sweep.saved == 0


def test_the_idle_time_is_that_of_the_cluster_files():
    for name in ("gpu.yaml", "gcp.yaml"):
        assert files.load(name)["idle_timeout_minutes"] == cost.Sweep.idle_minutes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (LEAST, "--rate or by --measured"),
        ([*LEAST, "--rate", "1", "--measured", "x"], "--rate or by --measured"),
        ([*LEAST, "--measured", "nowhere.json"], "nowhere.json"),
        ([*LEAST, "--measured", str(files.CLUSTER / "head-policy.json")], "head-policy.json"),
        ([*LEAST, "--measured", str(files.CLUSTER / "gpu.yaml")], "gpu.yaml"),
        ([*LEAST, "--rate", "0"], "--rate"),
        ([*LEAST, "--rate", "fast"], "--rate"),
        ([*LEAST, "--rate", "inf"], "--rate"),
        ([*LEAST, "--rate", "5", "--saved", "1"], "--saved"),
        ([*LEAST, "--rate", "5", "--trials", "2.5"], "--trials"),
        ([*LEAST, "--rate", "5", "--price", "-1"], "--price"),
        ([*LEAST, "--rate", "5", "--price", "nan"], "--price"),
        ([*LEAST, "--rate", "5", "--workers", "2"], "--workers"),
        ([*LEAST, "--rate", "5", "--gpu", "2"], "--gpu"),
        (["--rate", "5"], "--utterances"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, said, capsys):
    assert cost.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and line.endswith(".") and said in line


def test_a_run_that_the_file_has_not_is_named_beside_those_it_has(capsys):
    path = sorted(RESULTS.glob("gpu-*.json"))[0]
    assert cost.main([*LEAST, "--measured", str(path), "--run", "theirs"]) == 2
    told = capsys.readouterr().err
    assert "'theirs'" in told and "ours" in told


def test_it_runs_alone_and_says_where_its_rates_come_from():
    command = [sys.executable, "-I", files.CLUSTER / "cost.py", *LEAST, "--rate", "35"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0 and "(yours)" in ended.stdout and ended.stderr == ""


def test_figures_of_the_readme_are_what_the_calculator_says():
    readme = files.text("README.md")
    (command,) = re.findall(r"python cluster/cost.py (.*?)\n```", readme, re.S)
    sweep, _ = cost.read(command.replace("\\\n", " ").split())
    found = cost.estimate(sweep)
    dollars = found.gpu_dollars + found.head_dollars
    for figure in (
        f"{found.wall_h:.1f} h",
        f"{found.paid_gpu_h:.0f} GPU-hours",
        f"{dollars:.0f} dollars",
        f"{found.dollars_an_hour:.2f} dollars",
    ):
        assert figure in " ".join(readme.split()), figure
