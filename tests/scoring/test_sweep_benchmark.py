"""`sweeps/benchmark.py`: who is judged by whom, what the table shows, what `--resume` asks again.

Training and systems are made up (fake_benchmark.py), but for one real `--smoke-test`.
"""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from fake_benchmark import LABELS, RIGHT, Fakes, guesses
from real_sweep import RealSweep
from sklearn.metrics import accuracy_score, f1_score

from sweeps import benchmark

MODELS = ("--models", "erm", "echo", "reweight", "groupdro")
FOLDS = ("--folds", "3", *MODELS)
TRAINED = ["erm", "reweight", "groupdro"]
NAMES = {"erm": "ERM", "echo": "echo", "reweight": "Reweighting", "groupdro": "GroupDRO"}
FILES = ["benchmark.csv", "benchmark.html", "benchmark.md", "benchmark.tex"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fakes:
    """A finished benchmark over three folds, for tests that only look."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        made = Fakes(tmp_path_factory.mktemp("whole"), patch)
        assert made.run(*FOLDS) == 0
        made.said = said.getvalue()
    return made


@pytest.fixture
def again(whole: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """A copy of it, to resume."""
    return whole.copied(tmp_path, monkeypatch)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return Fakes(tmp_path, monkeypatch)


def fold_table(made: Fakes, fold: int) -> pd.DataFrame:
    return pd.read_parquet(made.out / f"fold-{fold}" / "table.parquet")


# One real benchmark -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealSweep:
    """`--smoke-test` and nothing else, in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    with RealSweep(folder, "benchmark.py", "--smoke-test") as run:
        run.status, run.outlived = run.ends(), run.left_over()
    run.out = folder / "results" / "benchmark-smoke-test"
    return run


def test_a_smoke_test_prints_its_table_and_writes_it_in_four_formats(real: RealSweep) -> None:
    assert real.status == 0 and "Traceback" not in real.said, real.said
    assert sorted(path.name for path in real.out.glob("benchmark.*")) == FILES
    assert (real.out / "DONE").exists() and real.outlived == []
    names = ["random-tiny, zero-shot", "ERM", "MinMaxGAP, adaptive", "MinMaxGAP, rising to 0.1"]
    texts = {path.name: path.read_text(encoding="utf-8") for path in real.out.glob("benchmark.*")}
    texts["screen"] = real.said[real.said.index("overall, speech") :]
    for where, text in texts.items():
        assert [name for name in names if name not in text] == [], where
    assert list(dict.fromkeys(pd.read_csv(real.out / "benchmark.csv")["system"])) == names


def test_lost_predictions_of_a_real_benchmark_are_made_again(real, tmp_path, capsys) -> None:
    out = shutil.copytree(real.out, tmp_path / "copy")
    lost = [out / "fold-0" / "predictions" / "t0001.parquet", out / "systems" / "00.parquet"]
    before = [pd.read_parquet(path) for path in lost]
    for path in lost:
        path.unlink()
    assert benchmark.main(["--resume", str(out)]) == 0
    for path, earlier in zip(lost, before, strict=True):
        same = ["utterance_id", "modality", "speaker", "label", "prediction"]
        pd.testing.assert_frame_equal(pd.read_parquet(path)[same], earlier[same])
    for name in FILES:
        assert (out / name).read_bytes() == (real.out / name).read_bytes()
    assert "trials:" not in capsys.readouterr().out, "something was trained"


# Folds --------------------------------------------------------------------------------------------


def test_each_utterance_is_predicted_once_by_a_system_that_never_heard_its_speaker(whole) -> None:
    every = sorted(fold_table(whole, 0)["utterance_id"])
    assert set(whole.predictions) == set(NAMES.values())
    for name, predictions in whole.predictions.items():
        assert sorted(predictions["utterance_id"]) == every, name
    for name in TRAINED:
        predictions = whole.predictions[NAMES[name]]
        assert set(predictions["fold"]) == {0, 1, 2}
        for fold, part in predictions.groupby("fold"):
            table = fold_table(whole, fold)
            heard = set(table.loc[table["split"] == "train", "speaker"])
            assert heard and not heard & set(part["speaker"])


def test_who_is_held_out_twice_counts_once(whole) -> None:
    kept = [
        pd.read_parquet(whole.out / f"fold-{i}" / "predictions/t0000.parquet") for i in range(3)
    ]
    twice = pd.concat(kept)["utterance_id"].duplicated().sum()
    assert twice > 0, "nobody is held out twice: the corpus of this test is too large"
    assert len(whole.predictions["ERM"]) == sum(map(len, kept)) - twice


def test_every_fold_trains_every_trained_row_and_asked_rows_are_asked_once(whole) -> None:
    assert whole.trained == [(fold, TRAINED) for fold in range(3)]
    assert [name for name, _ in whole.asked] == ["echo"]
    assert "3 of them trained on each of 3 folds" in whole.said


def test_without_folds_the_dev_speakers_alone_are_judged(made) -> None:
    made.run(*MODELS)
    table = fold_table(made, 0)
    dev = sorted(table.loc[table["split"] == "dev", "utterance_id"])
    assert 0 < len(dev) < len(table)
    for predictions in made.predictions.values():
        assert sorted(predictions["utterance_id"]) == dev
    assert made.trained == [(0, TRAINED)]


def test_on_test_the_adapters_are_asked_and_their_answers_kept(tmp_path, monkeypatch) -> None:
    made = Fakes(tmp_path, monkeypatch, splits=True)
    made.run("--split", "test", *MODELS)
    table = fold_table(made, 0)
    test = list(table.loc[table["split"] == "test", "utterance_id"])
    assert made.asked == [(name, test) for name in NAMES]
    for name, title in NAMES.items():
        predictions = made.predictions[title]
        assert set(predictions["split"]) == {"test"}
        said = guesses(predictions["utterance_id"], predictions["label"], name=name)
        assert list(predictions["prediction"]) == said
    assert made.resume() == 0 and (made.trained, made.asked) == ([], [])


# Figures ------------------------------------------------------------------------------------------


def weighted(true, predicted) -> float:
    return f1_score(true, predicted, labels=LABELS, average="weighted", zero_division=0)


def test_each_row_shows_the_scores_of_its_own_predictions(whole) -> None:
    table = fold_table(whole, 0)
    rows = pd.read_csv(whole.out / "benchmark.csv").set_index(["system", "block"])
    accuracy = {}
    for name, title in NAMES.items():
        said = pd.Series(guesses(table["utterance_id"], table["emotion"], name=name))
        for language in ("de", "en", "overall"):
            here = table["language"].isin([language] if language != "overall" else ["de", "en"])
            gender, true = table.loc[here, "gender"], table.loc[here, "emotion"]
            scores = {"acc": accuracy_score, "w_f1": weighted}
            told = {"y_true": true, "y_pred": said[here], "sensitive_features": gender}
            frame = MetricFrame(metrics=scores, **told)
            shown = rows.loc[(title, f"{language}/speech")]
            for key in scores:
                assert shown[key] == pytest.approx(frame.overall[key])
                assert shown[f"{key}_gap"] == pytest.approx(frame.difference()[key])
            assert shown["n"] == len(true)
        accuracy[name] = frame.overall["acc"]
    assert len(set(accuracy.values())) == len(RIGHT), "rows that agree can be exchanged unnoticed"
    for name, title in NAMES.items():
        difference = rows.loc[(title, "overall/speech"), "delta_acc"]
        assert difference == pytest.approx(accuracy[name] - accuracy["erm"])


def test_the_baseline_is_the_row_that_is_named(made) -> None:
    made.run(*FOLDS, "--baseline", "groupdro")
    rows = pd.read_csv(made.out / "benchmark.csv").set_index(["system", "block"])
    assert rows.loc[("GroupDRO", "overall/speech"), "delta_acc"] == 0
    assert rows.loc[("ERM", "overall/speech"), "delta_acc"] > 0


def test_a_row_whose_training_failed_is_left_out_and_named(made, capsys) -> None:
    made.failed = ("reweight",)
    assert made.run(*FOLDS) == 0
    assert "Reweighting has no predictions: its training failed" in capsys.readouterr().out
    assert set(made.predictions) == {"ERM", "echo", "GroupDRO"}


# --resume -----------------------------------------------------------------------------------------


def test_resuming_a_finished_benchmark_asks_nothing(again) -> None:
    before = again.written()
    assert again.resume() == 0
    assert (again.trained, again.asked) == ([], [])
    assert list(before) == FILES and again.written() == before


@pytest.mark.parametrize(
    ("lost", "trained", "asked"),
    [
        ("benchmark.csv", [], []),
        ("systems/01.parquet", [], ["echo"]),
        ("fold-1", [(1, TRAINED)], []),
        ("fold-2/DONE", [(2, [])], []),
        ("fold-1/predictions/t0001.parquet", [], ["reweight"]),
    ],
)
def test_what_was_lost_is_made_again_and_nothing_else(again, lost, trained, asked) -> None:
    before = again.written()
    gone = again.out / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert again.resume() == 0
    assert again.trained == trained
    assert sorted(name for name, _ in again.asked) == sorted(asked)
    assert again.written() == before
    assert gone.exists() and (again.out / "DONE").exists()


def test_ctrl_c_keeps_what_was_trained_and_the_table_is_the_same_afterwards(
    made, whole, capsys
) -> None:
    made.stop = 1
    assert made.run(*FOLDS) == 130
    line = f"stopped; continue with: python sweeps/benchmark.py --resume {made.out}"
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert made.written() == {} and not (made.out / "DONE").exists()
    made.stop = None
    assert made.resume() == 0
    assert made.trained == [(1, TRAINED[:2]), (2, TRAINED)]
    assert made.written() == whole.written()


def test_answers_that_failed_are_asked_anew(made, capsys) -> None:
    made.missing = 3
    assert made.run("--models", "echo", "erm") == 0
    assert "3 of" in (said := capsys.readouterr().out) and "--resume asks anew" in said
    assert not (made.out / "systems").exists()
    made.missing = 0
    assert made.resume() == 0
    assert [name for name, _ in made.asked] == ["echo"] and made.trained == []
    assert made.resume() == 0
    assert made.asked == []
