"""Ours against the plain path and ms-swift: steps, evaluation, whole runs, memory, FLOP/s.

    python tests/benchmarks/bench_step.py                     # CPU, `small`, about 20 minutes
    python tests/benchmarks/bench_step.py --device cuda       # the 7B shape, within 9 minutes
    python tests/benchmarks/bench_step.py --shape tiny        # seconds: does every line still work?

Needs torch, transformers, peft and what reads the table; no Ray. Each measurement has a process of
its own, one after another, so that peak memory is its own; what goes wrong in one is written down
and the rest goes on. Writes tests/benchmarks/results/{cpu,gpu}-<machine>.json; README.md beside it
says what is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import measure
import report
from machine import describe, name_of

HERE = Path(__file__).resolve().parent
PEERS = HERE.parents[1] / ".venv-peers" / "bin" / "python"
CHILD_S = {"cpu": 1800, "cuda": 240}
WHOLE_S = {"cpu": 7200, "cuda": 510}


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the file after every measurement, print the table."""
    given = parsed(arguments)
    if given.child:
        return measure.child(given.child)
    content = {
        "machine": describe(given.device, threads=given.threads),
        "setting": {
            "shape": given.shape, "device": given.device, "train": given.train, "dev": given.dev,
            "epochs": given.epochs, "batch": given.batch, "eval_batch": given.eval_batch,
            "adapter": "r 8 on q, k, v, o" if given.shape == "small" else "r 16 on q, k, v, o",
        },
        "measured": {},
    }  # fmt: skip
    given.until = time.perf_counter() + WHOLE_S[given.device]
    out = given.out or HERE / "results" / f"{file_name(given)}.json"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        content["setting"]["data"] = measure.prepare_data(given, work)
        if given.only:
            content["measured"] = earlier(out, content)
        for name, spec in measure.plan(given).items():
            if given.only and name not in given.only:
                continue
            content["measured"][name] = alone(name, spec, given, work)
            write(out, content)
    if given.shape == "small" and (not given.only or "swift" in given.only):
        content["measured"]["swift"] = swift(given)
    content["summary"] = report.summary(content)
    write(out, content)
    print(report.table(content))
    print(f"written: {out}")
    return int(any("error" in one for one in content["measured"].values()))


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, with what depends on the shape filled in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=("small", "tiny", "7b"))
    parser.add_argument("--train", type=int, help="utterances")
    parser.add_argument("--dev", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--eval-batch", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peer-seconds", type=float, help="end the plain path after this epoch")
    parser.add_argument("--only", nargs="+", help="rows, added to the file")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    given.shape = given.shape or ("7b" if given.device == "cuda" else "small")
    defaults = {
        "small": {"train": 192, "dev": 96, "epochs": 5, "batch": 16, "eval_batch": 32},
        "7b": {"train": 512, "dev": 128, "epochs": 3, "batch": 64, "eval_batch": 64},
        "tiny": {"train": 32, "dev": 16, "epochs": 2, "batch": 8, "eval_batch": 8},
    }[given.shape]
    for name, value in defaults.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    if given.peer_seconds is None:
        given.peer_seconds = 360.0 if given.device == "cpu" else 60.0
    return given


def file_name(given: argparse.Namespace) -> str:
    """`cpu-<machine>` or `gpu-<machine>`; a trial of the bench itself says so."""
    kind = "gpu" if given.device == "cuda" else "cpu"
    usual = {"cpu": "small", "cuda": "7b"}[given.device]
    return f"{kind}-{name_of(given.device)}" + ("" if given.shape == usual else f"-{given.shape}")


def earlier(path: Path, content: dict) -> dict:
    """What the file holds already, if it was measured on the same things: `--only` adds to it."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = old.get("setting") == content["setting"]
    same = same and old["machine"]["versions"] == content["machine"]["versions"]
    return old["measured"] if same else {}


def alone(name: str, spec: dict, given: argparse.Namespace, work: Path) -> dict:
    """One measurement in a process of its own; `error` in its place if it fails."""
    print(f"== {name}: {spec['what']}", flush=True)
    request, result = work / "request.json", work / "result.json"
    result.unlink(missing_ok=True)
    cache = measure.empty_cache(work)
    request.write_text(json.dumps(spec | {"work": str(work), "result": str(result)}))
    environment = os.environ | {
        "ERMGAP_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(given.threads),
    }  # fmt: skip
    started, spent = time.perf_counter(), children_seconds()
    command = [sys.executable, str(HERE / "bench_step.py"), "--child", str(request)]
    limit = max(1.0, min(CHILD_S[given.device], given.until - started))
    try:
        ended = subprocess.run(command, env=environment, timeout=limit, check=False)
        told = f"exit code {ended.returncode}"
    except subprocess.TimeoutExpired:
        told = f"not done in {limit:.0f} s"
    found = json.loads(result.read_text()) if result.exists() else {"error": told}
    whole = time.perf_counter() - started
    print(f"   {whole:.0f} s {found.get('error', '')}", flush=True)
    # Far fewer cores than threads: something else ran beside it, or it waited.
    used = (children_seconds() - spent) / whole
    told = {"process_seconds": round(whole, 1), "cores_used": round(used, 2)}
    return {"what": spec["what"]} | found | told


def children_seconds() -> float:
    """Processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def swift(given: argparse.Namespace) -> dict:
    """ms-swift in the peers' environment, if `make peers` has made it."""
    what = "ms-swift in the peers' environment"
    if not PEERS.exists():
        return {"what": what, "skipped": "there is no .venv-peers; `make peers` makes it"}
    print(f"== swift: {what}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        clips = measure.swift_clips(given, Path(folder))
        command = [str(PEERS), str(HERE / "peer_swift.py"), "--folder", str(clips),
                   "--batch", str(given.batch), "--threads", str(given.threads)]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = ended.stdout.strip().splitlines()
    try:
        return {"what": what} | json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"what": what, "error": ended.stderr.strip()[-500:]}


def write(path: Path, content: dict) -> None:
    """The record so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
