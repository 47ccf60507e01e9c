"""Configurations trained one after another without Ray, for figures that take many runs.

Records accumulate in a JSON-lines file, one row per (name, fold, seed): a script that is stopped
goes on where it was. Used by the `figures_*.py` beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results"
TRUNK = "ERM"
ADAPTERS = Path(__file__).parents[2] / "results" / "figures-adapters"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a figure: a name for the table, the changes to the preset, the seed.

    Attributes:
        keep: the figure whose adapters are kept; `adapter` is the folder of this run's.
        branch: the epoch of the run TRUNK of its fold and seed that it is equal up to, and begins
            with where that run came before it in this process.
    """

    name: str
    changes: dict
    seed: int = 0
    fold: int = 0
    keep: str = ""
    branch: int = 0

    @property
    def key(self) -> tuple:
        return self.name, self.fold, self.seed

    @property
    def adapter(self) -> Path:
        name = self.name.replace("/", "-")
        return ADAPTERS / self.keep / f"{name}, fold {self.fold}, seed {self.seed}"


def run_all(
    preset: str,
    runs: Iterable[Run],
    *,
    file: Path,
    common: Mapping | None = None,
    kept: Callable[[pd.DataFrame, list[dict]], dict] = lambda predictions, rows: {},
) -> list[dict]:
    """Train every run that the file does not hold yet; returns all of the file's rows.

    Args:
        preset: name of the preset that the runs change.
        runs: what to run.
        file: JSON lines, appended after each run.
        common: changes to the preset that all runs share.
        kept: of the predictions of the selected epoch and the rows of all epochs, further keys of
            the run's row.
    """
    import torch

    from ermgap import config, keep_freed_memory
    from ermgap.distributed import World
    from ermgap.training import checkpoint
    from ermgap.training.trainer import TrialSpec, train
    from sweeps.setup import plan

    keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("THREADS", os.cpu_count() or 1)))
    base = config.load(plan.preset_path(preset)).replace(common or {})
    prepared: dict = {}
    runs = list(runs)
    longest = max((run.branch for run in runs), default=0)
    for run in runs:
        if run.key in {row_key(row) for row in read(file)}:
            continue
        settings = base.replace({"data.fold": run.fold, "train.seed": run.seed} | run.changes)
        if run.fold not in prepared:
            prepared[run.fold] = prepare(settings)
        speech, shared = prepared[run.fold]
        rows: list[dict] = []
        trunk = f"trunk-{run.seed}"
        spec = TrialSpec(trunk if run.name == TRUNK else "t0000", settings, keep=longest)
        if run.branch and shared.storage.fetch(checkpoint.name_of(trunk, run.branch)).exists():
            branch_from = {"trial": trunk, "epoch": run.branch}
            spec = dataclasses.replace(spec, branch_from=branch_from)
        train(
            spec,
            speech=speech,
            context=shared,
            world=World(),
            report=keep(rows),
            failed=stop,
        )
        if run.keep:
            adapter = shared.storage.fetch_folder(f"adapters/{spec.trial_id}")
            shutil.copytree(adapter, run.adapter, dirs_exist_ok=True)
        predictions = shared.storage.fetch(f"predictions/{spec.trial_id}.parquet")
        append(file, run, rows, kept(pd.read_parquet(predictions), rows))
        print(f"{run.key}: {rows[-1]['selected']}", flush=True)
    return read(file)


def prepare(settings):
    """The backbone and what runs on one split share, files in a temporary folder."""
    from ermgap.distributed import World
    from ermgap.training import context
    from sweeps.setup import plan

    setup = {
        "config": settings.to_dict(),
        "table": plan.make_plan(settings).utterances,
        "storage": tempfile.mkdtemp(),
    }
    return context.prepare(setup, World(), lambda text: None)


def keep(rows: list[dict]):
    """A `report` that keeps rows and always goes on."""

    def report(row: dict) -> bool:
        rows.append(row)
        return True

    return report


def stop(job, reason: str) -> None:
    """A run that cannot go on ends the figure."""
    raise SystemExit(f"error: {job.trial_id}: {reason}")


def append(file: Path, run: Run, rows: list[dict], more: dict) -> None:
    """One line: the selected epoch's dev metrics and gaps, how long the run took, and `more`."""
    (chosen,) = (row for row in rows if row["epoch"] == rows[-1]["selected"]["epoch"])
    line = {
        "name": run.name, "fold": run.fold, "seed": run.seed, "changes": run.changes,
        "selected": rows[-1]["selected"], "gaps": chosen["dev"]["gaps"], "n": chosen["dev"]["n"],
        "raised_share": sum(row["raised_share"] for row in rows) / rows[-1]["epoch"],
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    } | more  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


def read(file: Path) -> list[dict]:
    """All rows so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def row_key(row: dict) -> tuple:
    """What `Run.key` is of a run."""
    return row["name"], row["fold"], row["seed"]


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval by Student's t (runs differ by seed alone)."""
    from analysis import confirmed

    return confirmed.interval(np.asarray(values, dtype=float))


def points(values: np.ndarray, *, sign: str = "") -> str:
    """`12.3 ± 1.2`, mean and interval in points; `sign="+"` also writes that of a positive mean."""
    mean, half = interval(values)
    return f"{100 * mean:{sign}.1f} ± {100 * half:.1f}"


def figure_on_demo(
    name: str,
    systems: Mapping[str, dict],
    seeds: Iterable[int],
    table: Callable[[list], str],
    *,
    keep: Iterable[str] = (),
    more: Sequence[Run] = (),
) -> None:
    """Run each system with each seed on the demo, then write and print the table of their rows.

    Args:
        name: of results/NAME.jsonl and results/NAME.md.
        systems: the changes to the preset, by name.
        table: Markdown of the rows.
        keep: the systems whose adapters are kept; they are run first.
        more: further runs, after these.
    """
    runs = [
        Run(system, changes, seed, keep=name if system in keep else "")
        for seed in seeds
        for system, changes in systems.items()
    ]
    runs = sorted([*runs, *more], key=lambda run: not run.keep)
    rows = run_all("demo", runs, file=RESULTS / f"{name}.jsonl")
    text = table([row for row in rows if row["name"] in systems])
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
