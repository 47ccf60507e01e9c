"""A real benchmark over speaker folds, killed in its second: it ends as one that was left alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fake_benchmark import LABELS, corpus
from real_sweep import RealSweep, rows

# Two benchmarks of three Ray sessions each, which may run beside other tests.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FOLDS = 3


def start(folder: Path, voices: Path) -> RealSweep:
    return RealSweep(
        folder, "benchmark.py", "--smoke-test", "--out", "out", "--data", f"manifest={voices}",
        "--set", f"data.labels=[{','.join(LABELS)}]", "--set", "data.limit=null",
        "--folds", str(FOLDS), "--models", "zero-shot", "erm", "minmaxgap-rising",
    )  # fmt: skip


class Story:
    """Two benchmarks of one corpus: one left alone, one that was killed and resumed.

    `stamps` are the first fold's files before the resume.
    """

    def __init__(self, folder: Path) -> None:
        voices = corpus(folder / "voices")
        self.outs = {name: folder / name / "out" for name in ("alone", "killed")}
        for out in self.outs.values():
            out.parent.mkdir()
        with start(folder / "alone", voices) as run:
            assert run.ends() == 0, run.said
        with start(folder / "killed", voices) as run:
            out = self.outs["killed"]
            run.until(lambda: (out / "fold-0/DONE").exists() and rows(out / "fold-1"))
            run.crash()
        self.stamps = self.first_fold()
        assert not (out / "DONE").exists() and not (out / "fold-1" / "DONE").exists()
        with RealSweep(folder / "killed", "benchmark.py", "--resume", "out") as run:
            self.status, self.said = run.ends(), run.said

    def first_fold(self) -> dict[Path, tuple[int, bytes]]:
        """Time and bytes of each of its files."""
        found = (self.outs["killed"] / "fold-0").rglob("*.[jp]*[lt]")  # .jsonl, .parquet
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("benchmark-killed"))


def test_it_ends_well_and_says_which_folds_it_trains(story: Story) -> None:
    assert story.status == 0 and "Traceback" not in story.said, story.said
    assert "fold 1 of 3" not in story.said
    assert "fold 2 of 3" in story.said and "fold 3 of 3" in story.said


def test_the_fold_that_had_ended_is_as_it_was(story: Story) -> None:
    assert len(story.stamps) >= 4 and story.first_fold() == story.stamps


def test_the_table_is_that_of_a_benchmark_that_was_left_alone(story: Story) -> None:
    for name in ("benchmark.csv", "benchmark.tex", "benchmark.md", "benchmark.html"):
        alone, killed = ((out / name).read_bytes() for out in story.outs.values())
        assert alone == killed, name


def test_every_utterance_is_predicted_by_those_that_never_heard_its_speaker(story: Story) -> None:
    for out in story.outs.values():
        predicted = []
        for fold in range(FOLDS):
            table = pd.read_parquet(out / f"fold-{fold}" / "table.parquet")
            heard = set(table.loc[table["split"] == "train", "speaker"])
            for trial_id in ("t0000", "t0001"):
                found = pd.read_parquet(out / f"fold-{fold}/predictions/{trial_id}.parquet")
                assert heard and not heard & set(found["speaker"])
            predicted += list(found["utterance_id"])
        assert set(predicted) == set(table["utterance_id"])
        shown = pd.read_csv(out / "benchmark.csv")
        overall = shown[shown["block"] == "overall/speech"]
        assert list(overall["n"]) == [len(table)] * 3
