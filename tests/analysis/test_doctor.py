"""The sweep doctor: noise is called noise, a real difference is not, and every sum adds up."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, utterances, write

from analysis import doctor, report
from analysis.front import front
from analysis.statistics import SpeakerSums


def sweep(folder, *, handicaps, **more):
    """Trials of about equal accuracy whose German gap is planted by `handicaps`."""
    trials = [{"acc": 0.6, "max_gap": float(h), "loss": "erm" if not i else "minmaxgap"}
              for i, h in enumerate(handicaps)]  # fmt: skip
    records = write(folder / "sweep", trials, **more)
    return front.info(records), records


def test_a_gap_that_is_the_same_for_all_is_called_noise(tmp_path):
    info, records = sweep(tmp_path, handicaps=np.full(24, 0.1))
    found = doctor.examine(info, records)
    assert abs(found["gap"]["max_gap"]["rank"]) < 2 * found["gap"]["error"]
    assert doctor.sentences(found)[0].startswith("The gap cannot be distinguished from noise")


def test_gaps_that_differ_are_told_apart(tmp_path):
    info, records = sweep(tmp_path, handicaps=np.linspace(0, 0.6, 24))
    gap = doctor.examine(info, records)["gap"]
    assert gap["max_gap"]["rank"] > 2 * gap["error"] and gap["trials"] == 24 and gap["cells"] == 3
    rank = gap["max_gap"]["rank"]
    assert gap["max_gap"]["reliability"] == pytest.approx(2 * rank / (1 + rank))
    assert doctor.sentences({**EMPTY, "gap": gap})[0].startswith("The gap differs")


def fair_to_all(table, *, seed: int):
    """Predictions of a model that treats genders alike and some speakers better than others."""
    rng = np.random.default_rng(seed)
    suits = {name: rng.normal(0, 0.25) for name in sorted(set(table["speaker"]))}
    hit = rng.random(len(table)) < np.clip(0.6 + table["speaker"].map(suits), 0.02, 0.98)
    return table.assign(prediction=np.where(hit, table["label"], rng.choice(LABELS, len(table))))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fair_models_that_suit_different_speakers_are_not_told_apart(tmp_path, seed):
    info, records = sweep(tmp_path, handicaps=np.full(24, 0.1))
    table = utterances(n=960, speakers=2, seed=seed)
    for i in range(24):
        made = fair_to_all(table, seed=100 * seed + i)
        made.to_parquet(records.storage / "predictions" / f"t{i:04d}.parquet", index=False)
    found = doctor.predictability(info, records)
    assert found["max_gap"]["rank"] < 2 * found["error"]


def test_halves_share_no_speaker_and_hold_half_of_each_gender_of_a_language():
    table = utterances(n=480, speakers=4).assign(modality=np.resize(["speech", "text"], 480))
    made = {"m": table.assign(prediction=table["label"])}
    unit = table.groupby(["language", "gender", "speaker"]).ngroup().to_numpy()
    for half in doctor._halves(SpeakerSums.of(made, labels=LABELS))[:, unit]:
        sides = [table[half], table[~half]]
        assert not set(sides[0]["speaker"]) & set(sides[1]["speaker"])
        for side in sides:
            assert (side.groupby(["language", "gender"])["speaker"].nunique() == 2).all()


def test_a_gender_of_one_speaker_cannot_be_halved_and_its_cell_is_left_out(tmp_path):
    info, records = sweep(tmp_path, handicaps=np.linspace(0, 0.6, 8))
    for lone, cells in (({"de": "female"}, 2), (dict.fromkeys(["de", "en", "ja"], "male"), 0)):
        for path in (records.storage / "predictions").iterdir():
            made = pd.read_parquet(path)
            mine = made["language"].map(lone) == made["gender"]
            made.assign(speaker=made["speaker"].where(~mine, "one")).to_parquet(path)
        gap = doctor.predictability(info, records)
        assert gap["cells"] == cells
    assert "two dev speakers of each side" in doctor.sentences({**EMPTY, "gap": gap})[0]


EMPTY = {"failures": {}, "gap": {"trials": 0}, "edges": {}, "budget": {"epochs": 0},
         "stopping": {}, "hypervolume": []}  # fmt: skip


@pytest.mark.parametrize("n", [0, 1, doctor.MIN_TRIALS - 1])
def test_few_trials_are_not_judged(tmp_path, n):
    info, records = sweep(tmp_path, handicaps=np.full(max(n, 1), 0.1), with_predictions=bool(n))
    gap = doctor.examine(info, records)["gap"]
    assert gap == {"trials": n}
    assert str(n) in doctor.sentences({**EMPTY, "gap": gap})[0]


def test_failures_are_counted_by_reason(tmp_path):
    failed = [{"acc": np.nan, "max_gap": np.nan, "status": "failed", "reason": r}
              for r in ("not finite", "not finite", "out of memory")]  # fmt: skip
    records = write(tmp_path / "sweep", [{"acc": 0.5, "max_gap": 0.1, "loss": "erm"}, *failed])
    found = doctor.examine(front.info(records), records)
    assert found["failures"] == {"not finite": 2, "out of memory": 1}
    assert doctor.sentences(found)[:2] == ["2 failed: not finite.", "1 failed: out of memory."]


@pytest.mark.parametrize(("values", "wanted"), [
    ([0.0031, 0.0032, 0.5], {"at": "low", "share": 2 / 3, "of": 3}),
    ([0.9, 0.99, 0.95], {"at": "high", "share": 1.0, "of": 3}),
    ([0.0031, 0.99, 0.05], None),
])  # fmt: skip
def test_a_range_whose_end_the_front_leans_on_is_named(tmp_path, values, wanted):
    points = [{"acc": 0.5 + 0.1 * i, "max_gap": 0.1 + 0.05 * i, "config": {"lambda_max": v}}
              for i, v in enumerate(values)]  # fmt: skip
    space = {"lambda_max": {"low": 0.003, "high": 1.0, "log": True},
             "loss": {"choices": ["minmaxgap"]}}  # fmt: skip
    records = write(tmp_path / "sweep", points, space=space, with_predictions=False)
    found = doctor.edges(front.info(records))
    if wanted is None:
        assert found == {}
        return
    assert found["lambda_max"]["at"] == wanted["at"] and found["lambda_max"]["of"] == 3
    assert found["lambda_max"]["share"] == pytest.approx(wanted["share"])
    assert (
        "--set 'sweep.space.lambda_max=[low,high]'"
        in doctor.sentences({**EMPTY, "edges": found})[1]
    )


def test_the_budget_adds_up_by_status():
    def rows(trial_id: str, seconds: list, status: str) -> list[dict]:
        made = [{"trial_id": trial_id, "epoch": epoch, "seconds": one, "status": "running"}
                for epoch, one in enumerate(seconds)]  # fmt: skip
        return [*made[:-1], made[-1] | {"status": status}]

    told = rows("t0", [1.0, *[2.0] * 6], "finished")  # the first row is the untrained model's
    told += rows("t1", [None, 2.0, None], "stopped") + rows("t2", [None, 2.0], "running")
    told += rows("t2", [None, 2.0], "stopped")  # an epoch that a lost worker did in vain
    assert doctor.budget(told) == {"epochs": 9, "finished": 6, "stopped": 3}
    said = doctor.sentences({**EMPTY, "budget": doctor.budget(told),
                             "stopping": {"stopped": 2, "regretted": 1}})  # fmt: skip
    assert "33% of 9 epochs went into stopped trials." in said
    assert any("would have let 1 of them go on" in line for line in said)


def test_the_hypervolume_grows_to_that_of_the_front(tmp_path):
    info, records = sweep(tmp_path, handicaps=np.linspace(0.25, 0.05, 8), with_predictions=False)
    volumes = [one["hypervolume"] for one in doctor.progress(info, records.rows())]
    assert volumes == sorted(volumes) and volumes[-1] == pytest.approx(info.hypervolume)
    assert len(volumes) == 8


def test_summary_and_page_hold_the_findings(tmp_path):
    _, records = sweep(tmp_path, handicaps=np.full(8, 0.1))
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    told = json.loads((records.directory / "summary.json").read_text())["doctor"]
    assert {"failures", "gap", "edges", "budget", "stopping", "hypervolume"} <= told.keys()
    assert "cannot be distinguished from noise" in (folder / "report.html").read_text()
