"""The dial of a sweep: adapters between ERM and its fair trials, evaluated on dev, not trained.

    lines = default_lines(records)                        # [("t0000", "t0007"), ...]
    make(records, config, lines, address=None)            # rows of dial.jsonl, and predictions

A line joins a fair trial on the front to its trunk, or to ERM (ermgap/adapters/dial.py has what lies
between). All its positions are answered in one pass: in this process, or on the workers of a
cluster. A row is the commit of a position, and what has one is not made again.
"""

from __future__ import annotations

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

Line = tuple[str, str]  # ids of the lower and of the upper trial


# Which lines ---------------------------------------------------------------------------------------


def default_lines(records: Records) -> list[Line]:
    """The lines that are of most use; empty where a sweep has no ERM or no fairness trial.

    The upper ends are fairness trials on the front of all trials (where none is, on the front of
    their own): MOST of them, evenly over the first objective, and every branch.
    """
    from analysis.front import front
    from analysis.front.dominance import non_dominated

    info = front.info(records)
    saved = _saved(records)
    points = [point for point in info.points if point.eligible and point.trial_id in saved]
    fair = [point for point in points if not point.is_erm]
    if info.erm is None or info.erm.trial_id not in saved:
        return []
    members: list = []
    for pool in (points, fair):
        values = [[point.values[name] for name in info.objectives] for point in pool]
        best = non_dominated(values, directions=info.directions)
        members = members or [
            point for point, on_front in zip(pool, best, strict=True) if on_front and point in fair
        ]
    members.sort(key=lambda point: point.values[info.objectives[0]])
    trunks = {trial.trial_id: _trunk(trial.rows) for trial in records.trials()}
    even = np.linspace(0, len(members) - 1, min(MOST, len(members))).round().astype(int)
    return [
        (trunk if (trunk := trunks[point.trial_id]) in saved else info.erm.trial_id, point.trial_id)
        for number, point in enumerate(members)
        if number in even or trunks[point.trial_id] in saved
    ]


def _saved(records: Records) -> set[str]:
    """Ids of the trials with an adapter in the storage."""
    names = records.store.names("adapters", recursive=True)
    return {name.split("/")[0] for name in names if name.endswith(file_names.ADAPTER_WEIGHTS)}


def _trunk(rows: Sequence[dict]) -> str | None:
    """The id of the trial that a branch continues from; None of a trial with its own start."""
    return next((row["branch_from"]["trial"] for row in rows if row.get("branch_from")), None)


def require(records: Records, lines: Sequence[Line]) -> None:
    """UserError for ends that are no ended trials with adapters, or do not go together."""
    trials, saved = {trial.trial_id: trial for trial in records.trials()}, _saved(records)
    for line in lines:
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
                    f"the trial {name} has no saved adapter in {records.store.uri or records.storage}"
                    "; name others with --ends."
                )
        if line[0] == line[1]:
            raise UserError(f"both ends of a line are {line[0]}; name two trials with --ends.")
        require_line(*folders_of(records, line))


def folders_of(records: Records, line: Line) -> list[Path]:
    """The folders of both adapters of a line, fetched from a bucket."""
    return [records.store.fetch_folder(f"adapters/{name}") for name in line]


# Their positions -----------------------------------------------------------------------------------


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
        missing = [f"{p:g}" for p in positions if dial_id(*line, p) not in known]
        if missing:
            folders = ":".join(str(folder.absolute()) for folder in folders_of(records, line))
            wanted[Request(f"dial={','.join(missing)}:{folders}", dev)] = line
    if not wanted:
        return
    begun = time.monotonic()

    def done(request: Request, answers: pd.DataFrame) -> None:
        nonlocal begun
        seconds, begun = time.monotonic() - begun, time.monotonic()
        count = _commit(records, config, wanted[request], answers, seconds=seconds)
        lower, upper = wanted[request]
        note(f"dial: {count} positions from {lower} to {upper}, {seconds:.1f} s")

    if not address:
        with Interrupts() as interrupts, interrupts.raised():
            _ask_here(records, config, wanted, done)
        return
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
    from ermgap.baselines import Context  # imports torch: only now
    from ermgap.baselines.ours import BackboneCache
    from ermgap.distributed import World

    device = "cpu" if config.sweep.device == "cpu" else str(World.current().device)
    cache = BackboneCache(Path(records.features) if records.features else None)
    context = Context(config.data.labels, config, device, records.directory, cache)
    for request in requests:
        given = {"context": context, "note": lambda text: None}
        done(request, evaluator.ask(request.spec, request.utterances, **given))


def _commit(
    records: Records, config: Config, line: Line, answers: pd.DataFrame, *, seconds: float
) -> int:
    """Write predictions and rows of a line's positions; returns their number."""
    lower, upper = line
    store = records.store
    store.write(
        f"adapters/{upper}/{file_names.ADAPTER_DIAL}",
        lambda path: path.write_text(line_file(lower), encoding="utf-8"),
    )
    parts = {position: part for position, part in answers.groupby("position")}
    for position, part in parts.items():
        name = dial_id(lower, upper, position)
        part = part.drop(columns=["system", "position"]).reset_index(drop=True)
        store.write(
            f"predictions/{name}.parquet",
            lambda path, part=part: part.to_parquet(path, index=False),
        )
        row = {"id": name, "lower": lower, "upper": upper, "position": position}
        row["dev"] = metrics.evaluate(part, labels=config.data.labels, **config.data.support)
        row |= {"seconds": seconds / len(parts), "time": time.time()}
        try:
            records.append_dial(row)
        except OSError as problem:
            raise UserError(
                f"{records.directory / file_names.DIAL} cannot be written "
                f"({problem.strerror or problem}); make room there, and run the same again."
            ) from problem
    bucket_mirror.upload(records, [file_names.DIAL])
    return len(parts)
