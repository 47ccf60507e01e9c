"""Confirming a front: over fresh seeds, on dev and test, apart from the search."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fake_sweep import write
from real_sweep import ROOT, RealSweep
from scipy import stats

from analysis import confirmed, report
from analysis.front import front
from ermgap import config, corpora
from ermgap.baselines import Context
from ermgap.config import MELD_LABELS, Config
from ermgap.errors import UserError
from ermgap.records import Records
from sweeps.scheduler import evaluator
from sweeps.scoring import confirm

POINTS = [
    {"acc": 0.6, "max_gap": 0.2, "loss": "erm"}, {"acc": 0.5, "max_gap": 0.1},
    {"acc": 0.55, "max_gap": 0.12}, {"acc": 0.4, "max_gap": 0.15},
]  # fmt: skip


@pytest.fixture
def sweep(tmp_path) -> Records:
    return write(tmp_path / "sweep", POINTS, with_predictions=False)


def runs(seeds: int = 4) -> pd.DataFrame:
    """Made-up runs: dev 2 points and test 5 points under what the search saw, with noise."""
    rng, rows = np.random.default_rng(0), []
    for number in (0, 1, 2):
        for seed in range(1, seeds + 1):
            for split, lost in (("dev", 0.02), ("test", 0.05)):
                point = POINTS[number]
                noise = rng.normal(0, 0.01)
                row = {"trial_id": f"t000{number}", "seed": seed, "split": split}
                row |= {"status": "finished", "n": 100, "acc": point["acc"] - lost + noise}
                row |= {"w_f1": 0.5, "max_gap": point["max_gap"] + lost - noise}
                rows.append(row | {"worst_group_w_f1": 0.4, "max_loss_gap": 0.1})
    return pd.DataFrame(rows)


def test_what_is_confirmed_is_the_front_erm_and_the_knee(sweep):
    wanted, positions = confirm.to_confirm(sweep)
    assert list(wanted) == ["t0000", "t0002", "t0001"] and positions == ()
    assert wanted["t0002"] == sweep.trials()[2].hyperparameters


def test_the_table_has_means_and_t_intervals_over_seeds(sweep):
    made, given = confirmed.table(front.info(sweep), runs()), runs()
    for _, row in made.iterrows():
        for split in ("dev", "test"):
            mine = given[(given["trial_id"] == row["trial_id"]) & (given["split"] == split)]
            low, high = stats.t.interval(0.95, 3, mine["acc"].mean(), stats.sem(mine["acc"]))
            assert row[f"acc_{split}"] == pytest.approx(mine["acc"].mean())
            assert row[f"acc_{split}_half"] == pytest.approx((high - low) / 2)
        assert row["acc"] == POINTS[int(row["trial_id"][-1])]["acc"]
    said = " ".join(confirmed.sentences(made))
    assert "accuracy on dev is 2." in said and "gap on test is 4." in said or "5." in said
    assert "over seeds alone" in said


def test_one_seed_that_failed_leaves_no_interval_and_says_how_many_ended(sweep):
    given = runs(2)
    lost = (given["trial_id"] == "t0001") & (given["seed"] == 2)
    given.loc[lost, ["acc", "w_f1", "max_gap", "worst_group_w_f1"]] = np.nan
    given.loc[lost, "status"] = "failed"
    made = confirmed.table(front.info(sweep), given).set_index("trial_id")
    assert made.loc["t0001", "seeds"] == 1 and np.isnan(made.loc["t0001", "acc_dev_half"])
    assert np.isfinite(made.loc["t0001", "acc_dev"])


def test_table_and_picture_are_written(sweep, tmp_path, capsys):
    (sweep.directory / "confirm").mkdir()
    runs().to_parquet(sweep.directory / "confirm" / "confirmed.parquet")
    made = confirmed.write(sweep.directory, tmp_path / "plots")
    folder = tmp_path / "plots" / "sweep"
    assert (folder / "confirm.png").stat().st_size > 10_000
    pd.testing.assert_frame_equal(pd.read_csv(folder / "confirm.csv"), made, check_dtype=False)
    assert "t0001" in capsys.readouterr().out


def test_an_unconfirmed_sweep_says_what_to_do(sweep):
    with pytest.raises(UserError, match="--confirm SEEDS"):
        confirmed.write(sweep.directory)


@pytest.mark.parametrize(
    ("seeds", "points", "word"), [(1, {}, "two seeds"), (3, {"a": {}}, "points")]
)
def test_what_cannot_be_confirmed_is_refused(seeds, points, word):
    with pytest.raises(UserError, match=word):
        confirm.require(seeds, None, Config().replace({"sweep.points": points}), pd.DataFrame())
    confirm.require(None, None, Config().replace({"sweep.points": points}), pd.DataFrame())


def with_test_split(folder) -> Path:
    """A manifest of the demo's clips in which half of the dev speakers are test."""
    table = corpora.load(["demo"], labels=MELD_LABELS, window_s=2).table
    test_speakers = sorted(set(table.loc[table["split"] == "dev", "speaker"]))[::2]
    table.loc[table["speaker"].isin(test_speakers), "split"] = "test"
    table["synthetic"] = 1
    shutil.copytree(Path(table["path"].iloc[0]).parent, folder / "audio")
    table["path"] = [f"audio/{Path(path).name}" for path in table["path"]]
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def in_process_equals(folder: Path, name: str) -> None:
    """What a worker wrote of a trial on test is what this process gets, to the bit."""
    records, trial_id = Records.open(folder), name.split(".")[0]
    given = {**records.sweep["config"], "plugins": []}
    made = config.from_dict(given)
    torch.set_num_threads(2)
    alone = evaluator.ask(
        f"adapter={folder / 'adapters' / trial_id}",
        records.table().query("split == 'test'"),
        context=Context(made.data.labels, made, "cpu", folder),
        note=print,
    )
    kept = pd.read_parquet(folder / "predictions" / name)
    pd.testing.assert_frame_equal(kept, alone, check_exact=True)


@pytest.mark.slow
def test_a_real_sweep_is_confirmed_on_test_and_then_over_one_more_seed(tmp_path):
    file = with_test_split(tmp_path)
    sweep = ["--smoke-test", "--trials", "6", "--data", f"manifest={file}", "--out", "out"]
    sweep += ["--set", "data.limit=300", "--set", "train.epochs=4"]  # enough to beat a constant
    sweep += ["--set", "sweep.dial=false"]
    sweep += ["--set", f"plugins=[{ROOT / 'tests' / 'plugins' / 'loads.py'}]"]
    with RealSweep(tmp_path, "pareto.py", *sweep, "--confirm", "2") as first:
        assert first.ends() == 0, first.said
    main = Records.open(first.out)
    hyperparameters, _ = confirm.to_confirm(main)
    made = pd.read_parquet(first.out / "confirm" / "confirmed.parquet")
    assert set(made["trial_id"]) == set(hyperparameters) and set(made["split"]) == {"dev", "test"}
    assert set(made["seed"]) == {1, 2} and len(made) == 4 * len(hyperparameters)
    test = set(main.table().query("split == 'test'")["utterance_id"])
    for path in (first.out / "predictions").glob("*.parquet"):  # the search never saw them
        assert not test & set(pd.read_parquet(path)["utterance_id"])
    kept = {path.name: path.stat().st_mtime_ns
            for path in (first.out / "confirm" / "predictions").glob("*.test.parquet")}  # fmt: skip
    assert len(kept) == 2 * len(hyperparameters)
    lines = [line.split() for line in (tmp_path / "loads").read_text().splitlines()]
    loaded = [int(pid) for pid, what, _ in lines if what == "base"]
    assert first.process.pid not in loaded
    assert len([pid for pid in loaded if pid not in first.trainers]) == 1  # for every adapter
    in_process_equals(first.out / "confirm", sorted(kept)[0])
    with RealSweep(tmp_path, "pareto.py", "--resume", "out", "--confirm", "3") as again:
        assert again.ends() == 0, again.said
    extended = pd.read_parquet(first.out / "confirm" / "confirmed.parquet")
    assert set(extended["seed"]) == {1, 2, 3}
    same = extended[extended["seed"] < 3].sort_values(["trial_id", "seed", "split"])
    pd.testing.assert_frame_equal(
        same.reset_index(drop=True),
        made.sort_values(["trial_id", "seed", "split"]).reset_index(drop=True),
    )
    for name, before in kept.items():
        path = first.out / "confirm" / "predictions" / name
        assert path.stat().st_mtime_ns == before


def test_the_report_shows_what_is_left_on_test(sweep, tmp_path):
    folder = sweep.directory / "confirm"
    folder.mkdir()
    runs().to_parquet(folder / "confirmed.parquet")
    plots = report.write(sweep.directory, tmp_path / "plots", quiet=True)
    assert (plots / "confirm-front.png").stat().st_size > 10_000
    page = (plots / "report.html").read_text()
    assert "Over fresh seeds, and on test" in page
    info = front.info(sweep)
    said = confirmed.on_test(confirmed.read(info, sweep), "t0000")
    assert said.startswith(" On test, over 4 fresh seeds: accuracy") and said in page
    assert "before any claim" not in page.split("<h2>")[0]
    assert confirmed.on_test(None, "t0000") == confirmed.on_test(runs()[:0], "t0000") == ""


def test_a_damaged_confirmation_does_not_cost_the_report(sweep, tmp_path):
    folder = sweep.directory / "confirm"
    folder.mkdir()
    (folder / "confirmed.parquet").write_bytes(b"junk")
    assert confirmed.read(front.info(sweep), sweep) is None
    report.write(sweep.directory, tmp_path / "plots", quiet=True)
