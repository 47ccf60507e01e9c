"""What 1,000 concurrent trials ask of the search, the broker and the records: no Ray, no training.

    python tests/benchmarks/bench_scale.py                    # about ten minutes
    python tests/benchmarks/bench_scale.py --only crowd --trials 500 --concurrent 64

Each part in a process of its own, so that memory can be told apart: `crowd` (a sweep of fake
trials, scale_crowd.py), `stopping` (the same with early stopping), `no_search` (the same without a
model), `proposals` (CPU seconds a proposal by known and pending trials), `resume` (what a new
session does before it can train), `memory` (of the processes of a real sweep, scale_memory.py),
`sizes` (scale_sizes.py). Writes results/scale-MACHINE.json; results/scale.md says what follows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE))

import machine  # noqa: E402

PARTS = ("crowd", "stopping", "no_search", "proposals", "resume", "memory", "sizes")
KNOWN, PENDING = (50, 100, 200, 500, 1000, 2000), (64, 1000)


def main() -> None:
    """Run each part in a child, and keep what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--trials", type=int, default=2500)
    parser.add_argument("--concurrent", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of a crowd")
    parser.add_argument("--stop-after", type=int, default=0, help="0: no early stopping")
    parser.add_argument("--sampler", default="front")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(globals()[given.child](given)), flush=True)
        os._exit(0)  # not waiting for events that are still to be written
    name = f"scale-{machine.slug(machine.cpu_model())}.json"
    out = given.out or HERE / "results" / name
    told = json.loads(out.read_text()) if out.exists() else {}
    told["machine"] = {
        "processor": machine.cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
    }
    for part in given.only:
        before = os.getloadavg()[0]
        command = [sys.executable, __file__, "--child", part, *sys.argv[1:]]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        told[part] = {"load_before": round(before, 1)} | json.loads(done.stdout.splitlines()[-1])
        print(part, json.dumps(told[part], indent=1))
        out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def stopping(given) -> dict:
    """As crowd, with early stopping: trials are shorter, and more is proposed."""
    given.stop_after = 3
    return crowd(given)


def no_search(given) -> dict:
    """As crowd, with configurations drawn at random: the broker and the records alone."""
    given.sampler = "random"
    return crowd(given)


def crowd(given) -> dict:
    """Reports a second, memory, bytes, and where the time goes."""
    import scale_crowd
    import scale_memory

    from sweeps.recording.events import Events
    from sweeps.search.journal import Journal
    from sweeps.search.stopping import Rungs

    config = scale_crowd.settings(
        **{
            "sweep.trials": given.trials,
            "sweep.stop_after": given.stop_after or None,
            "sweep.sampler": given.sampler,
        }
    )
    clock = scale_crowd.Clock()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as watched:
        records = scale_crowd.create(Path(place) / "sweep", config)
        made = scale_crowd.Crowd(
            records, config, concurrent=given.concurrent, seconds=given.seconds
        )
        for name, owner, method in (
            ("search, outcomes", type(made.searcher), "on_trial_complete"),
            ("records", type(records), "append"),
            ("fsync (in records and journal)", os, "fsync"),
            ("journal, begun", Journal, "began"),
            ("journal, ended", Journal, "ended"),
            ("stopping rule", Rungs, "beaten"),
            ("making fake rows", scale_crowd.Training, "row"),
        ):
            watched.enter_context(clock.watch(name, owner, method))
        for name, method in (("events, epochs", "_epoch"), ("events, ends", "_ended")):
            watched.enter_context(clock.watch(f"{name} (CPU of its thread)", Events, method,
                                              time.thread_time))  # fmt: skip
        threads = scale_memory.Peak()
        asyncio.run(made.play())
        threads.stop()
        return _crowd(made, records, clock, threads)


def _crowd(made, records, clock, peak) -> dict:
    reports, quarter = made.reports, len(made.reports) // 4
    rows = len(records.rows())
    (early, before), (late, after) = made.memory[len(made.memory) // 2], made.memory[-1]
    sizes = {
        "trials.jsonl": (records.directory / "trials.jsonl").stat().st_size,
        "optuna.journal": (records.directory / "optuna.journal").stat().st_size,
        "tb": sum(p.stat().st_size for p in (records.directory / "tb").rglob("*") if p.is_file()),
    }
    return {
        "concurrent": made.concurrent,
        "trials": made.config.sweep.trials,
        "ended": made.ended,
        "reports": len(reports),
        "seconds": round(made.seconds, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "reports_per_second": round(len(reports) / made.seconds, 1),
        "first_quarter": round(quarter / reports[quarter], 1),
        "last_quarter": round(quarter / (reports[-1] - reports[-quarter]), 1),
        "proposals_per_second": round((len(made.proposals) - made.concurrent) / made.seconds, 2),
        "events_behind": made.behind,
        "proposal_median_s": round(statistics.median(s for _, s in made.proposals), 4),
        "proposal_worst_s": round(max(s for _, s in made.proposals), 3),
        "memory_mb": {str(n): round(mb) for n, mb in made.memory},
        "memory_mb_per_1000_reports_second_half": round(
            (after - before) / max(late - early, 1) * 1000, 2
        ),
        "threads_most": peak.threads,
        "files_open_most": peak.files,
        "bytes_per_row": {name: round(size / rows) for name, size in sizes.items()},
        "megabytes": {name: round(size / 1e6, 1) for name, size in sizes.items()},
        "part_seconds": {name: round(s, 1) for name, s in clock.seconds.items()},
        "part_calls": dict(clock.calls),
    }


def proposals(given) -> dict:
    """CPU seconds a proposal, of eight in a row: the worst fits from nothing."""
    import scale_crowd

    config = scale_crowd.settings(**{"sweep.trials": 10_000})
    found = {}
    for pending in PENDING:
        for known in KNOWN:
            seconds = scale_crowd.proposing(config, known=known, pending=pending, times=8)
            told = {"median": statistics.median(seconds), "worst": max(seconds)}
            found[f"{known} known, {pending} pending"] = {k: round(v, 3) for k, v in told.items()}
    return {"cpu_seconds": found, "peak_memory_mb": machine.peak_memory_mb("cpu")}


def resume(given) -> dict:
    """Seconds and memory until a session of a sweep that is there can begin."""
    import scale_crowd

    return {
        f"{trials} x {epochs} rows": _resume(scale_crowd, trials, epochs)
        for trials, epochs in ((500, 20), (3000, 20))
    }


def memory(given) -> dict:
    """MB of each kind of process of a real sweep."""
    import scale_memory

    return scale_memory.measure()


def sizes(given) -> dict:
    """Bytes and requests of what is stored and sent."""
    import scale_sizes

    return scale_sizes.measure()


def _resume(scale_crowd, trials: int, epochs: int) -> dict:
    from ermgap.records import Records
    from sweeps.scheduler.broker import Broker
    from sweeps.search import searcher

    config = scale_crowd.settings(**{"sweep.trials": trials + 100})
    with tempfile.TemporaryDirectory() as place:
        records = scale_crowd.create(Path(place) / "sweep", config)
        training, draw = scale_crowd.Training(config), searcher.UniformSampler(config)
        with open(records.directory / "trials.jsonl", "w", encoding="utf-8") as file:
            import numpy as np

            for number in range(trials):
                u = np.random.default_rng(number).random(draw.size)
                job = {
                    "trial_id": f"t{number:04d}",
                    "attempt": 1,
                    "hyperparameters": draw.encoding.decode(u),
                }
                for epoch in range(1, epochs + 1):
                    row = training.row(job, epoch)
                    row["status"] = "finished" if row.pop("last") else "running"
                    file.write(json.dumps(row, separators=(",", ":")) + "\n")
        records, found = Records.open(records.directory), {}
        start = time.perf_counter()
        known = records.trials()
        found["read_s"] = round(time.perf_counter() - start, 2)
        start = time.perf_counter()
        searcher.searcher(config, known)
        found["searcher_s"] = round(time.perf_counter() - start, 2)
        del known
        before, start = scale_crowd.resident_mb(), time.perf_counter()
        broker = Broker(str(records.directory))
        found["broker_s"] = round(time.perf_counter() - start, 2)
        found["broker_keeps_mb"] = round(scale_crowd.resident_mb() - before)
        asyncio.run(broker.close())
        found["megabytes"] = round((records.directory / "trials.jsonl").stat().st_size / 1e6, 1)
        found["journal_mb"] = round((records.directory / "optuna.journal").stat().st_size / 1e6, 1)
        return found | {"peak_memory_mb": machine.peak_memory_mb("cpu")}


if __name__ == "__main__":
    main()
