"""How to fill a CPU: slots of one thread, one slot of all threads, or gangs of K configurations.

    python tests/benchmarks/bench_gang.py          # the demo's data and preset `small`; 3 minutes

Each row is a layout: so many processes at once, each with so many threads and a gang of K. What
counts is milliseconds a configuration and step: wall time of a step / (K x processes). Memory is a
process's private pages (what one slot more would cost beside Ray's own processes). Writes
tests/benchmarks/results/gang-<machine>.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20


def main() -> int:
    """Measure each layout in processes of its own; print and write a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=2, type=int, metavar=("THREADS", "GANG"))
    parser.add_argument("--gangs", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(*given.child)))
        return 0
    cores = os.cpu_count() or 1
    layouts = [(1, cores, gang) for gang in given.gangs]
    layouts += [(cores, 1, gang) for gang in given.gangs] if cores > 1 else []
    rows = [side_by_side(*layout) for layout in layouts]
    name = machine.slug(machine.cpu_model())
    path = Path(__file__).parent / "results" / f"gang-{name}.json"
    described = machine.describe("cpu", threads=cores)
    path.write_text(json.dumps({"machine": described, "layouts": rows}, indent=1) + "\n")
    for row in rows:
        print(row)
    return 0


def side_by_side(processes: int, threads: int, gang: int) -> dict:
    """The layout's figures: means over its processes."""
    command = [sys.executable, __file__, "--child", str(threads), str(gang)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    passive = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "PYTHONPATH": path}
    started = [
        subprocess.Popen(
            command, env=os.environ | passive, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(processes)
    ]
    told = [json.loads(one.communicate()[0].splitlines()[-1]) for one in started]
    mean = {key: statistics.mean(one[key] for one in told) for key in told[0]}
    return {
        "processes": processes,
        "threads": threads,
        "gang": gang,
        "ms_a_configuration_and_step": round(mean["step_ms"] / gang / processes, 1),
        "eval_s_a_configuration": round(mean["eval_s"] / gang / processes, 3),
        "private_mb_a_process": round(mean["private_mb"]),
        "adapter_reset_ms": round(mean["reset_ms"], 1),
    }


def measure(threads: int, gang: int) -> dict[str, float]:
    """One process: median step, an evaluation, an adapter's reset, private memory."""
    import torch

    from ermgap import config, keep_freed_memory
    from ermgap.distributed import World
    from ermgap.training import context
    from ermgap.training.batch_sampler import epoch_batches
    from ermgap.training.evaluation import label_log_probabilities
    from ermgap.training.trainer import Gang, Job
    from sweeps.setup import plan

    keep_freed_memory()
    torch.set_num_threads(threads)
    settings = config.load(plan.preset_path("small")).replace({"data.corpora": ["demo"]})
    table = plan.make_plan(settings).utterances
    with tempfile.TemporaryDirectory() as storage:
        needed = {"config": settings.to_dict(), "table": table, "storage": storage}
        speech, shared = context.prepare(needed, World(), lambda text: None)
        jobs = [Job(f"t{k:04d}", settings) for k in range(gang)]
        trained = Gang(jobs, speech=speech, material=shared, world=World())
        for member in trained.members:
            member.begin_epoch()
        speech.training, times = True, []
        batches = epoch_batches(trained.strata, batch=settings.train.batch, seed=0, epoch=1)
        for rows in itertools.islice(
            itertools.cycle(batches), 2 * STEPS
        ):  # the first half warms up
            begun = time.perf_counter()
            trained.train_step(rows)
            times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        size = settings.train.eval_batch
        label_log_probabilities(speech, shared.dev, world=World(), batch=size)
        evaluated = time.perf_counter()
        speech.reset_adapter(settings.adapter, seed=1)
        reset = time.perf_counter()
    return {
        "step_ms": 1e3 * statistics.median(times[STEPS:]),
        "eval_s": evaluated - begun,
        "reset_ms": 1e3 * (reset - evaluated),
        "private_mb": private_mb(),
    }


def private_mb() -> float:
    """Pages that this process shares with no other, in MB."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return machine.peak_memory_mb("cpu")
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1e3


if __name__ == "__main__":
    raise SystemExit(main())
