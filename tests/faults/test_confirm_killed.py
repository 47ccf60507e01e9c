"""A real cross-fitted confirmation, killed in its second fold: it ends as one left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from real_sweep import RealSweep, rows

from ermgap import corpora
from ermgap.config import MELD_LABELS

# Four Ray sessions, which may run beside other tests.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CONFIRM = ("pareto.py", "--resume", "out", "--confirm", "2", "--folds", "2")


def manifest(folder: Path) -> Path:
    """A manifest of the demo's clips without splits, so that these are drawn by speaker."""
    table = corpora.load(["demo"], labels=MELD_LABELS, window_s=2).table.assign(split="")
    shutil.copytree(Path(table["path"].iloc[0]).parent, folder / "audio")
    table["path"] = [f"audio/{Path(path).name}" for path in table["path"]]
    table.assign(synthetic=1).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


class Story:
    """One search, confirmed twice: left alone, and killed and resumed. `stamps`: of fold 0."""

    def __init__(self, folder: Path) -> None:
        voices = manifest(folder)
        self.alone, self.killed = folder / "alone" / "out", folder / "killed" / "out"
        self.alone.parent.mkdir()
        with RealSweep(
            self.alone.parent, "pareto.py", "--smoke-test", "--out", "out", "--data",
            f"manifest={voices}", "--set", "data.limit=300", "--set", "train.epochs=4",
        ) as run:  # fmt: skip
            assert run.ends() == 0, run.said
        shutil.copytree(self.alone.parent, self.killed.parent)
        with RealSweep(self.alone.parent, *CONFIRM) as run:
            assert run.ends() == 0, run.said
        with RealSweep(self.killed.parent, *CONFIRM) as run:
            folds = self.killed / "confirm-folds"
            run.until(lambda: (folds / "fold-0/DONE").exists() and rows(folds / "fold-1"))
            run.crash()
        self.stamps = self.first_fold()
        with RealSweep(self.killed.parent, *CONFIRM) as run:
            self.status, self.said = run.ends(), run.said

    def first_fold(self) -> dict[Path, int]:
        """When each of its files was written."""
        files = (self.killed / "confirm-folds" / "fold-0").rglob("*.[jp]*[lt]")  # .jsonl, .parquet
        return {path: path.stat().st_mtime_ns for path in files if path.name != "trials.parquet"}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("confirm-killed"))


def test_it_ends_well_and_trains_no_fold_again(story: Story) -> None:
    assert story.status == 0 and "Traceback" not in story.said, story.said
    assert "Cross-fitted over 2 folds" in story.said
    assert len(story.stamps) >= 3 and story.first_fold() == story.stamps


def test_its_table_is_that_of_one_that_was_left_alone(story: Story) -> None:
    tables = [pd.read_parquet(out / "confirm-folds" / "confirmed.parquet")
              for out in (story.alone, story.killed)]  # fmt: skip
    pd.testing.assert_frame_equal(*tables)
    assert set(tables[0]["n"]) == {len(pd.read_parquet(story.alone / "table.parquet"))}


def test_every_utterance_is_predicted_by_models_that_never_heard_its_speaker(story: Story) -> None:
    predicted = []
    for fold in range(2):
        folder = story.killed / "confirm-folds" / f"fold-{fold}"
        table = pd.read_parquet(folder / "table.parquet")
        heard = set(table.loc[table["split"] == "train", "speaker"])
        for path in (folder / "predictions").iterdir():
            made = pd.read_parquet(path)
            assert heard and not heard & set(made["speaker"])
        predicted += list(made["utterance_id"])
    assert sorted(predicted) == sorted(table["utterance_id"])
