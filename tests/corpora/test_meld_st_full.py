"""MELD-ST in full size: official sizes over MELD's real rows, exact counts, time and memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import meld_st_tree as tree
import pandas as pd
import pytest

from ermgap.corpora import meld_st_rows

MOVED = 60  # rows that change places between JPN's train and its test, and as many with its dev
PRIORITY = ["test", "dev", "train"]
MEASURE = """
import json, resource, sys
from ermgap import corpora
from ermgap.corpora import split, table
corpus = corpora.load([f"meld_st={sys.argv[1]}"], drop=["gender"])
whole = split.assign(corpus.table, seed=0)
table.check(whole)
assert whole["split"].equals(corpus.table["split"])
usage = resource.getrusage(resource.RUSAGE_SELF)
corpus.table.to_parquet(sys.argv[2] + "/table.parquet")
corpus.excluded.to_parquet(sys.argv[2] + "/excluded.parquet")
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
cpu = usage.ru_utime + usage.ru_stime
print(json.dumps({"cpu": cpu, "peak": peak, "notes": corpus.notes}))
"""


@pytest.fixture
def meld(shared_data) -> list[tree.Row]:
    folder = shared_data / "meld_text"
    if not folder.is_dir():
        pytest.skip("MELD's CSVs (../shared/data/meld_text) are not here")
    return tree.meld_rows(folder)


@pytest.fixture
def full(meld, tmp_path):
    sizes = {"DEU": (9314, 1164, 1164), "JPN": (8069, 1008, 1008)}
    yield tree.write(tmp_path / "MELD-ST", tree.plan(meld, **sizes, moved=MOVED))
    shutil.rmtree(tmp_path / "MELD-ST")  # 200 MB, which pytest would keep for three runs


def read_csvs(root: Path) -> pd.DataFrame:
    """All rows of all CSVs with pair, split, key and gender, read without the loader."""
    parts = []
    for pair in tree.PAIRS:
        for split in tree.SPLITS:
            part = pd.read_csv(tree.csv_of(root, pair, split), keep_default_na=False)
            parts.append(part.assign(pair=pair, split=split))
    rows = pd.concat(parts, ignore_index=True)
    rows["key"] = list(zip(*(rows[name] for name in tree.KEY), strict=True))
    listed = pd.read_csv(meld_st_rows.GENDERS_FILE, index_col="speaker")["gender"]
    return rows.assign(gender=rows["speaker"].map(listed))


def expected(rows: pd.DataFrame) -> tuple[dict, dict]:
    """Utterances by (split, language, gender), and clips excluded by kind of reason."""
    known = rows[rows["gender"].isin(["female", "male"])]
    rank = known["split"].map(PRIORITY.index)
    stays = known[rank == rank.groupby(known["key"]).transform("min")]
    spoken = {
        "de": stays[stays["pair"] == "ENG_DEU"], "ja": stays[stays["pair"] == "ENG_JPN"],
        "en": stays,
    }  # fmt: skip
    kept = {language: part.drop_duplicates("key") for language, part in spoken.items()}
    counts = {
        (split, language, gender): n
        for language, part in kept.items()
        for (split, gender), n in part.groupby(["split", "gender"]).size().items()
    }
    left_out = {
        "unknown": 2 * (len(rows) - len(known)),
        "leak": 2 * (len(known) - len(stays)),
        "repeat": 2 * len(stays) - sum(map(len, kept.values())),
    }
    return counts, left_out


def kind(reason: str) -> str:
    words = {"gender is unknown": "unknown", "too, where it stays": "leak"}
    return next((name for word, name in words.items() if word in reason), "repeat")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_full_corpus_loads_exactly_within_a_minute_and_two_gigabytes(full, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(full), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    measured = json.loads(run.stdout)
    print({name: measured[name] for name in ("cpu", "peak")})
    found = pd.read_parquet(tmp_path / "table.parquet")
    excluded = pd.read_parquet(tmp_path / "excluded.parquet")
    rows = read_csvs(full)
    assert rows.groupby(["pair", "split"]).size().to_dict() == {
        ("ENG_DEU", "train"): 9314, ("ENG_DEU", "dev"): 1164, ("ENG_DEU", "test"): 1164,
        ("ENG_JPN", "train"): 8069, ("ENG_JPN", "dev"): 1008, ("ENG_JPN", "test"): 1008,
    }  # fmt: skip
    counts, left_out = expected(rows)
    assert found.groupby(["split", "language", "gender"]).size().to_dict() == counts
    assert excluded["reason"].map(kind).value_counts().to_dict() == left_out
    assert left_out["leak"] >= 2 * 2 * MOVED  # what was planted, and what MELD's own ids add
    places = pd.concat([found["path"], excluded["path"]])
    assert len(places) == 2 * len(rows) and places.is_unique
    assert any(note.startswith("LEAKAGE REMOVED") for note in measured["notes"])
    assert measured["cpu"] < 60
    assert measured["peak"] < 2 * 2**30


def test_a_sample_of_melds_real_rows_has_the_counts_that_its_csvs_imply(meld, tmp_path):
    from ermgap import corpora

    # Every 20th scene: whole dialogues, real speakers, groups and unknown roles among them.
    scenes = list(dict.fromkeys(tree._scene(row) for row in meld))[::20]
    rows = [row for row in meld if tree._scene(row) in scenes]
    plan = tree.plan(rows, DEU=(400, 60, 60), JPN=(350, 50, 50), moved=6)
    root = tree.write(tmp_path / "MELD-ST", plan)
    corpus = corpora.load([f"meld_st={root}"], drop=["gender"])
    counts, left_out = expected(read_csvs(root))
    assert corpus.table.groupby(["split", "language", "gender"]).size().to_dict() == counts
    assert corpus.excluded["reason"].map(kind).value_counts().to_dict() == left_out
    assert all(left_out.values())
