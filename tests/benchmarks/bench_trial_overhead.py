"""What a trial costs outside its steps: 12 trials over long-lived worker groups.

    python tests/benchmarks/bench_trial_overhead.py                 # about two minutes
    python tests/benchmarks/bench_trial_overhead.py --slots 1 --trials 24

Runs real sweeps of `random-tiny` and reads the rows they leave. `pause` is the time of a slot from
the last epoch of one trial to the first step of the next: the row, the answer to the Tune trial,
the searcher's next proposal, a new adapter. `whole` shares everything that is not an epoch between
the trials, the start and end of Ray and of the worker groups included. Writes
tests/benchmarks/results/trial_overhead.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "trial_overhead.json"


def main() -> None:
    """Measure, print a table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    measured = [measure(trials=given.trials, slots=slots) for slots in given.slots]
    print(table(measured))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "measured": measured}
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"written: {given.out.relative_to(ROOT) if ROOT in given.out.parents else given.out}")


def measure(*, trials: int, slots: int) -> dict:
    """One sweep of two epochs a trial; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        load, started = os.getloadavg()[0], time.time()
        command = [sys.executable, str(ROOT / "sweeps" / "pareto.py"), "--smoke-test"]
        command += ["--trials", str(trials), "--set", f"sweep.slots={slots}", "--out", "out"]
        subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        ended = time.time()
        lines = (Path(folder) / "out" / "trials.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "dev" in row]
    return {"trials": trials, "slots": slots, "load_before": round(load, 1)} | overhead(
        rows, started=started, ended=ended
    )


def overhead(rows: list[dict], *, started: float, ended: float) -> dict:
    """Pauses between consecutive trials of a slot, and the whole, from epoch rows; seconds."""
    trials: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row["time"]):
        trials.setdefault(row["trial_id"], []).append(row)
    slots: dict[str, list[list[dict]]] = {}
    for trained in trials.values():
        slots.setdefault(trained[0]["slot"], []).append(trained)
    pauses = [
        following[0]["time"] - following[0]["seconds"] - trained[-1]["time"]
        for slot in slots.values()
        for trained, following in itertools.pairwise(slot)
    ]
    first = min(row["time"] - row["seconds"] for row in rows)
    last = max(row["time"] for row in rows)
    epochs = sum(row["seconds"] for row in rows) / len(slots)
    return {
        "pauses_s": [round(pause, 3) for pause in pauses],
        "pause_median_s": round(statistics.median(pauses), 3),
        "pause_worst_s": round(max(pauses), 3),
        "start_s": round(first - started, 1),
        "end_s": round(ended - last, 1),
        "wall_s": round(ended - started, 1),
        "whole_per_trial_s": round((ended - started - epochs) / len(trials), 2),
    }


def table(measured: list[dict]) -> str:
    """The measurements, one a line."""
    keys = ("slots", "trials", "pause_median_s", "pause_worst_s", "start_s", "end_s", "wall_s")
    keys += ("whole_per_trial_s", "load_before")
    rows = [keys, *([str(run[key]) for key in keys] for run in measured)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(keys))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def machine() -> dict:
    """What the numbers were measured on; no host name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": cores,
        "system": platform.system(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
