"""Searches compared: hypervolume against epochs, on test problems and on a surrogate of training.

    make peers                  # Syne Tune in an environment of its own
    make figures-search         # resumable: a row a (problem, contender, seed) in search.jsonl
    make figures-search ARGS="--design PATH"    # first run and pack the design of search_design.py

Every contender has the epochs of 40 full trials, one trial at a time. What counts is the
hypervolume of the true values of trials that ran to their end. Writes results/search-MACHINE.json
(medians over seeds with 95 % bootstrap intervals) and .png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from multiprocessing import Pool
from pathlib import Path

import search_design

from analysis.front import front

HERE = Path(__file__).parent
ROWS = HERE / "results" / "search.jsonl"
PEERS = HERE.parents[1] / ".venv-peers-search" / "bin" / "python"
SYNE_TUNE = ("MOASHA", "MO-REA", "EHVI")


def main() -> None:
    """Run what is missing, then write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--problems", nargs="+", help="by default all of them")
    parser.add_argument("--contenders", nargs="+", help="by default all of them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--design", type=Path, help="folder of the surrogate's sweep")
    parser.add_argument("--data", nargs="+", help="its corpora: emodb=PATH ravdess=PATH")
    given = parser.parse_args()
    if given.design:
        make_design(given.design, given.data or [])
    done = {(row["problem"], row["contender"], row["seed"]) for row in read()}
    jobs = [
        (problem, contender, seed)
        for seed in range(given.seeds)
        for contender in given.contenders or contenders()
        for problem in given.problems or search_design.problems()
        if (problem, contender, seed) not in done
    ]
    with Pool(given.processes, maxtasksperchild=20) as pool:
        for row in pool.imap_unordered(one, jobs):
            with open(ROWS, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
    import search_report

    search_report.write(read())


def make_design(folder: Path, data: list[str]) -> None:
    """The random design of search_design.py (45 minutes on two cores), and its packed file."""
    command = [sys.executable, "sweeps/pareto.py"]
    if (folder / "sweep.yaml").exists():
        command += ["--resume", str(folder)]
    else:
        command += ["--preset", "small", "--trials", "68", "--out", str(folder)]
        command += ["--data", *data] if data else []
        for key, value in search_design.SETTINGS.items():
            command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True)
    search_design.pack(folder)


def contenders() -> list[str]:
    """All contenders; Syne Tune's where its environment is."""
    import search_ours

    peers = SYNE_TUNE if PEERS.exists() else ()
    return [*search_ours.CONTENDERS, *peers]


def one(job: tuple[str, str, int]) -> dict:
    """A row: the hypervolume (a share of the box) after each trial that improved it."""
    which, contender, seed = job
    problem = search_design.problems()[which]
    if contender in SYNE_TUNE:
        script = HERE / "search_syne_tune.py"
        command = [PEERS, script, contender, which, str(seed)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        ended = json.loads(told.splitlines()[-1])
    else:
        import optuna
        import search_ours
        import torch

        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        ended = search_ours.CONTENDERS[contender](problem, seed)
    row = {"problem": which, "contender": contender, "seed": seed}
    return row | {"finished": len(ended), "steps": steps(problem, ended)}


def steps(problem, ended: list) -> list[list[float]]:
    """[[full trials' worth of epochs spent, hypervolume], ...] where it grew."""
    found, inside, best = [], [], 0.0
    for spent, values in ended:
        inside.append(values)
        volume = front.hypervolume(
            inside,
            reference=problem.reference,
            directions=["min"] * problem.objectives,
            ideal=problem.ideal,
        )
        if volume > best + 1e-9:
            best = volume
            found.append([round(spent / problem.epochs, 3), round(volume, 5)])
    return found


def read() -> list[dict]:
    """All rows so far."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


if __name__ == "__main__":
    main()
