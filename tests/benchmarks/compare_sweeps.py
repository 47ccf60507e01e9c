"""Two sweeps of one table, by accuracy and largest gap: their times, and how good their fronts are.

    python tests/benchmarks/compare_sweeps.py results/before results/after

The hypervolume of each sweep's front is taken anew on resampled dev speakers (400 times, the same
speakers for both; analysis/statistics/speaker_sums.py says how), which gives its interval. Prints
the figures and writes tests/benchmarks/results/sweeps.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.front import front
from analysis.statistics import SpeakerSums
from ermgap.records import Records

RESULTS = Path(__file__).parent / "results" / "sweeps.json"
RESAMPLES = 400


def main() -> None:
    """Measure both, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    drawn = {name: resampled(Records.open(getattr(given, name))) for name in ("before", "after")}
    found = {name: told(*pair) for name, pair in drawn.items()}
    difference = drawn["after"][1] - drawn["before"][1]
    found["difference"] = interval(difference)
    found["time_ratio"] = found["after"]["minutes"] / found["before"]["minutes"]
    text = json.dumps(found, indent=1)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def resampled(records: Records) -> tuple[Records, np.ndarray]:
    """The sweep, and the hypervolume of its front on each resample [RESAMPLES]."""
    values = []
    for trial in records.trials():
        if trial.status != "finished":
            continue
        table = pd.read_parquet(records.storage / "predictions" / f"{trial.trial_id}.parquet")
        values.append(points(table, records))
    info = front.info(records)
    volumes = [
        front.hypervolume(one, reference=info.reference, directions=info.directions)
        for one in np.stack(values, 1)
    ]
    return records, np.array(volumes)


def points(table: pd.DataFrame, records: Records) -> np.ndarray:
    """Accuracy and largest gap of one trial on each resample of the speakers, [RESAMPLES, 2]."""
    sums = SpeakerSums.of(
        {"": table},
        labels=records.sweep["labels"],
        min_support=records.sweep["config"]["data"]["min_support"],
        cell_support=records.sweep["config"]["data"].get("cell_support"),
    )
    return sums.objectives(("acc", "max_gap"), resamples=RESAMPLES)[:, 0]


def told(records: Records, volumes: np.ndarray) -> dict:
    """What is said of one sweep."""
    rows = records.rows()
    minutes = (rows[-1]["time"] - rows[0]["time"]) / 60
    return {
        "trials": len(records.trials()),
        "minutes": minutes,
        "hypervolume": front.info(records).hypervolume,
    } | interval(volumes)


def interval(values: np.ndarray) -> dict[str, float]:
    """Standard error and the middle 95 % of the resamples."""
    low, high = np.quantile(values, (0.025, 0.975))
    return {"se": float(values.std(ddof=1)), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
