"""Two real sweeps of one seed with one slot: the same rows, but for when and how fast."""

from __future__ import annotations

import pytest
from real_sweep import RealSweep

TIMING = {"time", "seconds", "train_seconds", "eval_seconds", "utterances_per_second"}
TIMING |= {"peak_memory_mb"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "settings",
    [["sweep.slots=1"], ["sweep.slots=2", "sweep.deterministic=true", "sweep.stop_after=1"]],
    ids=["one slot", "two slots"],
)
def test_the_same_seed_gives_the_same_rows_to_the_bit(tmp_path, settings):
    told = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        given = [word for setting in settings for word in ("--set", setting)]
        with RealSweep(
            folder, "pareto.py", "--smoke-test", "--trials", "9", "--out", "out", *given
        ) as sweep:
            assert sweep.ends() == 0, sweep.said
        told.append(by_epoch(sweep.rows()))
    assert len(told[0]) >= 18 and told[0] == told[1]


def by_epoch(rows: list[dict]) -> dict:
    """Rows by trial and epoch, without what depends on the clock and on which slot was free."""
    left_out = TIMING | {"slot"}
    return {
        (row["trial_id"], row["epoch"]): {k: v for k, v in row.items() if k not in left_out}
        for row in rows
    }
