"""The paper's table: systems by accuracy and gaps, per language and modality.

    python sweeps/benchmark.py --preset paper --data meld_st=PATH --split test \\
        --models zero-shot erm minmaxgap-adaptive
    python sweeps/benchmark.py --preset small --data emodb=PATH --data ravdess=PATH \\
        --folds 5 --models zero-shot all
    python sweeps/benchmark.py --data meld_st=PATH --models openai=MODEL@URL voxtral=FOLDER

A row is a system that is trained here (sweeps/systems.yaml; `all` is every one of them) or one that
is asked (zero-shot, generated, voxtral=FOLDER, openai=MODEL@URL, adapter=DIR). With `--folds`, each
is trained once a fold and judged on speakers that it has not heard, all folds pooled; its last
epoch counts, since choosing one on the utterances that are reported would flatter. Models answer on
the workers, with the device of `sweep.device`; an endpoint is asked from here. Writes
benchmark.csv, .tex, .html and .md; `--resume DIR` goes on after a crash, and asks nothing twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

if __name__ == "__main__":  # not the folder of the command, which would shadow others' modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ermgap.baselines import arguments
from ermgap.config import from_dict
from ermgap.errors import UserError, command_line, in_shell
from ermgap.records import Records
from ermgap.registry import load_plugins
from sweeps.scheduler import evaluation
from sweeps.scheduler.machines import machine
from sweeps.scoring import folds, judging, tables
from sweeps.scoring.folds import Benchmark
from sweeps.scoring.systems import DEFAULT, rows_of
from sweeps.setup import command_line as cli
from sweeps.setup import folders, plan

OPTIONS = ("split", "folds", "baseline")  # kept in sweep.yaml under these names
# Columns of the utterances that may not change between a benchmark and its `--resume`.
UNCHANGED = "utterance_id language gender speaker group emotion transcript split".split()


def options() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = cli.options(__doc__.splitlines()[0], many=False)
    parser.add_argument(
        "--models", nargs="+", metavar="NAME[=ARG]", help=f"rows; by default {' '.join(DEFAULT)}"
    )
    parser.add_argument("--split", choices=("dev", "test"), help="dev by default")
    parser.add_argument("--folds", type=int, metavar="N", help="every one of N speaker folds")
    parser.add_argument("--baseline", metavar="NAME", help="the row that others are compared with")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    from sweeps.scheduler import driver

    given = cli.parse(options(), arguments)
    cli.refuse_uri(given, "resume")
    benchmark = _reopened(given) if given.resume else _new(given)
    if not given.dry_run and (benchmark.untrained or judging.on_workers(benchmark)):
        driver.begin(given.address)
    plans = {fold: plan.make_plan(benchmark.config_of(fold)) for fold in benchmark.fold_numbers}
    first = plans[benchmark.fold_numbers[0]]
    print(first.description)
    judged = folds.judged_of(benchmark, plans)
    _require(benchmark, judged, first.utterances, given)
    print(_budget(benchmark, judged))
    if given.dry_run:
        return 0
    if judging.on_workers(benchmark):
        evaluation.require(benchmark.config, given.address)
    if benchmark.untrained:
        config = benchmark.config_of(benchmark.untrained[0])
        driver.make_ready(
            config, given.address, benchmark.folder, benchmark.storage, trials=config.sweep.trials
        )
    records = _records(benchmark, first, resumed=bool(given.resume))
    print(f"results: {benchmark.folder}")
    place = in_shell(benchmark.folder)
    stopped = f"stopped; continue with: python sweeps/benchmark.py --resume {place}"
    if status := folds.train(benchmark, plans, address=given.address):
        print(stopped)
        return status
    try:
        predictions = judging.predictions(benchmark, judged, address=given.address)
    except (UserError, KeyboardInterrupt):
        print(stopped)
        raise
    if not given.address:
        machine.leave()
    tables.write(
        dict(predictions.values()),
        config=benchmark.config,
        utterances=first.utterances,
        folder=benchmark.folder,
        baseline=predictions[benchmark.baseline][0] if benchmark.baseline in predictions else None,
    )
    records.mark_done()
    return 0


# The options --------------------------------------------------------------------------------------


def _new(given: argparse.Namespace) -> Benchmark:
    config = cli.make_config(given)
    rows = rows_of(given.models or DEFAULT)
    if "=" in (given.baseline or ""):
        given.baseline = arguments.absolute(given.baseline)
    if given.baseline and given.baseline not in [row.spec for row in rows]:
        raise UserError(f"--baseline {given.baseline} is not one of the rows; add it to --models.")
    if given.folds is not None and given.split == "test":
        raise UserError("--folds judges each fold's own speakers; omit --split test.")
    if given.folds is not None and given.folds < 2:
        raise UserError(f"--folds {given.folds} is not possible: two folds or more are needed.")
    return Benchmark(
        config,
        rows,
        split=given.split or "dev",
        folds=given.folds,
        baseline=given.baseline or next((row.spec for row in rows if row.spec == "erm"), None),
        folder=folders.output_folder(given.out or folders.default_folder(given, "benchmark")),
        storage=given.storage,
    )


def _reopened(given: argparse.Namespace) -> Benchmark:
    records = Records.open(given.resume)
    folders.require_kind(records, "benchmark")
    sweep = records.sweep
    if "models" not in sweep:
        raise UserError(
            f"{given.resume} is a fold of a benchmark; resume the folder above it, "
            f"--resume {in_shell(Path(given.resume).absolute().parent)}."
        )
    usual = options().parse_args([])
    free = ("resume", "address", "dry_run")
    named = [k for k, v in vars(given).items() if k not in free and v != getattr(usual, k)]
    if named:
        flags = ", ".join("--" + name.replace("_", "-") for name in named)
        raise UserError(
            f"--resume continues with what {given.resume} was started with; omit "
            f"{flags.replace('--settings', '--set')}, or begin another benchmark with --out."
        )
    config = from_dict(sweep["config"], where=f"{given.resume}/sweep.yaml")
    load_plugins(config.plugins)
    kept = {name: sweep[name] for name in (*OPTIONS, "storage")}
    return Benchmark(config, rows_of(sweep["models"]), folder=Path(given.resume), **kept)


def _require(
    benchmark: Benchmark, judged: pd.DataFrame, utterances: pd.DataFrame, given: argparse.Namespace
) -> None:
    """UserError for what cannot be run, before anything is written."""
    from sweeps.running import run_sweep

    if given.resume:
        _require_same(benchmark, utterances)
    if benchmark.untrained:
        run_sweep.require(benchmark.config_of(benchmark.untrained[0]), given.address)
    if judged.empty:
        raise UserError(
            f"the corpora have no {benchmark.split} utterances; omit --split {benchmark.split}, "
            "or give a corpus or a manifest that names its splits."
        )
    if len(empty := set(benchmark.fold_numbers) - set(judged["fold"])):
        raise UserError(
            f"fold {min(empty)} holds no utterance out that an earlier one does not (corpora that "
            "come with their own splits are not dealt anew); give fewer --folds, or none."
        )
    judging.require(benchmark, judged)


def _require_same(benchmark: Benchmark, utterances: pd.DataFrame) -> None:
    """UserError for other utterances than at the start: trained folds may have heard them."""
    known = Records.open(benchmark.folder).table()
    columns = list(dict.fromkeys([*UNCHANGED, *benchmark.config.objective.attribute]))
    then, now = (
        table[columns].astype(str).sort_values(UNCHANGED[0], ignore_index=True)
        for table in (known, utterances)
    )
    if not then.equals(now):
        raise UserError(
            f"the corpora are not what they were when {benchmark.folder} was begun ({len(then)} "
            f"utterances then, {len(now)} now); restore them, or begin another with --out."
        )


def _budget(benchmark: Benchmark, judged: pd.DataFrame) -> str:
    config, each = benchmark.config, f" on each of {benchmark.folds} folds" * bool(benchmark.folds)
    trained = f"{len(benchmark.trained)} of them trained{each} for {config.train.epochs} epochs"
    return (
        f"benchmark: {len(benchmark.rows)} systems, "
        f"{trained if benchmark.trained else 'none trained'}; judged on {len(judged)} "
        f"{benchmark.split} utterances in {' and '.join(config.data.modalities)}"
    )


def _records(benchmark: Benchmark, planned: plan.Plan, *, resumed: bool) -> Records:
    if resumed:
        records = Records.open(benchmark.folder)
    else:
        sweep = plan.describe_sweep(
            benchmark.config,
            preset="benchmark",
            utterances=planned.utterances,
            storage=benchmark.storage,
            provenance=planned.provenance,
        )
        sweep |= {"kind": "benchmark", "models": [row.spec for row in benchmark.rows]}
        sweep |= {name: getattr(benchmark, name) for name in OPTIONS}
        records = Records.create(benchmark.folder, sweep=sweep, table=planned.utterances)
    records.lock()
    records.clear_done()
    return records


if __name__ == "__main__":
    command_line(main)
