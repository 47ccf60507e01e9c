"""The paper's table: systems by accuracy and gender gaps, per language and modality.

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

COMMAND = "python sweeps/benchmark.py"
# What may not change between a benchmark and its `--resume`.
TOLD = ("utterance_id", "language", "gender", "speaker", "group", "emotion", "transcript", "split")


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
    asked = _reopened(given) if given.resume else _asked(given)
    if not given.dry_run and (asked.left or judging.on_workers(asked)):
        driver.begin(given.address)
    plans = {fold: plan.make_plan(asked.of_fold(fold)) for fold in asked.parts}
    first = plans[asked.parts[0]]
    print(first.words)
    judged = folds.judged_of(asked, plans)
    _require(asked, judged, first.utterances, given)
    print(_budget(asked, judged))
    if given.dry_run:
        return 0
    if judging.on_workers(asked):
        evaluation.require(asked.config, given.address)
    if asked.left:
        first_left = asked.of_fold(asked.left[0])
        driver.make_ready(
            first_left, given.address, asked.folder, asked.storage, left=first_left.sweep.trials
        )
    records = _records(asked, first.utterances, resumed=bool(given.resume))
    print(f"results: {asked.folder}")
    if status := folds.train(asked, plans, address=given.address):
        print(f"stopped; go on with: {COMMAND} --resume {in_shell(asked.folder)}")
        return status
    try:
        found = judging.predictions(asked, judged, address=given.address)
    except (UserError, KeyboardInterrupt):
        print(f"stopped; go on with: {COMMAND} --resume {in_shell(asked.folder)}")
        raise
    if not given.address:
        machine.leave()
    tables.tell(
        dict(found.values()),
        config=asked.config,
        utterances=first.utterances,
        folder=asked.folder,
        baseline=found[asked.baseline][0] if asked.baseline in found else None,
    )
    records.mark_done()
    return 0


# What is asked for --------------------------------------------------------------------------------


def _asked(given: argparse.Namespace) -> Benchmark:
    config = cli.make_config(given)
    rows = rows_of(given.models or DEFAULT)
    if "=" in (given.baseline or ""):
        given.baseline = arguments.absolute(given.baseline)
    if given.baseline and given.baseline not in [row.spec for row in rows]:
        raise UserError(f"--baseline {given.baseline} is not one of the rows; add it to --models.")
    if given.folds is not None and given.split == "test":
        raise UserError("--folds judges each fold's own speakers; leave --split test away.")
    if given.folds is not None and given.folds < 2:
        raise UserError(f"--folds {given.folds}: two folds or more are needed.")
    baseline = given.baseline or next((row.spec for row in rows if row.spec == "erm"), None)
    folder = folders.output_folder(given.out or folders.default_folder(given, "benchmark"))
    split = given.split or "dev"
    return Benchmark(config, rows, split, given.folds, baseline, folder, given.storage)


def _reopened(given: argparse.Namespace) -> Benchmark:
    records = Records.open(given.resume)
    told = records.sweep
    kind = told.get("kind", "sweep")
    if kind != "benchmark":
        command = "train" if kind == "train" else "pareto"
        raise UserError(
            f"{given.resume} holds no benchmark; it was made by sweeps/{command}.py, so resume it "
            "with that command."
        )
    if "models" not in told:
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
            f"--resume goes on with what {given.resume} was started with; leave away "
            f"{flags.replace('--settings', '--set')}, or begin another benchmark with --out."
        )
    config = from_dict(told["config"], where=f"{given.resume}/sweep.yaml")
    load_plugins(config.plugins)
    return Benchmark(
        config,
        rows_of(told["models"]),
        told["split"],
        told["folds"],
        told["baseline"],
        Path(given.resume),
        told["storage"],
    )


def _require(
    asked: Benchmark, judged: pd.DataFrame, utterances: pd.DataFrame, given: argparse.Namespace
) -> None:
    """Refuse what cannot be run, before anything is written."""
    from sweeps.running import run_sweep

    if given.resume:
        _require_same(asked, utterances)
    if asked.left:
        run_sweep.require(asked.of_fold(asked.left[0]), given.address)
    if judged.empty:
        raise UserError(
            f"the corpora have no {asked.split} utterances; leave --split {asked.split} away, "
            "or give a corpus or a manifest that names its splits."
        )
    if len(empty := set(asked.parts) - set(judged["fold"])):
        raise UserError(
            f"fold {min(empty)} holds no utterance out that an earlier one does not (corpora that "
            "come with their own splits are not dealt anew); give fewer --folds, or leave it away."
        )
    judging.require(asked, judged)


def _require_same(asked: Benchmark, utterances: pd.DataFrame) -> None:
    """Other utterances would be dealt to other folds: what is trained would have heard some."""
    known = Records.open(asked.folder).table()
    then, now = (
        table[list(TOLD)].astype(str).sort_values(TOLD[0], ignore_index=True)
        for table in (known, utterances)
    )
    if not then.equals(now):
        raise UserError(
            f"the corpora are not what they were when {asked.folder} was begun ({len(then)} "
            f"utterances then, {len(now)} now); restore them, or begin another with --out."
        )


def _budget(asked: Benchmark, judged: pd.DataFrame) -> str:
    each = f" on each of {asked.folds} folds" if asked.folds else ""
    trained = f"{len(asked.trained)} of them trained{each} for {asked.config.train.epochs} epochs"
    return (
        f"benchmark: {len(asked.rows)} systems, {trained if asked.trained else 'none trained'}; "
        f"judged on {len(judged)} {asked.split} utterances in "
        f"{' and '.join(asked.config.data.modalities)}"
    )


def _records(asked: Benchmark, utterances: pd.DataFrame, *, resumed: bool) -> Records:
    if resumed:
        records = Records.open(asked.folder)
    else:
        told = plan.describe_sweep(
            asked.config, preset="benchmark", utterances=utterances, storage=asked.storage
        )
        told |= {"kind": "benchmark", "models": [row.spec for row in asked.rows]}
        told |= {"split": asked.split, "folds": asked.folds, "baseline": asked.baseline}
        records = Records.create(asked.folder, sweep=told, table=utterances)
    records.lock()
    records.clear_done()
    return records


if __name__ == "__main__":
    command_line(main)
