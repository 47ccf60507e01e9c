"""What the report of a very large sweep costs: 5,000 trials of 20 epochs, 1,200 dev utterances.
And what resampling does: max_gap of 100 systems on 3,000 utterances under 10,000 resamples.

    python tests/benchmarks/bench_report.py [--trials N]

Made-up rows and predictions in a temporary folder. Writes results/report-MACHINE.json: seconds and
peak memory of `analysis.report.write` in a process of its own, sizes, and, where Chromium is, how
long the page takes until it answers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE.parent / "helpers"))

import machine  # noqa: E402
import numpy as np  # noqa: E402

CHILD = """
import json, resource, sys, time
from analysis import report
start = time.perf_counter()
report.write(sys.argv[1], sys.argv[2], quiet=True)
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": time.perf_counter() - start, "peak_memory_mb": used / 1024}))
"""


def main() -> None:
    """Make the sweep, write its report, open it, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = sweep(Path(folder) / "sweep", given.trials)
        plots = Path(folder) / "plots"
        command = [sys.executable, "-c", CHILD, str(records.directory), str(plots)]
        told = json.loads(subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=HERE.parents[1]
        ).stdout)  # fmt: skip
        page = plots / "sweep" / "report.html"
        told |= {"trials": given.trials, "epochs": 20, "page_mb": page.stat().st_size / 1e6}
        told["page_ready_seconds"] = opened(page)
    told["resampling_seconds"] = resampled()
    told = {"machine": machine.cpu_model()} | {
        key: round(value, 2) if isinstance(value, float) else value for key, value in told.items()
    }
    name = f"report-{machine.slug(machine.cpu_model())}.json"
    (HERE / "results" / name).write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


def sweep(directory: Path, trials: int):
    """A folder whose front is as long as a real one's is; 20 sets of predictions, linked."""
    from fake_sweep import LABELS, predictions, utterances, write

    rng = np.random.default_rng(0)
    acc = np.clip(rng.normal(0.55, 0.06, trials), 0.2, 0.72)
    gap = np.maximum(0.01, (acc - 0.38) * 0.45 + rng.exponential(0.04, trials))
    made = [
        {"acc": float(a), "max_gap": float(g), "loss": ("minmaxgap", "erm", "groupdro")[i % 3],
         "config": {"lambda_max": float(10 ** rng.uniform(-2, 1)), "eta": float(rng.random()),
                    "schedule": ("constant", "linear", "adaptive")[i % 3]}}
        for i, (a, g) in enumerate(zip(acc, gap, strict=True))
    ]  # fmt: skip
    records = write(directory, made, with_predictions=False)
    path = directory / "trials.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            chosen = row["selected"] | {"epoch": 20}
            for epoch in range(1, 21):
                status = "finished" if epoch == 20 else "running"
                change = {"epoch": epoch, "status": status, "selected": chosen, "seconds": 1.0}
                file.write(json.dumps(row | change) + "\n")
    table, folder = utterances(n=1200), records.storage / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(trials):
        path = folder / f"t{i:04d}.parquet"
        if i < 20:
            answers = predictions(table, right=0.6, handicap=0.1, seed=i)
            answers.assign(**{f"logp_{label}": -2.0 for label in LABELS}).to_parquet(path)
        else:
            os.link(folder / f"t{i % 20:04d}.parquet", path)
    return records


def resampled() -> float:
    """Seconds for the sums, the draws, and every system's max_gap under each."""
    from fake_sweep import LABELS, predictions, utterances

    from analysis.statistics import SpeakerSums
    from analysis.statistics.speaker_sums import largest_gap

    table = utterances(n=3000, speakers=20)
    systems = {f"s{i}": predictions(table, right=0.6, handicap=0.002 * i, seed=i)
               for i in range(100)}  # fmt: skip
    start = time.perf_counter()
    sums = SpeakerSums.of(systems, labels=LABELS)
    weights = sums.draws(10_000, np.random.default_rng(0))
    for name in systems:
        largest_gap(sums.signed_gaps(weights, name))
    return time.perf_counter() - start


def opened(page: Path) -> float | None:
    """Seconds from opening the page until it answers; None without Chromium."""
    import browser

    if browser.CHROMIUM is None:
        return None

    async def wait(shown) -> float:
        await shown.until("document.getElementById('explorer').dataset.ready === 'yes'")
        start = time.perf_counter()
        await shown.send("Page.reload")
        await shown.until("document.getElementById('explorer')?.dataset.ready === 'yes'")
        return time.perf_counter() - start

    return browser.visit(wait, page, width=1280, height=900)


if __name__ == "__main__":
    main()
