"""What the ledger of a session does about trials that ended in an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest
from broker_story import create, row

from ermgap import config
from ermgap.records import Records
from ermgap.records.bucket_mirror import restore
from sweeps.recording.ledger import Ledger
from sweeps.scheduler import driver


@pytest.fixture(params=["folder", "bucket"])
def records(request, tmp_path: Path) -> Records:
    """A sweep whose driver was killed just after t0000 ended, while t0001 was running."""
    records = Records.open(create(tmp_path / "sweep"))
    if request.param == "bucket":
        uri = request.getfixturevalue("bucket").uri
        records.write_sweep(records.sweep | {"storage": f"{uri}/{tmp_path.name}"})
    for trial_id, status in {"t0000": "finished", "t0001": "running"}.items():
        job = {"trial_id": trial_id, "attempt": 1, "hyperparameters": {"loss": "erm"}}
        records.append(row(job, 1) | {"status": status})
        for epoch in (1, 2):
            name = f"checkpoints/{trial_id}/epoch-{epoch:04d}.pt"
            records.store.write(name, lambda path: path.write_text("state"))
    return records


def test_checkpoints_that_a_killed_session_left_go_when_their_trial_has_ended(records):
    assert records.with_checkpoints() == {"t0000", "t0001"}
    settings = config.from_dict(records.sweep["config"])
    Ledger(records, settings).close()
    assert records.with_checkpoints() == {"t0001"}
    assert records.store.names("checkpoints", recursive=True) == [
        "t0001/epoch-0001.pt",
        "t0001/epoch-0002.pt",
    ]


def test_a_session_that_was_killed_after_its_last_row_is_cleared_up_after(records, tmp_path):
    settings = config.from_dict(records.sweep["config"]).replace({"sweep.trials": 1})
    driver.run(settings, records, address=None)
    assert records.with_checkpoints() == set()
    if records.in_bucket:
        elsewhere = Records.open(restore(records.sweep["storage"], tmp_path / "elsewhere"))
        assert elsewhere.rows() == records.rows()
