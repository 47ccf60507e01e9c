"""The paper's table: systems by accuracy and gender gaps, per language and modality.

    python sweeps/benchmark.py --preset paper --data meld_st=PATH --split test \\
        --models zero-shot erm minmaxgap-adaptive
    python sweeps/benchmark.py --preset small --data emodb=PATH --data ravdess=PATH \\
        --folds 5 --models zero-shot all
    python sweeps/benchmark.py --data meld_st=PATH --models openai=MODEL@URL voxtral=FOLDER

A row is a system that is trained here (sweeps/systems.yaml; `all` is every one of them) or one that
is asked (zero-shot, generated, voxtral=FOLDER, openai=MODEL@URL, adapter=DIR). With `--folds`, each
is trained once a fold and judged on speakers that it has not heard, all folds pooled; its last
epoch counts, since choosing one on the utterances that are reported would flatter. Writes
benchmark.csv, .tex, .html and .md; `--resume DIR` goes on after a crash, and asks nothing twice.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ermgap import config as configuration
from ermgap.config import Config
from ermgap.errors import UserError, command_line
from ermgap.records import Records, Trial, write_atomically
from ermgap.registry import load_plugins
from ermgap.systems.answers import FAILED
from sweeps import cli, tables
from sweeps import plan as planning
from sweeps.systems import DEFAULT, Row, require_asked, rows_of

COMMAND = "python sweeps/benchmark.py"


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


@dataclasses.dataclass
class Benchmark:
    """What is asked for, as `sweep.yaml` of its folder keeps it."""

    config: Config
    rows: list[Row]
    split: str
    folds: int | None
    baseline: str | None
    folder: Path
    storage: str | None = None  # `--storage`, made absolute

    @property
    def trained(self) -> list[str]:
        """Names of the rows that are trained; the k-th is the trial `t000k` of each fold."""
        return [row.spec for row in self.rows if row.trained]

    @property
    def left(self) -> list[int]:
        """The folds that are still to be trained."""
        return [
            fold for fold in self.parts if self.trained and not (self.of(fold) / "DONE").exists()
        ]

    @property
    def parts(self) -> list[int]:
        """The folds that are run."""
        return list(range(self.folds)) if self.folds else [self.config.data.fold]

    def of(self, fold: int) -> Path:
        """The folder of one fold's records."""
        return self.folder / f"fold-{fold}"

    def of_fold(self, fold: int) -> Config:
        """The configuration of one fold: its speakers held out, every trained row a point."""
        points = {row.spec: row.point for row in self.rows if row.trained}
        changes: dict = {"sweep.points": points, "sweep.trials": max(len(points), 1)}
        if self.folds:
            changes |= {"data.folds": self.folds, "data.fold": fold, "train.select": "last"}
        return self.config.replace(changes)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    from sweeps import driver

    given = cli.parse(options(), arguments)
    cli.refuse_later_flags(given)
    asked = _reopened(given) if given.resume else _asked(given)
    if asked.left and not given.dry_run:
        driver.begin(given.address)
    plans = {fold: planning.make_plan(asked.of_fold(fold)) for fold in asked.parts}
    print(plans[asked.parts[0]].words)
    _require(asked, plans, given)
    print(_budget(asked, plans))
    if given.dry_run:
        return 0
    records = _records(asked, plans, resumed=bool(given.resume))
    print(f"results: {asked.folder}")
    if status := _train(asked, plans, given):
        print(f"stopped; go on with: {COMMAND} --resume {asked.folder}")
        return status
    try:
        found = _predictions(asked, plans)
    except (UserError, KeyboardInterrupt):
        print(f"stopped; go on with: {COMMAND} --resume {asked.folder}")
        raise
    _tell(asked, found, plans)
    records.mark_done()
    return 0


# What is asked for --------------------------------------------------------------------------------


def _asked(given: argparse.Namespace) -> Benchmark:
    config = cli.make_config(given)
    rows = rows_of(given.models or DEFAULT)
    if given.baseline and given.baseline not in [row.spec for row in rows]:
        raise UserError(f"--baseline {given.baseline} is not one of the rows; add it to --models.")
    if given.folds is not None and given.split == "test":
        raise UserError("--folds judges each fold's own speakers; leave --split test away.")
    if given.folds is not None and given.folds < 2:
        raise UserError(f"--folds {given.folds}: two folds or more are needed.")
    baseline = given.baseline or next((row.spec for row in rows if row.spec == "erm"), None)
    folder = cli.output_folder(given.out or cli.default_folder(given, "benchmark"))
    storage = str(Path(given.storage).absolute()) if given.storage else None
    split = given.split or "dev"
    return Benchmark(config, rows, split, given.folds, baseline, folder, storage)


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
            f"--resume {Path(given.resume).absolute().parent}."
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
    config = configuration.from_dict(told["config"], where=f"{given.resume}/sweep.yaml")
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


def _require(asked: Benchmark, plans: Mapping, given: argparse.Namespace) -> None:
    """Refuse what cannot be run, before anything is written."""
    from sweeps import pareto

    if asked.left:
        pareto.require(asked.of_fold(asked.left[0]), given.address)
    judged = _judged(asked, plans)
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
    for number, row in enumerate(asked.rows):
        if not row.trained and not _place(asked, number).exists():
            cost = require_asked(row.spec, _context(asked), judged)
            if cost:
                print(cost)


def _budget(asked: Benchmark, plans: Mapping) -> str:
    each = f" on each of {len(plans)} folds" if asked.folds else ""
    trained = f"{len(asked.trained)} of them trained{each} for {asked.config.train.epochs} epochs"
    return (
        f"benchmark: {len(asked.rows)} systems, {trained if asked.trained else 'none trained'}; "
        f"judged on {len(_judged(asked, plans))} {asked.split} utterances in "
        f"{' and '.join(asked.config.data.modalities)}"
    )


def _records(asked: Benchmark, plans: Mapping, *, resumed: bool) -> Records:
    if resumed:
        records = Records.open(asked.folder)
    else:
        first = plans[asked.parts[0]].utterances
        told = planning.describe_sweep(
            asked.config, preset="benchmark", utterances=first, storage=asked.storage
        )
        told |= {"kind": "benchmark", "models": [row.spec for row in asked.rows]}
        told |= {"split": asked.split, "folds": asked.folds, "baseline": asked.baseline}
        records = Records.create(asked.folder, sweep=told, table=first)
    records.lock()
    return records


# Training -----------------------------------------------------------------------------------------


def _train(asked: Benchmark, plans: Mapping, given: argparse.Namespace) -> int:
    """Train every row on every fold that is left; the exit status, 0 if all came to their end."""
    from sweeps import driver

    left = asked.left
    for fold in left:
        config = asked.of_fold(fold)
        records = _fold_records(asked, fold, config, plans[fold].utterances)
        records.lock()
        if asked.folds:
            print(f"fold {fold + 1} of {asked.folds}")
        session = driver.run(config, records, address=given.address, leave=fold == left[-1])
        records.consolidate()
        ended = sum(trial.ended for trial in records.trials())
        if session.interrupted or ended < config.sweep.trials:
            return 130 if session.interrupted else 1
        records.mark_done()
    return 0


def _fold_records(asked: Benchmark, fold: int, config: Config, utterances: pd.DataFrame) -> Records:
    folder, storage = asked.of(fold), None
    if (folder / "sweep.yaml").exists():
        return Records.open(folder)
    if asked.storage:  # beside each other there, so that all folds share the features
        storage = f"{asked.storage}/{asked.folder.absolute().name}-fold-{fold}"
        cli._make_storage(Path(storage))
    told = planning.describe_sweep(
        config, preset="benchmark", utterances=utterances, storage=storage
    )
    return Records.create(folder, sweep={"kind": "benchmark"} | told, table=utterances)


# Judging ------------------------------------------------------------------------------------------


def _predictions(asked: Benchmark, plans: Mapping) -> dict[str, tuple[str, pd.DataFrame]]:
    """Each row's name in the table and its predictions on the judged utterances, by its spec."""
    judged = _judged(asked, plans)
    found: dict[str, tuple[str, pd.DataFrame]] = {}
    for number, row in enumerate(asked.rows):
        if row.trained:
            name, table = row.words, _of_trained(asked, row, judged)
        else:
            name, table = _of_asked(asked, row, judged, number)
        if table is None:
            print(f"{name} has no predictions: its training failed; it is left out of the table")
            continue
        names = [known for known, _ in found.values()]
        found[row.spec] = (f"{name} ({row.spec})" if name in names else name, table)
    if not found:
        raise UserError(f"no system has predictions; look into {asked.folder}/fold-*/trials.jsonl.")
    return found


def _judged(asked: Benchmark, plans: Mapping) -> pd.DataFrame:
    """The utterances that systems are judged on, with the `fold` in which they are held out.

    A gender with fewer speakers than there are folds is held out more than once: the first counts.
    """
    parts = [
        plan.utterances[plan.utterances["split"] == asked.split].assign(fold=fold)
        for fold, plan in plans.items()
    ]
    return pd.concat(parts, ignore_index=True).drop_duplicates("utterance_id", ignore_index=True)


def _of_trained(asked: Benchmark, row: Row, judged: pd.DataFrame) -> pd.DataFrame | None:
    parts = []
    for fold in asked.parts:
        records = Records.open(asked.of(fold))
        trial = _trial(asked, row, records)
        if trial.status == "failed":
            return None
        if asked.split == "dev":
            here = judged.loc[judged["fold"] == fold, "utterance_id"]
            table = records.predictions(trial.trial_id).assign(fold=fold)
            parts.append(table[table["utterance_id"].isin(here)])
        else:
            spec = f"adapter={records.storage / 'adapters' / trial.trial_id}"
            kept = asked.folder / "systems" / f"{row.spec}.parquet"
            parts.append(_kept(kept, lambda s=spec: _ask(asked, s, judged, name=row.words)))
    return pd.concat(parts, ignore_index=True).drop(columns="system", errors="ignore")


def _trial(asked: Benchmark, row: Row, records: Records) -> Trial:
    """By its id: slots begin several at a time, so the records have them in any order."""
    trial_id = f"t{asked.trained.index(row.spec):04d}"
    return next(trial for trial in records.trials() if trial.trial_id == trial_id)


def _of_asked(
    asked: Benchmark, row: Row, judged: pd.DataFrame, number: int
) -> tuple[str, pd.DataFrame]:
    table = _kept(_place(asked, number), lambda: _ask(asked, row.spec, judged))
    return str(table["system"].iloc[0]), table.drop(columns="system")


def _place(asked: Benchmark, number: int) -> Path:
    """Where the answers of a row that is asked are kept."""
    return asked.folder / "systems" / f"{number:02d}.parquet"


def _kept(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What was answered once is not asked again; requests that failed are, by `--resume`."""
    if path.exists():
        return pd.read_parquet(path)
    table = make()
    if failed := int((table["prediction"] == FAILED).sum()):
        print(
            f"{failed} of {len(table)} answers are missing and count as wrong; --resume asks anew"
        )
        return table
    write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))
    return table


def _ask(
    asked: Benchmark, spec: str, judged: pd.DataFrame, name: str | None = None
) -> pd.DataFrame:
    """Predictions of a system on every judged utterance in every modality that it knows.

    Its name, or `name` instead, is the column `system`.
    """
    from ermgap import systems
    from ermgap.backbone.built import quiet
    from ermgap.examples import in_modalities  # torch: only now

    word, argument = systems.parse(spec)
    modalities = asked.config.data.modalities
    with quiet():
        system = systems.SYSTEMS.find(word)(argument, _context(asked))
    system.name = name or system.name
    known = getattr(system, "modalities", modalities)
    answers = [
        system.predict(rows, modality=modality, note=print)
        for modality in modalities
        if modality in known and len(rows := in_modalities(judged, [modality]))
    ]
    if not answers:
        raise UserError(f"{spec} answers {', '.join(known)}, none of which is benchmarked.")
    return pd.concat(answers, ignore_index=True).assign(system=system.name)


def _context(asked: Benchmark):
    import torch

    from ermgap.systems import Context

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Context(asked.config.data.labels, asked.config, device, asked.folder)


def _tell(asked: Benchmark, found: Mapping[str, tuple[str, pd.DataFrame]], plans: Mapping) -> None:
    tables.tell(
        dict(found.values()),
        config=asked.config,
        utterances=plans[asked.parts[0]].utterances,
        folder=asked.folder,
        baseline=found[asked.baseline][0] if asked.baseline in found else None,
    )


if __name__ == "__main__":
    command_line(main)
