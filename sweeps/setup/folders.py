"""The folder of a command's results: a new one, or one that `--resume` continues."""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ermgap.config import Config, differing_keys, from_dict, make_absolute
from ermgap.errors import UserError, as_user_error, first_line, in_shell
from ermgap.records import Records, Storage, file_names, is_uri
from ermgap.registry import load_plugins
from sweeps.search import warm_start
from sweeps.setup import cells, command_line
from sweeps.setup import plan as planning

if TYPE_CHECKING:
    import pandas as pd


def prepare(
    given: argparse.Namespace,
    *,
    kind: str,
    check: Callable[[Config, pd.DataFrame], None],
    ready: Callable[[Config, Path, str | None], None] = lambda *_: None,
) -> tuple[Config, Records] | None:
    """What to run, and its folder, made or reopened; printed first, and None after `--dry-run`.

    Args:
        given: the options.
        kind: of the folder, sweep or train.
        check: raises UserError for what the command cannot run on the utterances, before anything
            is written.
        ready: waits for Ray and raises UserError where (config, folder, storage) cannot run on it;
            called after all else is checked, before anything is written.
    """
    if given.resume:
        return _reopen(given, kind, check, ready)
    config = command_line.make_config(given)
    out = output_folder(given.out or default_folder(given, kind))
    plan = planning.make_plan(config)
    print(plan.description)
    check(config, plan.utterances)
    planning.require_named_cell(config, plan.utterances)
    warm_start.require(given.warm_start, config)
    # Two sweeps may be given one storage: each has its own folder there.
    storage = f"{given.storage.rstrip('/')}/{out.name}" if given.storage else None
    sweep = planning.describe_sweep(
        config,
        preset=given.preset or "demo",
        utterances=plan.utterances,
        storage=storage,
        provenance=plan.provenance,
    )
    print(budget(config, plan.utterances))
    if given.dry_run:
        return None
    try_out(out)
    cells.require_a_cell(config, plan.utterances)
    if storage:
        make_storage(storage, out)
    ready(config, out, storage)
    print(f"results: {out}")
    # Before the folder is a sweep's, or a crash here would forget it.
    warm_start.copy(given.warm_start, out)
    records = Records.create(out, sweep={"kind": kind} | sweep, table=plan.utterances)
    records.lock()
    return config, records


def default_folder(given: argparse.Namespace, kind: str) -> Path:
    """results/demo, results/smoke-test, results/train-demo ..."""
    name = "smoke-test" if given.smoke_test else Path(given.preset or "demo").stem
    return Path("results") / (name if kind == "sweep" else f"{kind}-{name}")


def output_folder(wanted: Path) -> Path:
    """`wanted`, or with a number behind it if a finished sweep is there.

    Raises:
        UserError: an unfinished sweep is there, or something that is no sweep.
    """
    folder, number = wanted, 1
    while _exists(folder):
        if not folder.is_dir():
            raise UserError(f"the output folder {folder} is a file; choose another with --out.")
        if not any(folder.iterdir()):
            return folder
        if not (folder / file_names.SWEEP).exists():
            raise UserError(
                f"the output folder {folder} holds files that no sweep wrote; choose another with "
                f"--out."
            )
        if not (folder / file_names.DONE).exists():
            raise UserError(
                f"{folder} holds an unfinished sweep; continue it with --resume {in_shell(folder)}."
            )
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _exists(folder: Path) -> bool:
    with as_user_error(f"the output folder {folder} cannot be used", "choose another with --out"):
        if folder.is_dir():
            next(folder.iterdir(), None)  # raises where it may not be read
        return folder.exists()


def try_out(folder: Path) -> None:
    """UserError for an output folder that cannot be written; afterwards all is as before."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    fault = f"the output folder {folder} cannot be written"
    try:
        with as_user_error(fault, "choose another with --out"):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    finally:
        for path in new:
            with suppress(OSError):
                path.rmdir()


def make_storage(place: str, out: Path) -> None:
    """Make a sweep's storage, a folder or a bucket, ready for writing.

    Raises:
        UserError: it cannot be written, or holds another sweep.
    """
    if not is_uri(place):
        with as_user_error(f"--storage {place} cannot be made", "name another folder"):
            Path(place).mkdir(parents=True, exist_ok=True)
        return
    try:
        free = Storage(place).require_writable()
    except OSError as problem:
        raise UserError(
            f"--storage {place} cannot be used ({first_line(problem)}); look whether the bucket "
            "exists and the credentials of this machine may write to it."
        ) from problem
    if not free:
        raise UserError(
            f"--storage {place} holds a sweep already; continue it with --resume "
            f"{in_shell(place)}, or choose another name than {out.name} with --out."
        )


def budget(config: Config, utterances) -> str:
    """A line on what a sweep will train: trials, epochs, utterances, steps."""
    train, dev = (int((utterances["split"] == name).sum()) for name in ("train", "dev"))
    steps = -(-train // config.train.batch)
    return (
        f"budget: up to {config.sweep.trials} trials x {config.train.epochs} epochs x "
        f"{steps} steps of {config.train.batch} utterances ({train} train, {dev} dev), "
        f"backbone {config.backbone.name}, window {config.backbone.window_s} s"
    )


def require_kind(records: Records, kind: str) -> None:
    """UserError for a folder that another command made."""
    known = records.sweep.get("kind", "sweep")
    if known == "confirm":
        raise UserError(
            f"{records.directory} holds the reruns of a sweep; resume the folder above it, with "
            "--confirm SEEDS."
        )
    if known != kind:
        command = "pareto" if known == "sweep" else known
        raise UserError(
            f"{records.directory} was made by sweeps/{command}.py; resume it with that command."
        )


def _reopen(
    given: argparse.Namespace, kind: str, check: Callable, ready: Callable
) -> tuple[Config, Records] | None:
    records = Records.open(given.resume)
    if is_uri(given.resume):
        print(f"restored {given.resume} to {records.directory}")
        given.resume = str(records.directory)
    require_kind(records, kind)
    sections = copy.deepcopy(records.sweep["config"])
    make_absolute(sections, base=Path.cwd())  # older sweeps kept paths as given
    config = from_dict(sections, where=f"{given.resume}/sweep.yaml")
    load_plugins(config.plugins)
    if given.out or given.storage:
        raise UserError("--resume continues in its own folder; omit --out and --storage.")
    if given.warm_start:
        raise UserError("--resume knows what the sweep learns from; omit --warm-start.")
    if given.preset or given.data or given.settings or given.smoke_test or given.objectives:
        _refuse_differences(given, config, preset=records.sweep.get("preset"))
    if given.trials is not None:
        if given.trials < config.sweep.trials:
            raise UserError(
                f"--trials {given.trials} is fewer than the {config.sweep.trials} of "
                f"{given.resume}; give as many or more."
            )
        config = config.replace({"sweep.trials": given.trials})
    check(config, records.table())  # a damaged one is an error here, not in every worker
    ended = sum(trial.ended for trial in records.trials())
    torn = " (a half-written last row was left out)" if records.half_written else ""
    print(f"resuming {given.resume}: {ended} of {config.sweep.trials} trials have ended{torn}")
    if given.dry_run:
        return None
    if ended < config.sweep.trials:
        ready(config, records.directory, records.sweep.get("storage"))
    records.lock()
    if (now := config.to_dict()) != records.sweep["config"]:
        records.write_sweep(records.sweep | {"config": now, "trials": config.sweep.trials})
    if ended < config.sweep.trials:
        records.clear_done()
    return config, records


def _refuse_differences(given: argparse.Namespace, config: Config, *, preset: str | None) -> None:
    as_it_was = {
        "trials": config.sweep.trials,
        "preset": given.preset or preset,
        "data": given.data or [config.data.corpora],
    }
    given = argparse.Namespace(**(vars(given) | as_it_was))
    keys = differing_keys(config.to_dict(), command_line.make_config(given).to_dict())
    if keys:
        raise UserError(
            f"{given.resume} was started with other values of {', '.join(keys)}; "
            "omit these options, or start a new sweep with --out."
        )
