"""`--smoke-test` writes every file of a sweep, and leaves nothing else behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import yaml
from real_sweep import SMOKE_TRIALS, RealSweep

from ermgap.records import POSITIONS, Records
from sweeps import pareto

TRIALS = [f"t{number:04d}" for number in range(SMOKE_TRIALS)]
PREDICTED = "utterance_id language modality gender speaker group label prediction split".split()


def events(folder: Path):
    """TensorBoard's own reader over one run, with everything kept."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_the_smoke_test_ends_well(smoke: RealSweep) -> None:
    assert smoke.status == 0, smoke.said
    assert "Traceback" not in smoke.said
    assert (smoke.out / "DONE").exists()


def test_a_finished_folder_of_the_same_name_is_left_as_it_was(smoke: RealSweep) -> None:
    earlier = smoke.out.with_name("out")
    assert sorted(path.name for path in earlier.iterdir()) == ["DONE", "sweep.yaml"]
    assert "out-2" in smoke.said


def test_the_description_says_what_ran_and_with_which_versions(smoke: RealSweep) -> None:
    sweep = yaml.safe_load((smoke.out / "sweep.yaml").read_text())
    assert sweep["config"]["backbone"]["name"] == "random-tiny"
    assert sweep["trials"] == SMOKE_TRIALS
    assert sweep["synthetic"] == ["demo"]
    assert set(sweep["reference_point"]) == set(sweep["objectives"]) == {"acc", "max_gap"}
    assert sweep["seed"] is not None
    assert {"torch", "ray", "transformers", "peft", "optuna"} <= set(sweep["versions"])


def test_the_table_of_utterances_is_the_one_that_was_predicted(smoke: RealSweep) -> None:
    table = pd.read_parquet(smoke.out / "table.parquet")
    dev = table[table["split"] == "dev"]
    assert len(table) == 48
    for trial_id in TRIALS:
        predicted = pd.read_parquet(smoke.out / "predictions" / f"{trial_id}.parquet")
        assert sorted(predicted["utterance_id"]) == sorted(dev["utterance_id"])


def test_predictions_have_every_column_and_log_probabilities_of_one(smoke: RealSweep) -> None:
    labels = yaml.safe_load((smoke.out / "sweep.yaml").read_text())["labels"]
    scores = [f"logp_{label}" for label in labels]
    for trial_id in TRIALS:
        predicted = pd.read_parquet(smoke.out / "predictions" / f"{trial_id}.parquet")
        assert {*PREDICTED, *scores} <= set(predicted.columns)
        total = predicted[scores].map(math.exp).sum(axis=1)
        assert (total - 1).abs().max() < 1e-6
        best = predicted[scores].idxmax(axis=1).str.removeprefix("logp_")
        assert (best == predicted["prediction"]).all()


def test_predictions_are_of_the_selected_epoch(smoke: RealSweep) -> None:
    for trial in Records.open(smoke.out).trials():
        predicted = pd.read_parquet(smoke.out / "predictions" / f"{trial.trial_id}.parquet")
        accuracy = (predicted["label"] == predicted["prediction"]).mean()
        assert accuracy == pytest.approx(trial.selected["acc"], abs=1e-12)


def test_adapters_are_safetensors_with_a_configuration_and_a_model_card(smoke: RealSweep) -> None:
    from safetensors.numpy import load_file

    for trial_id in TRIALS:
        folder = smoke.out / "adapters" / trial_id
        weights = load_file(folder / "adapter_model.safetensors")
        assert any("lora_B" in name and abs(value).max() > 0 for name, value in weights.items())
        assert json.loads((folder / "adapter_config.json").read_text())["r"] >= 8
        assert (folder / "README.md").read_text().strip()


def test_rows_and_their_consolidated_table_agree(smoke: RealSweep) -> None:
    rows = smoke.rows()
    flat = pd.read_parquet(smoke.out / "trials.parquet")
    assert sorted({row["trial_id"] for row in rows}) == TRIALS
    assert sorted(zip(flat["trial_id"], flat["epoch"], strict=True)) == sorted(
        (row["trial_id"], row["epoch"]) for row in rows
    )
    assert {"dev.acc", "dev.max_gap", "selected.epoch", "config.loss"} <= set(flat.columns)


def test_the_front_and_the_summary_speak_of_this_sweep(smoke: RealSweep) -> None:
    front = pd.read_parquet(smoke.out / "front.parquet")
    summary = json.loads((smoke.out / "summary.json").read_text())
    positions = {row["id"] for row in Records.open(smoke.out).dial()}
    assert 1 <= len(front) and set(front["trial_id"]) <= {*TRIALS, *positions}
    assert summary["trials"]["planned"] == summary["trials"]["complete"] == SMOKE_TRIALS


def test_positions_of_the_dial_have_predictions_and_its_ends_are_trials(
    smoke: RealSweep,
) -> None:
    records = Records.open(smoke.out)
    rows = records.dial()
    assert {row["position"] for row in rows} == set(POSITIONS) and "no dial" not in smoke.said
    dev = set(records.table().query("split == 'dev'")["utterance_id"])
    for row in rows:
        predicted = records.predictions(row["id"])
        assert set(predicted["utterance_id"]) == dev
        if row["position"] in (0, 1):
            end = row["upper"] if row["position"] else row["lower"]
            pd.testing.assert_frame_equal(predicted, records.predictions(end))


def test_every_trial_has_its_curves(smoke: RealSweep) -> None:
    cells = sorted({name for row in smoke.rows() for name in row.get("losses", ())})
    wanted = {"loss/train", "lambda", "speed/utterances_per_second", "memory/peak_mb"}
    wanted |= {f"loss/{cell}" for cell in cells} | {"dev/acc", "dev/max_gap", "selected/acc"}
    wanted |= {f"gap/{cell.rsplit('/', 1)[0]}/avg" for cell in cells}
    for trial_id in TRIALS:
        run = events(smoke.out / "tb" / trial_id)
        assert wanted <= set(run.Tags()["scalars"])
        trained = [
            row["epoch"] for row in smoke.rows() if row["trial_id"] == trial_id and row["epoch"]
        ]
        assert [event.step for event in run.Scalars("loss/train")] == trained
        assert trained in ([1, 2], [2])  # a branch has its trunk's first epoch
        assert {"objective/acc", "objective/max_gap"} <= set(run.Tags()["scalars"])


def test_the_sweep_has_its_hypervolume_and_its_front_as_an_image(smoke: RealSweep) -> None:
    run = events(smoke.out / "tb" / "sweep")
    assert [event.step for event in run.Scalars("sweep/hypervolume")] == [*range(1, 13)]
    assert run.Images("sweep/front")[-1].encoded_image_string.startswith(b"\x89PNG")


def test_pictures_lie_under_the_name_of_the_folder(smoke: RealSweep) -> None:
    plots = smoke.out.parent / "analysis" / "plots" / "out-2"
    for name in ("pareto.png", "pareto.csv", "report.html"):
        assert (plots / name).stat().st_size > 100


def test_nothing_else_stays_in_the_folder_and_no_process_stays_alive(smoke: RealSweep) -> None:
    listed = set(
        "sweep.yaml table.parquet trials.jsonl trials.parquet predictions adapters front.parquet "
        "summary.json tb DONE checkpoints sessions.jsonl optuna.journal dial.jsonl".split()
    )
    assert {path.name for path in smoke.out.iterdir()} <= listed
    assert not [path for path in smoke.out.rglob("*") if path.name.startswith(".")]
    assert not list((smoke.out / "checkpoints").glob("*"))
    assert smoke.outlived == []


def test_a_dry_run_counts_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pareto.main(["--smoke-test", "--dry-run", "--trials", "7"]) == 0
    assert "up to 7 trials x 2 epochs" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
