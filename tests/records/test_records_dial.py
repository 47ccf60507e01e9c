"""The rows of positions on lines between two adapters: committed, read, and kept in a bucket."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from ermgap.records import POSITIONS, Records, Storage, bucket_mirror, dial_id, file_names, parse_id
from ermgap.records.bucket_mirror import restore


def row(position: float, *, lower: str = "t0000", upper: str = "t0007", acc: float = 0.5) -> dict:
    name = dial_id(lower, upper, position)
    return {"id": name, "lower": lower, "upper": upper, "position": position,
            "dev": {"acc": acc, "max_gap": float("nan")}, "seconds": 0.1, "time": 1.0}  # fmt: skip


@pytest.fixture
def records(tmp_path):
    return Records.create(tmp_path / "demo", sweep={"config": {}}, table=pd.DataFrame({"a": [1]}))


def test_an_id_names_both_ends_and_the_position():
    assert dial_id("t0000", "t0007", 0.7) == "t0000-t0007@0.7"
    assert dial_id("t0000", "t0007", 1.0) == "t0000-t0007@1"
    for position in POSITIONS:
        assert parse_id(dial_id("t0000", "t0010", position)) == ("t0000", "t0010", position)
    assert [parse_id(name) for name in ("t0000", "t0000-t0001", "@1", "t0@x")] == [None] * 4


def test_rows_are_read_in_order_the_newest_of_an_id(records):
    assert records.dial() == []
    for position, acc in ((0.0, 0.5), (0.1, 0.6), (0.0, 0.7)):
        records.append_dial(row(position, acc=acc))
    assert [(r["position"], r["dev"]["acc"]) for r in records.dial()] == [(0.0, 0.7), (0.1, 0.6)]
    assert records.dial()[0]["dev"]["max_gap"] is None
    assert Records.open(records.directory).dial() == records.dial()
    assert records.trials() == []


def test_half_written_lines_and_names_that_are_paths_are_omitted(records):
    records.append_dial(row(0.3))
    with open(records.directory / file_names.DIAL, "ab") as file:
        file.write(b'{"id": "t0000-t00')
    assert [r["position"] for r in records.dial()] == [0.3]
    records.append_dial(row(0.4))
    records.append_dial(row(0.4, lower="../x"))
    records.append_dial(row(0.5) | {"id": "t0000-t0007@0.6"})
    assert [r["position"] for r in records.dial()] == [0.3, 0.4]
    lines = (records.directory / file_names.DIAL).read_bytes().splitlines()
    assert json.loads(lines[2])["position"] == 0.4  # on a line of its own


def test_a_bucket_keeps_the_rows(tmp_path, bucket):
    uri = f"{bucket.uri}/demo"
    records = Records.create(
        tmp_path / "demo",
        sweep={"config": {}, "storage": uri},
        table=pd.DataFrame({"a": [1]}),
    )
    with bucket_mirror.Mirror(records):
        pass
    records.append_dial(row(0.3))
    bucket_mirror.upload(records, [file_names.DIAL])
    assert Storage(uri).fetch(file_names.DIAL).exists()
    assert Records.open(restore(uri, tmp_path / "other")).dial() == records.dial()
