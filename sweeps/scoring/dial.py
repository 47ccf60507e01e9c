"""The dial of a sweep: adapters between ERM and its fair trials, evaluated on dev, not trained.

    lines = default_lines(records)                        # [("t0000", "t0007"), ...]
    make(records, config, lines, address=None)            # rows of dial.jsonl, and predictions

A line joins a fair trial on the front to its trunk, or to ERM; ermgap/adapters/dial.py has what
lies between. All its positions are answered in one pass: in this process, or on the workers of a
cluster. A row is the commit of a position, and what has one is not made again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ermgap import metrics
from ermgap.adapters import line_file, require_line
from ermgap.config import Config
from ermgap.errors import UserError
from ermgap.records import POSITIONS, Records, bucket_mirror, dial_id, file_names
from sweeps.scheduler import evaluation, evaluator
from sweeps.scheduler.evaluation import Request
from sweeps.scheduler.interrupts import Interrupts

MOST = 3  # lines, beside those of branches
SHARE = 0.1  # of the seconds of a sweep's epochs, for the dial that it makes itself

Line = tuple[str, str]  # ids of the lower and of the upper trial


# Which lines --------------------------------------------------------------------------------------


def default_lines(records: Records) -> list[Line]:
    """The lines of most use, best first; empty where a sweep has no ERM or no fairness trial.

    The upper ends are fairness trials on the front of all trials (where none is, on the front of
    their own): the fairest, others evenly over the gap up to MOST, and every branch.
    """
    from analysis.front import front
    from analysis.front.dominance import non_dominated

    info, saved = front.info(records), _saved(records)
    points = [point for point in info.points if point.eligible and point.trial_id in saved]
    fair = [point for point in points if not point.is_erm]
    if info.erm not in points or not fair:
        return []
    on_front: list = []
    for candidates in (points, fair):
        values = [[point.values[name] for name in info.objectives] for point in candidates]
        best = non_dominated(values, directions=info.directions)
        members = [point for point, is_best in zip(candidates, best, strict=True) if is_best]
        on_front = on_front or [point for point in members if not point.is_erm]
    on_front.sort(key=lambda point: (math.isnan(gap := point.values["max_gap"]), gap))
    trunks = {
        trial.trial_id: trial.branch_from["trial"]
        for trial in records.trials()
        if trial.branch_from and trial.branch_from["trial"] in saved
    }
    even = np.linspace(0, len(on_front) - 1, min(MOST, len(on_front))).round()
    return [
        (trunks.get(point.trial_id, info.erm.trial_id), point.trial_id)
        for number, point in enumerate(on_front)
        if number in even or point.trial_id in trunks
    ]


def affordable(records: Records, lines: Sequence[Line]) -> list[Line]:
    """The first lines whose evaluation takes under SHARE of the sweep's epochs, and always one."""
    rows = [row for row in records.rows() if row.get("seconds") and row.get("eval_seconds")]
    if not rows:
        return list(lines)
    spent = sum(row["seconds"] for row in rows)
    evaluation_s = sum(row["eval_seconds"] for row in rows) / len(rows)
    return list(lines[: max(1, int(SHARE * spent / (evaluation_s * (len(POSITIONS) - 2))))])


def require(records: Records, lines: Sequence[Line]) -> None:
    """UserError for ends that are no ended trials with adapters, or do not go together."""
    trials, saved = {trial.trial_id: trial for trial in records.trials()}, _saved(records)
    for line in lines:
        if line[0] == line[1]:
            raise UserError(f"both ends of a line are {line[0]}; name two trials with --ends.")
        for name in line:
            if name not in trials:
                raise UserError(
                    f"{records.directory} has no trial {name}; its trials are {', '.join(trials)}."
                )
            if not trials[name].ended:
                raise UserError(
                    f"the trial {name} has not ended, so its adapter may still change; let the "
                    "sweep end, or name others with --ends."
                )
            if name not in saved:
                raise UserError(
                    f"the trial {name} has no saved adapter; name others with --ends: "
                    f"{', '.join(sorted(saved)) or 'there is none'}."
                )
        require_line(*folders_of(records, line))


def folders_of(records: Records, line: Line) -> list[Path]:
    """The folders of both adapters of a line, fetched from a bucket."""
    return [records.store.fetch_folder(f"adapters/{name}").absolute() for name in line]


def _saved(records: Records) -> set[str]:
    """Ids of the trials with an adapter in the storage."""
    names = records.store.names("adapters", recursive=True)
    return {name.split("/")[0] for name in names if name.endswith(file_names.ADAPTER_WEIGHTS)}


# Their positions ----------------------------------------------------------------------------------


def make(
    records: Records,
    config: Config,
    lines: Sequence[Line],
    *,
    address: str | None,
    positions: Sequence[float] = POSITIONS,
    note: Callable[[str], None] = print,
) -> None:
    """Evaluate the positions that have no row yet, and write their predictions and rows.

    Args:
        records: of the sweep, which nobody else writes now.
        config: of the sweep.
        lines: between trials that `require` has passed.
        address: of a running Ray cluster, whose workers answer; None: this process does.
        positions: of each line.
        note: called with a sentence a line.

    Raises:
        UserError: as the adapters and the storage; also where the rows cannot be written.
        KeyboardInterrupt: at Ctrl-C; what has rows stays.
    """
    known = {row["id"] for row in records.dial()}
    table = records.table()
    dev = table[table["split"] == "dev"]
    wanted: dict[Request, Line] = {}
    for line in lines:
        missing = {p for p in positions if dial_id(*line, p) not in known}
        ends = {p: records.predictions(name) for p, name in enumerate(line) if p in missing}
        ends = {p: answers for p, answers in ends.items() if answers is not None}
        _commit(records, config, line, ends)
        if asked := ",".join(f"{p:g}" for p in sorted(missing - ends.keys())):
            folders = ":".join(map(str, folders_of(records, line)))
            wanted[Request(f"dial={asked}:{folders}", dev)] = line
    begun = time.monotonic()

    def done(request: Request, answers: pd.DataFrame) -> None:
        nonlocal begun
        seconds, begun = time.monotonic() - begun, time.monotonic()
        parts = {position: part for position, part in answers.groupby("position")}
        _commit(records, config, wanted[request], parts, seconds=seconds)
        lower, upper = wanted[request]
        note(f"dial: {len(parts)} positions from {lower} to {upper} in {seconds:.1f} s")

    if wanted and not address:
        with Interrupts() as interrupts, interrupts.raised():
            _ask_here(records, config, wanted, done)
    elif wanted:
        evaluation.on_workers(
            list(wanted),
            config=config,
            features=records.features,
            address=address,
            folder=records.directory,
            done=done,
            note=note,
        )


def _ask_here(
    records: Records, config: Config, requests: Iterable[Request], done: Callable
) -> None:
    """Answer requests in this process: to start workers for them takes longer than they do."""
    from ermgap.baselines import Context
    from ermgap.baselines.ours import BackboneCache  # imports torch: only now
    from ermgap.distributed import World

    device = "cpu" if config.sweep.device == "cpu" else str(World.current().device)
    cache = BackboneCache(Path(records.features) if records.features else None)
    context = Context(config.data.labels, config, device, records.directory, cache)
    for request in requests:
        given = {"context": context, "note": lambda text: None}
        done(request, evaluator.ask(request.spec, request.utterances, **given))


def _commit(
    records: Records,
    config: Config,
    line: Line,
    parts: dict[float, pd.DataFrame],
    *,
    seconds: float = 0.0,
) -> None:
    """Write the predictions of a line's positions, then their rows."""
    if not parts:
        return
    store, (lower, upper) = records.store, line
    store.write(
        f"adapters/{upper}/{file_names.ADAPTER_DIAL}",
        lambda path: path.write_text(line_file(lower), encoding="utf-8"),
    )
    for position, part in parts.items():
        name = dial_id(lower, upper, position)
        answers = part.drop(columns=["system", "position"], errors="ignore").reset_index(drop=True)
        store.write(
            f"predictions/{name}.parquet",
            lambda path, answers=answers: answers.to_parquet(path, index=False),
        )
        row = {"id": name, "lower": lower, "upper": upper, "position": float(position)}
        row["dev"] = metrics.evaluate(answers, labels=config.data.labels, **config.compared)
        row |= {"seconds": seconds / len(parts), "time": time.time()}
        try:
            records.append_dial(row)
        except OSError as problem:
            raise UserError(
                f"{records.directory / file_names.DIAL} cannot be written "
                f"({problem.strerror or problem}); make room there, and run the same again."
            ) from problem
    bucket_mirror.upload(records, [file_names.DIAL])
