"""The line that a person watches: who trains what, alone or together."""

from __future__ import annotations

from broker_story import create

from ermgap.records import Records
from sweeps.progress import Progress


def line(folder, **status) -> str:
    silent = {"running": {}, "held": {}, "ended": {}, "reasons": {}, "notes": {}, "queued": []}
    return Progress(Records.open(folder), trials=10, epochs=6)._now(silent | status)


def test_the_members_of_a_gang_share_their_epoch_and_slots_are_told_apart(tmp_path):
    folder = create(tmp_path / "sweep")
    said = line(
        folder,
        running={"t0002": 3, "t0003": 3, "t0004": 2, "t0005": 5},
        held={"slot-0": ["t0002", "t0003", "t0004"], "slot-1": ["t0005"]},
        ended={"t0000": "finished", "t0001": "failed"},
    )
    assert "2/10 trials" in said and "1 failed" in said
    assert "t0002+t0003 epoch 3/6, t0004 epoch 2/6, t0005 epoch 5/6" in said


def test_before_anything_trains_it_says_what_the_slots_prepare(tmp_path):
    folder = create(tmp_path / "sweep")
    said = line(folder, notes={"slot-0": "audio features 16/48", "slot-1": "ready"})
    assert "slot-0: audio features 16/48" in said and "slot-1" not in said
