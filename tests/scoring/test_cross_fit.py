"""Confirming a front on speaker folds: every speaker of train and dev judges, each once a seed.

Training is made up here, so that what surrounds it is quick to test; judging is the product's own.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import meld_st_tree as tree
import numpy as np
import pandas as pd
import pytest

from analysis import confirmed, report
from analysis.front import front
from ermgap import corpora, metrics
from ermgap.baselines import predictions_table
from ermgap.config import METRICS, Config
from ermgap.corpora import split
from ermgap.errors import UserError
from ermgap.records import Records, dial_id, parse_id
from sweeps.recording.timing import Session
from sweeps.scheduler import driver, evaluation
from sweeps.scoring import confirm, dial, reruns
from sweeps.setup import plan as planning

LABELS = ("anger", "joy", "sadness")
# The third is on no front. A configuration is right so often, women of de less often by its gap.
POINTS = {
    "t0000": {"loss": "erm", "acc": 0.8, "max_gap": 0.3},
    "t0001": {"loss": "minmaxgap", "acc": 0.7, "max_gap": 0.0},
    "t0002": {"loss": "minmaxgap", "acc": 0.6, "max_gap": 0.2},
}
SEARCHED = {trial_id: {"loss": point["loss"]} for trial_id, point in POINTS.items()}


def utterances(speakers: int = 5, **settings) -> pd.DataFrame:
    """Of two languages, `speakers` of each gender and 12 clips of each, without a split."""
    people = [(a, b, n) for a in ("de", "en") for b in ("female", "male") for n in range(speakers)]
    rows = [
        {
            "utterance_id": f"{language}-{gender}-{number}-{clip}", "corpus": "made",
            "language": language, "gender": gender, "emotion": LABELS[clip % 3],
            "speaker": f"{language}-{gender}-{number}", "path": f"{clip}.wav",
        }
        for language, gender, number in people
        for clip in range(12)
    ]  # fmt: skip
    return corpora.tables.frame(rows)


def config(**changes) -> Config:
    data = {"data.labels": list(LABELS), "data.test": True, "data.folds": 5, "sweep.trials": 3}
    return Config().replace(data | {"sweep.floor": 0.0} | changes)


def guesses(table: pd.DataFrame, trial_id: str, seed: str) -> pd.DataFrame:
    """Predictions of a configuration, other ones for each seed; of a position, of both its ends."""
    if place := parse_id(trial_id):
        lower, upper = (guesses(table, end, seed) for end in place[:2])
        drawn = [zlib.crc32(f"{name} {trial_id}".encode()) for name in table["utterance_id"]]
        nearer = np.array(drawn) < place[2] * 2**32
        return lower.assign(prediction=lower["prediction"].where(~nearer, upper["prediction"]))
    point, said = POINTS[trial_id], []
    for row in table.itertuples():
        rng = np.random.default_rng(zlib.crc32(f"{row.utterance_id} {trial_id} {seed}".encode()))
        right = point["acc"] - point["max_gap"] * (row.language == "de" and row.gender == "female")
        said.append(row.emotion if rng.random() < right else str(rng.choice(LABELS)))
    return predictions_table(table, modality="speech", prediction=said, labels=LABELS)


@pytest.fixture
def sweep(tmp_path) -> Records:
    """A sweep over a drawn split with test speakers, whose trials have ended."""
    given = config()
    data = given.data
    table = split.assign(utterances(), seed=data.split_seed, folds=data.folds, test=True)
    described = planning.describe_sweep(given, preset="demo", utterances=table, storage=None)
    records = Records.create(tmp_path / "sweep", sweep=described, table=table)
    for trial_id in POINTS:
        table = guesses(dev_of(records), trial_id, "search")
        end(records, trial_id, SEARCHED[trial_id], table, **POINTS[trial_id])
    records.mark_done()
    return records


def dev_of(records: Records) -> pd.DataFrame:
    return records.table().query("split == 'dev'")


def end(records: Records, trial_id: str, values: dict, table: pd.DataFrame | None, **known) -> None:
    """Commit a trial: its predictions, then its row; a failed one without a table.

    Its scores are those of the table but for the known ones.
    """
    row = {"trial_id": trial_id, "attempt": 1, "epoch": 1, "config": values}
    if table is None:
        records.append(row | {"status": "failed", "reason": "not finite", "selected": {}})
        return
    dev = metrics.evaluate(table, labels=LABELS)
    path = records.storage / "predictions" / f"{trial_id}.parquet"
    path.parent.mkdir(exist_ok=True)
    table.to_parquet(path, index=False)
    (records.storage / "adapters" / trial_id).mkdir(parents=True, exist_ok=True)
    selected = {"epoch": 1} | {name: known.get(name, dev[name]) for name in METRICS}
    records.append(row | {"dev": dev, "status": "finished", "selected": selected})


class Training:
    """Stands for the slots and the evaluators.

    Attributes:
        trained: fold and names of every call, in order. asked: number of adapters asked.
        stop: fold after whose first rerun Ctrl-C comes; None: never.
        failed: names of reruns that fail, in fold 1.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.trained: list[tuple[int, list[str]]] = []
        self.asked, self.stop, self.failed = 0, None, ()
        patch.setattr(driver, "run", self.run)
        patch.setattr(evaluation, "on_workers", self.answer)
        patch.setattr(dial, "_ask_here", self.answer_here)

    def run(self, settings, records, *, address, leave) -> Session:
        fold, ended = settings.data.fold, {trial.trial_id for trial in records.trials()}
        points = list(settings.sweep.points.items())
        missing = [(n, *point) for n, point in enumerate(points) if f"t{n:04d}" not in ended]
        self.trained.append((fold, [name for _, name, _ in missing]))
        stopped = fold == self.stop
        for number, name, values in missing[: 1 if stopped else None]:
            trial_id, _, seed = name.partition(" seed ")
            table = guesses(dev_of(records), trial_id, seed)
            fails = name in self.failed and fold == 1
            end(records, f"t{number:04d}", values, None if fails else table)
        return Session(interrupted=stopped)

    def answer(self, requests, *, config, features, address, folder, done) -> None:
        for request in requests:
            self.asked += 1
            fold = str(request.kept.parents[1].name)
            if request.spec.startswith("dial="):
                done(request, between(request, fold))
            else:
                done(request, guesses(request.utterances, "t0001", fold))

    def answer_here(self, records, settings, requests, done) -> None:
        points = list(settings.sweep.points)
        for request in requests:
            lower = Path(request.spec.split(":")[1]).name
            seed = points[int(lower[1:])].partition(" seed ")[2]
            done(request, between(request, seed))


def between(request, seed: str) -> pd.DataFrame:
    """Answers of all positions that a request asks for."""
    positions = request.spec.removeprefix("dial=").split(":")[0].split(",")
    tables = [
        guesses(request.utterances, f"t0000-t0001@{position}", seed).assign(
            position=float(position)
        )
        for position in positions
    ]
    return pd.concat(tables, ignore_index=True)


def run(records: Records, *, seeds: int = 2, folds: int | None = 2, **changes) -> int:
    given = config(**changes)
    confirm.require(
        seeds, folds, given, records.table(), folder=records.directory
    )  # as the command does
    return confirm.run(records, given, seeds=seeds, folds=folds, address=None)


@pytest.fixture
def training(monkeypatch, tmp_path) -> Training:
    monkeypatch.chdir(tmp_path)
    return Training(monkeypatch)


# Folds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_every_speaker_of_train_and_dev_is_held_out_once_and_test_stays_apart(sweep, folds):
    table, held_out = sweep.table(), []
    for fold in range(folds):
        settings = config().replace({"data.folds": folds, "data.fold": fold, "data.test": False})
        dealt = reruns.fold_of(table, settings)
        assert set(dealt["utterance_id"]) == set(table["utterance_id"])
        assert dealt.groupby("speaker")["split"].nunique().eq(1).all()
        assert set(dealt.query("split == 'test'")["utterance_id"]) == set(
            table.query("split == 'test'")["utterance_id"]
        )
        assert len(set(zip(dealt["language"], dealt["gender"], dealt["split"], strict=True))) == 12
        held_out += list(dealt.query("split == 'dev'")["speaker"].unique())
    assert sorted(held_out) == sorted(table.query("split != 'test'")["speaker"].unique())


@pytest.mark.parametrize(
    ("folds", "said"), [(1, "two folds"), (5, "de has 4 female speakers"), (9, "at most --folds 4")]
)
def test_folds_that_cannot_be_are_refused(sweep, folds, said):
    with pytest.raises(UserError, match=said):
        confirm.require(2, folds, config(), sweep.table())


def test_folds_are_dealt_by_sides_of_the_attribute_and_unknown_ones_ask_for_nothing():
    table, attribute = utterances(6), ("accent",)
    number = table["speaker"].str[-1].astype(int)
    table["accent"] = np.select([number < 2, number < 5], ["north", "south"], "")
    settings = config(**{"objective.attribute": ["accent"], "data.folds": 4})
    table = split.assign(
        table, seed=settings.data.split_seed, folds=4, test=True, attribute=attribute
    )
    reruns.require_folds(3, settings, table, None)
    with pytest.raises(UserError, match="--folds 4: de has 3 north speakers in train and dev"):
        reruns.require_folds(4, settings, table, None)
    changes = {"data.folds": 3, "data.test": False}
    for fold in range(3):
        part = reruns.fold_of(table, settings.replace(changes | {"data.fold": fold}))
        known = part[(part["split"] == "dev") & (part["accent"] != "")]
        assert known.groupby("language")["accent"].nunique().eq(2).all()


def test_folds_without_confirm_are_refused(sweep):
    with pytest.raises(UserError, match="--confirm SEEDS"):
        confirm.require(None, 2, config(), sweep.table())


def test_splits_that_a_corpus_comes_with_are_not_dealt_anew(sweep, tmp_path):
    moved = sweep.table()
    speaker = moved.query("split == 'dev'")["speaker"].iloc[0]
    moved.loc[moved["speaker"] == speaker, "split"] = "train"
    with pytest.raises(UserError, match="their own splits"):
        confirm.require(2, 2, config(), moved)
    root = tree.write(tmp_path, tree.tidy())
    official = planning.make_plan(
        Config().replace({"data.corpora": [f"meld_st={root}"], "data.min_support": 1})
    )
    with pytest.raises(UserError, match="their own splits"):
        confirm.require(2, 2, Config(), official.utterances)


# Running ------------------------------------------------------------------------------------------


def test_pooled_over_folds_every_speaker_judges_each_configuration_and_seed(sweep, training):
    assert run(sweep, folds=4) == 0
    rows = pd.read_parquet(sweep.directory / "confirm-folds" / "confirmed.parquet")
    table = sweep.table()
    everyone = table[table["split"] != "test"]
    assert list(rows["trial_id"].unique()) == ["t0000", "t0001"] and set(rows["seed"]) == {1, 2}
    dev = rows[rows["split"] == "dev"]
    assert set(dev["n"]) == {len(everyone)} and set(dev["folds"]) == {4}
    assert set(dev["speakers"]) == {everyone["speaker"].nunique()}
    for row in dev.itertuples():
        whole = guesses(everyone, row.trial_id, str(row.seed))
        assert row.acc == pytest.approx(metrics.evaluate(whole, labels=LABELS)["acc"])
        assert row.max_gap == pytest.approx(metrics.evaluate(whole, labels=LABELS)["max_gap"])
    test = table[table["split"] == "test"]
    scores = [metrics.evaluate(guesses(test, "t0001", f"fold-{fold}"), labels=LABELS)
              for fold in range(4)]  # fmt: skip
    judged = rows[rows["split"] == "test"]
    assert judged["acc"].to_numpy() == pytest.approx(np.mean([score["acc"] for score in scores]))
    assert set(judged["n"]) == {len(test)} and training.asked == 4 * 4


def test_no_fold_has_heard_those_who_judge_it(sweep, training):
    run(sweep, folds=2)
    for fold in range(2):
        child = Records.open(sweep.directory / "confirm-folds" / f"fold-{fold}")
        heard = set(child.table().query("split == 'train'")["speaker"])
        assert child.finished and child.sweep["kind"] == "confirm"
        assert reruns.config_of(child).train.select == "last"
        for trial in child.trials():
            assert not heard & set(child.predictions(trial.trial_id)["speaker"])


def test_a_killed_run_goes_on_and_ends_as_one_that_was_left_alone(sweep, training, capsys):
    training.stop = 1
    assert run(sweep) == 130
    assert f"--resume {sweep.directory} --confirm 2 --folds 2" in capsys.readouterr().out
    assert not (sweep.directory / "confirm-folds" / "confirmed.parquet").exists()
    training.stop, before = None, len(training.trained)
    assert run(sweep) == 0
    assert training.trained[before:] == [
        (0, []), (1, ["t0001 seed 1", "t0000 seed 2", "t0001 seed 2"])
    ]  # fmt: skip
    rows = pd.read_parquet(sweep.directory / "confirm-folds" / "confirmed.parquet")
    asked = training.asked
    assert run(sweep, seeds=3) == 0  # one seed more
    assert training.trained[-1] == (1, ["t0000 seed 3", "t0001 seed 3"])
    assert training.asked == asked + 4
    more = pd.read_parquet(sweep.directory / "confirm-folds" / "confirmed.parquet")
    pd.testing.assert_frame_equal(more[more["seed"] < 3].reset_index(drop=True), rows)


def test_other_folds_than_before_are_refused(sweep, training):
    run(sweep)
    with pytest.raises(UserError, match="over 2 folds; give --folds 2"):
        run(sweep, folds=3)


def test_a_rerun_that_fails_on_one_fold_leaves_its_seed_out(sweep, training):
    training.failed = ("t0001 seed 2",)
    assert run(sweep) == 0
    rows = pd.read_parquet(sweep.directory / "confirm-folds" / "confirmed.parquet")
    mine = rows.set_index(["trial_id", "seed", "split"])["status"]
    assert mine["t0001", 2, "dev"] == "failed" and mine["t0001", 1, "dev"] == "finished"
    shown = confirmed.read(front.info(sweep), sweep).set_index("trial_id")
    assert shown.loc["t0001", "seeds"] == 1 and np.isfinite(shown.loc["t0001", "acc_change"])


def test_without_folds_all_is_as_it_was(sweep, training):
    assert run(sweep, folds=None) == 0
    rows = pd.read_parquet(sweep.directory / "confirm" / "confirmed.parquet")
    assert not {"folds", "speakers", "rerun"} & set(rows)
    assert set(rows.query("split == 'dev'")["n"]) == {len(dev_of(sweep))}
    shown = confirmed.read(front.info(sweep), sweep)
    assert not [name for name in shown if "change" in name]
    assert (sweep.directory / "confirm" / "DONE").exists()


# What is shown ------------------------------------------------------------------------------------


def test_table_sentences_and_pictures_say_that_they_are_cross_fitted(sweep, training, tmp_path):
    run(sweep, folds=None)
    run(sweep, seeds=3, folds=4)
    plots = report.write(sweep.directory, tmp_path / "plots", quiet=True)
    shown = pd.read_csv(plots / "confirm.csv").set_index("trial_id")
    assert set(shown["folds"]) == {4} and set(shown["speakers"]) == {16}
    fair = shown.loc["t0001"]
    assert fair["max_gap_change_low"] < fair["max_gap_change"] < fair["max_gap_change_high"]
    assert fair["acc_change"] == pytest.approx(fair["acc_dev"] - shown.loc["t0000", "acc_dev"])
    assert np.isnan(shown.loc["t0000", "acc_change"])
    page = (plots / "report.html").read_text()
    assert "Cross-fitted over 4 folds: each of the 16 speakers" in page
    assert "judged by every speaker" in page and "Cross-fitted over 16 speakers" in page
    for name in ("confirm.png", "confirm-front.png"):
        assert (plots / name).stat().st_size > 10_000


def test_lost_predictions_cost_the_differences_and_not_the_report(sweep, training, tmp_path):
    run(sweep)
    for path in (sweep.directory / "confirm-folds" / "fold-1" / "predictions").iterdir():
        path.unlink()
    shown = confirmed.write(sweep.directory, tmp_path / "plots")
    assert shown["acc_change"].isna().all() and shown["acc_dev"].notna().all()


# The dial -----------------------------------------------------------------------------------------


@pytest.fixture
def dialled(sweep) -> Records:
    """The sweep with three positions between its ends, all on the front."""
    for position in (0.2, 0.5, 0.8):
        name = dial_id("t0000", "t0001", position)
        table = guesses(dev_of(sweep), name, "search")
        table.to_parquet(sweep.storage / "predictions" / f"{name}.parquet", index=False)
        dev = metrics.evaluate(table, labels=LABELS)
        dev |= {"acc": 0.8 - 0.1 * position, "w_f1": 0.7, "max_gap": 0.3 - 0.3 * position}
        row = {"id": name, "lower": "t0000", "upper": "t0001", "position": position, "dev": dev}
        sweep.append_dial(row | {"seconds": 0.1, "time": 0.0})
    return sweep


@pytest.mark.parametrize("folds", [None, 2])
def test_positions_of_the_dial_are_judged_between_ends_that_are_trained_anew(
    dialled, training, tmp_path, folds
):
    names = [dial_id("t0000", "t0001", position) for position in (0.2, 0.5, 0.8)]
    wanted, positions = confirm.to_confirm(dialled)
    assert set(wanted) == {"t0000", "t0001"} and set(positions) == set(names)
    assert run(dialled, folds=folds) == 0
    made = dialled.directory / ("confirm-folds" if folds else "confirm") / "confirmed.parquet"
    rows = pd.read_parquet(made)
    assert set(rows["trial_id"]) == {"t0000", "t0001", *names} and set(rows["seed"]) == {1, 2}
    assert set(rows["split"]) == {"dev", "test"} and rows[["acc", "max_gap"]].notna().all(axis=None)
    trained = {name for _, every in training.trained for name in every}
    assert trained == {f"{name} seed {seed}" for name in wanted for seed in (1, 2)}
    assert training.asked == (folds or 1) * 2 * 3  # of each seed two adapters and one line
    table = dialled.table().query("split == 'dev'" if folds is None else "split != 'test'")
    row = rows.query("trial_id == @names[1] and seed == 2 and split == 'dev'").iloc[0]
    if folds is None:
        whole = guesses(table, names[1], "2")
        assert row["acc"] == pytest.approx(metrics.evaluate(whole, labels=LABELS)["acc"])
    assert row["n"] == len(table)
    asked = training.asked
    assert run(dialled, folds=folds) == 0 and training.asked == asked  # all of it is kept
    shown = confirmed.write(dialled.directory, tmp_path / "plots").set_index("trial_id")
    assert shown.loc[names[1], "loss"] == "dial" and shown.loc[names[1], "seeds"] == 2
    if folds:
        assert shown.loc[names, "acc_change"].notna().all()
    page = report.write(dialled.directory, tmp_path / "plots", quiet=True) / "report.html"
    assert "Over fresh seeds" in page.read_text()
