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
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ermgap import config as configuration
from ermgap.config import Config
from ermgap.errors import UserError, command_line
from ermgap.records import Records, write_atomically
from ermgap.registry import load_plugins
from sweeps import cli, tables
from sweeps import plan as planning
from sweeps.systems import DEFAULT, Row, rows_of


def options() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = cli.options(__doc__.splitlines()[0], many=False)
    parser.add_argument(
        "--models", nargs="+", metavar="NAME[=ARG]", help=f"rows; by default {' '.join(DEFAULT)}"
    )
    parser.add_argument("--split", choices=("dev", "test"), default="dev", help="dev by default")
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

    @property
    def parts(self) -> list[int]:
        """The folds that are run."""
        return list(range(self.folds)) if self.folds else [self.config.data.fold]

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
    trained = [row for row in asked.rows if row.trained]
    if trained and not given.dry_run:
        driver.begin(given.address)
    plans = {fold: planning.make_plan(asked.of_fold(fold)) for fold in asked.parts}
    print(plans[asked.parts[0]].words)
    _require(asked, plans, given)
    print(_budget(asked, plans))
    if given.dry_run:
        return 0
    records = _records(asked, plans, resumed=bool(given.resume))
    print(f"results: {asked.folder}")
    if trained and not _train(asked, plans, given):
        print(f"stopped; go on with: python sweeps/benchmark.py --resume {asked.folder}")
        return 130
    _tell(asked, _predictions(asked, plans), plans)
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
    return Benchmark(config, rows, given.split, given.folds, baseline, folder)


def _reopened(given: argparse.Namespace) -> Benchmark:
    records = Records.open(given.resume)
    if records.sweep.get("kind") != "benchmark":
        raise UserError(f"{given.resume} holds no benchmark; resume it with sweeps/pareto.py.")
    if given.preset or given.data or given.settings or given.models or given.folds:
        raise UserError("--resume goes on with what the folder was started with; name no other.")
    told = records.sweep
    config = configuration.from_dict(told["config"], where=f"{given.resume}/sweep.yaml")
    load_plugins(config.plugins)
    rows = rows_of(told["models"])
    return Benchmark(
        config, rows, told["split"], told["folds"], told["baseline"], Path(given.resume)
    )


def _require(asked: Benchmark, plans: Mapping, given: argparse.Namespace) -> None:
    """Refuse what cannot be run, before anything is written."""
    from sweeps import pareto

    if any(row.trained for row in asked.rows):
        pareto.require(asked.of_fold(asked.parts[0]), given.address)
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


def _budget(asked: Benchmark, plans: Mapping) -> str:
    trained = sum(row.trained for row in asked.rows)
    judged = len(_judged(asked, plans))
    return (
        f"benchmark: {len(asked.rows)} systems, {trained} of them trained on {len(plans)} fold(s) "
        f"for {asked.config.train.epochs} epochs; judged on {judged} {asked.split} utterances in "
        f"{' and '.join(asked.config.data.modalities)}"
    )


def _records(asked: Benchmark, plans: Mapping, *, resumed: bool) -> Records:
    if resumed:
        records = Records.open(asked.folder)
    else:
        first = plans[asked.parts[0]].utterances
        told = planning.describe_sweep(
            asked.config, preset="benchmark", utterances=first, storage=None
        )
        told |= {"kind": "benchmark", "models": [row.spec for row in asked.rows]}
        told |= {"split": asked.split, "folds": asked.folds, "baseline": asked.baseline}
        records = Records.create(asked.folder, sweep=told, table=first)
    records.lock()
    return records


# Training -----------------------------------------------------------------------------------------


def _train(asked: Benchmark, plans: Mapping, given: argparse.Namespace) -> bool:
    """Train every row on every fold; whether all came to their end."""
    from sweeps import driver

    for fold in asked.parts:
        config = asked.of_fold(fold)
        records = _fold_records(asked, fold, config, plans[fold].utterances)
        records.lock()
        if records.finished:
            continue
        print(f"fold {fold}: {len(config.sweep.points)} systems")
        last = fold == asked.parts[-1]
        session = driver.run(config, records, address=given.address, leave=last)
        records.consolidate()
        if session.interrupted or sum(t.ended for t in records.trials()) < config.sweep.trials:
            return False
        records.mark_done()
    return True


def _fold_records(asked: Benchmark, fold: int, config: Config, utterances: pd.DataFrame) -> Records:
    folder = asked.folder / f"fold-{fold}"
    if (folder / "sweep.yaml").exists():
        return Records.open(folder)
    told = planning.describe_sweep(config, preset="benchmark", utterances=utterances, storage=None)
    return Records.create(folder, sweep={"kind": "benchmark"} | told, table=utterances)


# Judging ------------------------------------------------------------------------------------------


def _predictions(asked: Benchmark, plans: Mapping) -> dict[str, pd.DataFrame]:
    """Each row's predictions on the judged utterances, all folds."""
    judged = _judged(asked, plans)
    found: dict[str, pd.DataFrame] = {}
    for number, row in enumerate(asked.rows):
        if row.trained:
            name, table = row.words, _of_trained(asked, row, judged)
        else:
            name, table = _of_asked(asked, row, judged, number)
        if table is None:
            print(f"{name} has no predictions: its training failed; it is left out of the table")
            continue
        name = name if name not in found else f"{name} ({row.spec})"
        found[name] = table
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
    place = [other.spec for other in asked.rows if other.trained].index(row.spec)
    parts = []
    for fold in asked.parts:
        records = Records.open(asked.folder / f"fold-{fold}")
        trial = records.trials()[place]
        if trial.status == "failed":
            return None
        if asked.split == "dev":
            here = judged.loc[judged["fold"] == fold, "utterance_id"]
            table = records.predictions(trial.trial_id).assign(fold=fold)
            parts.append(table[table["utterance_id"].isin(here)])
        else:
            adapter = records.storage / "adapters" / trial.trial_id
            kept = asked.folder / "systems" / f"{row.spec}.parquet"
            parts.append(_kept(kept, lambda a=adapter: _ask(asked, f"adapter={a}", judged)[1]))
    return pd.concat(parts, ignore_index=True)


def _of_asked(
    asked: Benchmark, row: Row, judged: pd.DataFrame, number: int
) -> tuple[str, pd.DataFrame]:
    kept = asked.folder / "systems" / f"{number:02d}.parquet"
    name = row.spec

    def answered() -> pd.DataFrame:
        words, table = _ask(asked, row.spec, judged)
        return table.assign(system=words)

    table = _kept(kept, answered)
    name = str(table["system"].iloc[0]) if len(table) else row.spec
    return name, table.drop(columns="system")


def _kept(path: Path, make) -> pd.DataFrame:
    """What was answered once is not asked again."""
    if not path.exists():
        table = make()
        write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))
    return pd.read_parquet(path)


def _ask(asked: Benchmark, spec: str, judged: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Let a system answer every judged utterance in every modality; its name and predictions."""
    import torch

    from ermgap import systems
    from ermgap.examples import in_modalities

    word, argument = systems.parse(spec)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    context = systems.Context(asked.config.data.labels, asked.config, device, asked.folder)
    system = systems.SYSTEMS.find(word)(argument, context)
    modalities = asked.config.data.modalities
    known = getattr(system, "modalities", modalities)
    if words := system.estimate(judged, modalities):
        print(words)
    answers = [
        system.predict(in_modalities(judged, [modality]), modality=modality, note=print)
        for modality in modalities
        if modality in known
    ]
    if not answers:
        raise UserError(f"{spec} answers {', '.join(known)}, none of which is benchmarked.")
    return system.name, pd.concat(answers, ignore_index=True)


def _tell(asked: Benchmark, found: Mapping[str, pd.DataFrame], plans: Mapping) -> None:
    tables.tell(
        found,
        config=asked.config,
        utterances=plans[asked.parts[0]].utterances,
        folder=asked.folder,
        baseline=next((row.words for row in asked.rows if row.spec == asked.baseline), None),
    )


if __name__ == "__main__":
    command_line(main)
