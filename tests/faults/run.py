"""The fault table: each fault at random moments of a real sweep, and what was left.

    make faults                                      # whatever is missing of five times each
    make faults ARGS="--only driver_killed --times 20"

A row a run goes to tests/benchmarks/results/faults.jsonl, the table to faults.md beside it. Faults
of disks need root (they mount file systems of their own); a fault that cannot be made here says so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
HELPERS = TESTS / "helpers"
sys.path[:0] = map(str, (TESTS / "faults", HELPERS, HELPERS / "servers", TESTS.parent))

import disks  # noqa: E402
import machines  # noqa: E402
import pandas as pd  # noqa: E402
import processes  # noqa: E402
from scene import Scene  # noqa: E402

from ermgap.errors import UserError  # noqa: E402

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
FAULTS = {
    function.__name__: function
    for function in (
        processes.worker_killed, processes.driver_killed, processes.spot_notice,
        processes.hung_worker, processes.out_of_memory, processes.not_finite,
        machines.node_lost, machines.node_lost_saving, machines.head_lost, machines.clock_jump,
        disks.storage_refuses, disks.bucket_refuses, disks.disk_full, disks.disk_full_for_good,
        disks.corrupt_checkpoint, disks.corrupt_audio, disks.corrupt_audio_killed,
    )
}  # fmt: skip


def main() -> int:
    """Run what is missing, then write the table; 1 if a run did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "faults.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    bad = 0
    for seed in range(given.times):
        for name in given.only:
            if any((one["fault"], one["seed"]) == (name, seed) for one in done):
                continue
            found = once(name, seed)
            print(json.dumps(found), flush=True)
            if "cannot" in found:
                continue
            bad += "wrong" in found
            done.append(found)
            with open(path, "a") as file:
                file.write(json.dumps(found) + "\n")
    (given.out / "faults.md").write_text(table(done))
    print(table(done))
    return int(bad > 0)


def once(name: str, seed: int) -> dict:
    """One fault at one random moment; `wrong` holds what did not go as it should."""
    told = {"fault": name, "seed": seed}
    with tempfile.TemporaryDirectory(prefix="ermgap-fault-") as folder:
        scene = Scene(Path(folder), random.Random(f"{name} {seed}"))
        begun = time.monotonic()
        try:
            FAULTS[name](scene)
            told |= scene.verdict()
        except disks.Impossible as reason:
            return told | {"cannot": str(reason)}
        except (AssertionError, UserError) as problem:
            told |= {"wrong": str(problem)[-3000:], "said": (scene.said or [""])[0]}
        told["wall"] = round(time.monotonic() - begun, 1)
    return told


def table(done: list[dict]) -> str:
    """A row a fault, in Markdown."""
    lines = [
        "# What a sweep survives",
        "",
        f"Sweeps of {TRIALS_WORDS}; the fault strikes at a random moment of training. *Lost*: "
        "trials that had ended by then and whose last row is gone. *Again*: the most committed "
        "epochs of one trial that were trained a second time; the epoch in flight comes on top. "
        "*Seconds*: from the fault to the end of the sweep, median. Written by "
        "`tests/faults/run.py` (`make faults`).",
        "",
        "| fault | times | complete | lost | again | failed trials | seconds | it says |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = pd.DataFrame(done)
    for name, fault in FAULTS.items():
        mine = rows[rows["fault"] == name] if len(rows) else rows
        if not len(mine):
            continue
        good = mine[mine["how"].notna()] if "how" in mine else mine[:0]
        how = " and ".join(
            f"{n} {words}" for words, n in good["how"].str.replace(r" \(.*", "", regex=True)
            .value_counts().items()
        )  # fmt: skip
        said = good.loc[good["said"] != "", "said"]
        lines.append(
            f"| {fault.__doc__} | {len(mine)} | {how or 'none'} | {good['lost'].sum():.0f} of "
            f"{good['ended_before'].sum():.0f} | {good['again'].max():.0f} | "
            f"{good['failed'].sum():.0f} of {good['trials'].sum():.0f} | "
            f"{good['seconds'].median():.0f} | {_short(said.iloc[0]) if len(said) else ''} |"
        )
    return "\n".join(lines) + "\n"


def _short(line: str) -> str:
    """A sentence without the folders of the run."""
    words = [Path(w).name if w.count("/") > 1 and not w.startswith("s3:") else w
             for w in line.removeprefix("error: ").split()]  # fmt: skip
    return " ".join(words).replace("|", "\\|")


TRIALS_WORDS = "four configurations of four epochs, two at a time, on two cores"

if __name__ == "__main__":
    if os.environ.get("ERMGAP_TEST"):
        raise SystemExit("ERMGAP_TEST is set; unset it, each run has its own")
    raise SystemExit(main())
