"""cluster/fetch.py: a folder stands for the bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cluster_files as files
import pytest

SCRIPT = files.CLUSTER / "fetch.py"


@pytest.fixture
def bucket(tmp_path) -> Path:
    folder = tmp_path / "bucket"
    for name, content in {
        "MELD-ST/a.wav": b"1234",
        "MELD-ST/de/b.csv": b"12",
        "empty": b"",
    }.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_bytes(content)
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "large").write_bytes(b"not data")
    return folder


def fetch(bucket: str | None, *arguments: str) -> subprocess.CompletedProcess:
    told = {} if bucket is None else {"ERMGAP_BUCKET": bucket}
    environment = {name: one for name, one in os.environ.items() if name != "ERMGAP_BUCKET"} | told
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size
    }


def test_the_data_of_the_bucket_and_nothing_else_are_copied_once(bucket, tmp_path):
    target = tmp_path / "shared" / "data"
    assert "files copied" in fetch(f"file://{bucket}/", str(target)).stdout
    assert contents(target) == contents(bucket / "data")
    (target / "MELD-ST" / "a.wav").write_bytes(b"4321")  # of the same size: taken for the same
    again = fetch(f"file://{bucket}", str(target))
    assert again.returncode == 0 and "holds all" in again.stdout
    assert (target / "MELD-ST" / "a.wav").read_bytes() == b"4321"


def test_what_is_cut_off_or_new_is_copied(bucket, tmp_path):
    fetch(f"file://{bucket}", str(tmp_path / "data"))
    (tmp_path / "data" / "MELD-ST" / "a.wav").write_bytes(b"1")
    (bucket / "data" / "new.csv").write_bytes(b"3")
    assert "files copied" in fetch(f"file://{bucket}", str(tmp_path / "data")).stdout
    assert contents(tmp_path / "data") == contents(bucket / "data")


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_bucket_nothing_happens(nothing, tmp_path):
    ended = fetch(nothing, str(tmp_path / "data"))
    assert ended.returncode == 0 and "no ERMGAP_BUCKET" in ended.stdout
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("my-bucket", "names no bucket"),
        (Path("/nonexistent").as_uri(), "is empty"),
    ],
)
def test_a_wrong_bucket_is_said_in_one_sentence(named, said, tmp_path):
    ended = fetch(named, str(tmp_path / "data"))
    assert ended.returncode == 1 and said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_target_that_cannot_be_written_is_said_in_one_sentence(bucket, tmp_path):
    (tmp_path / "file").write_text("")
    ended = fetch(f"file://{bucket}", str(tmp_path / "file" / "data"))
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1


def test_the_target_is_asked_for():
    assert "give one folder" in fetch(Path("/x").as_uri()).stderr
