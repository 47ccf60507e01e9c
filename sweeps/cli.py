"""What the commands of `sweeps/` share: options, the configuration they make, the output folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ermgap import config as configuration
from ermgap.config import Config
from ermgap.corpora import parse as parse_corpus
from ermgap.errors import UserError
from ermgap.parsing import differences
from ermgap.records import Records
from ermgap.registry import load_plugins
from sweeps import plan as planning

SMOKE = {
    "data.corpora": "[demo]",
    "backbone.name": "random-tiny",
    "backbone.window_s": 2,
    "train.epochs": 2,
    "data.limit": 48,
    "data.min_support": 1,
    "sweep.trials": 3,
    "train.batch": 16,
    "sweep.floor": 0.0,
    "sweep.slots": "null",
    "sweep.device": "cpu",
}


@dataclass
class Prepared:
    """A sweep folder, made or reopened, and the configuration to go on with."""

    config: Config
    records: Records
    resumed: bool


def options(description: str, *, many: bool) -> argparse.ArgumentParser:
    """The parser of a command; `many` for one that runs more than one configuration."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument(
        "--preset", help="demo (the default), small, paper, ablation, or a YAML file"
    )
    parser.add_argument(
        "--data",
        action="append",
        nargs="+",
        metavar="NAME[=PATH]",
        help="corpora instead of the preset's; may be repeated",
    )
    parser.add_argument(
        "--genders", metavar="FILE", help="a CSV of speaker,gender instead of MELD-ST's table"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="a.b=c",
        help="change one value of the configuration; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the results; default results/PRESET"
    )
    parser.add_argument("--resume", metavar="DIR", help="go on with an unfinished folder")
    parser.add_argument(
        "--storage",
        metavar="PATH",
        help="folder that all nodes mount, for checkpoints, predictions and adapters",
    )
    parser.add_argument("--address", help="a running Ray cluster, such as auto")
    parser.add_argument(
        "--strict", action="store_true", help="refuse clips that would be cropped or left out"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would run, and stop")
    parser.add_argument(
        "--smoke-test",
        action="store_true",
        help="a tiny random model, 48 clips: every file in 90 s",
    )
    if many:
        parser.add_argument("--trials", type=int, help="how many configurations in all")
        parser.add_argument(
            "--objectives", metavar="a,b[,c]", help="of " + ", ".join(configuration.OBJECTIVES)
        )
        parser.add_argument("--confirm", metavar="SEEDS", help="not in this version yet")
    return parser


def make_config(given: argparse.Namespace) -> Config:
    """The configuration that a command line asks for; UserError as the configuration raises it."""
    smoke = [f"{key}={value}" for key, value in SMOKE.items()] if given.smoke_test else []
    preset = planning.preset_path(given.preset or "demo")
    config = configuration.load(preset, [*smoke, *given.settings])
    load_plugins(config.plugins)
    changes: dict = {}
    if given.data:
        changes["data.corpora"] = [name for names in given.data for name in names]
    if given.strict:
        changes["data.strict"] = True
    if getattr(given, "trials", None) is not None:
        changes["sweep.trials"] = given.trials
    if getattr(given, "objectives", None):
        changes["sweep.objectives"] = [name.strip() for name in given.objectives.split(",")]
    if getattr(given, "genders", None):
        changes["data.genders"] = str(Path(given.genders).absolute())
    config = config.replace(changes)
    changes = {"data.corpora": [_absolute(name) for name in config.data.corpora]}
    if config.sweep.points:
        changes["sweep.trials"] = len(config.sweep.points)
    return config.replace(changes)


def refuse_later_flags(given: argparse.Namespace) -> None:
    """Options of the design that this version does not have yet."""
    if getattr(given, "confirm", None):
        raise UserError(
            "--confirm is not in this version yet; rerun a configuration with sweeps/train.py "
            "instead."
        )
    for option in ("storage", "resume"):
        value = getattr(given, option)
        if value and "://" in value:
            raise UserError(
                f"--{option} {value} is a URI, which this version cannot use yet; give a folder "
                f"that all nodes mount."
            )


def prepare(
    given: argparse.Namespace, *, kind: str, check: Callable[[Config], None]
) -> Prepared | None:
    """Make or reopen the folder, printing what will run; None after `--dry-run`.

    `check` refuses what the command cannot run, before anything is written.
    """
    refuse_later_flags(given)
    if given.resume:
        return _reopen(given, kind)
    config = make_config(given)
    out = output_folder(given.out or default_folder(given, kind))
    plan = planning.make_plan(config)
    print(plan.words)
    check(config)
    # Two sweeps may be given one storage: each has its own folder there.
    storage = str(Path(given.storage) / out.name) if given.storage else None
    sweep = planning.describe_sweep(
        config, preset=given.preset or "demo", utterances=plan.utterances, storage=storage
    )
    print(budget(config, plan.utterances))
    if given.dry_run:
        return None
    print(f"results: {out}")
    if storage:
        _make_storage(Path(storage))
    records = Records.create(out, sweep={"kind": kind} | sweep, table=plan.utterances)
    records.lock()
    return Prepared(config, records, resumed=False)


def default_folder(given: argparse.Namespace, kind: str) -> Path:
    """results/demo, results/smoke-test, results/train-demo ..."""
    name = "smoke-test" if given.smoke_test else Path(given.preset or "demo").stem
    return Path("results") / (name if kind == "sweep" else f"{kind}-{name}")


def output_folder(wanted: Path) -> Path:
    """`wanted`, or with a number behind it if a finished sweep lies there.

    Raises:
        UserError: an unfinished sweep lies there, or something that is no sweep.
    """
    folder, number = wanted, 1
    while _exists(folder):
        if not folder.is_dir():
            raise UserError(f"the output folder {folder} is a file; choose another with --out.")
        if not any(folder.iterdir()):
            return folder
        if not (folder / "sweep.yaml").exists():
            raise UserError(
                f"the output folder {folder} holds files that no sweep wrote; choose another with "
                f"--out."
            )
        if not (folder / "DONE").exists():
            raise UserError(
                f"{folder} holds an unfinished sweep; continue it with --resume {folder}."
            )
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _exists(folder: Path) -> bool:
    try:
        if folder.is_dir():
            next(folder.iterdir(), None)  # raises where it may not be read
        return folder.exists()
    except OSError as problem:
        raise UserError(
            f"the output folder {folder} cannot be used ({problem.strerror}); choose another with "
            "--out."
        ) from problem


def _make_storage(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(
            f"--storage {folder} cannot be made ({problem.strerror}); name another folder."
        ) from problem


def budget(config: Config, utterances) -> str:
    """The dry count: trials, epochs, utterances, steps."""
    train, dev = (int((utterances["split"] == name).sum()) for name in ("train", "dev"))
    steps = -(-train // config.train.batch)
    return (
        f"budget: up to {config.sweep.trials} trials x {config.train.epochs} epochs x "
        f"{steps} steps of {config.train.batch} utterances ({train} train, {dev} dev), "
        f"backbone {config.backbone.name}, window {config.backbone.window_s} s"
    )


def _reopen(given: argparse.Namespace, kind: str) -> Prepared | None:
    records = Records.open(given.resume)
    made_as = records.sweep.get("kind", "sweep")
    if made_as != kind:
        command = {"sweep": "pareto", "train": "train"}[made_as]
        raise UserError(
            f"{given.resume} was made by sweeps/{command}.py; resume it with that command."
        )
    config = configuration.from_dict(records.sweep["config"], where=f"{given.resume}/sweep.yaml")
    load_plugins(config.plugins)
    if given.out or given.storage:
        raise UserError("--resume goes on in its own folder; leave --out and --storage away.")
    if (
        given.preset
        or given.data
        or given.settings
        or given.smoke_test
        or getattr(given, "objectives", None)
    ):
        _refuse_differences(given, config, preset=records.sweep.get("preset"))
    trials = getattr(given, "trials", None)
    if trials is not None and trials < config.sweep.trials:
        raise UserError(
            f"--trials {trials} is fewer than the {config.sweep.trials} of {given.resume}; give "
            f"as many or more."
        )
    if trials is not None and trials > config.sweep.trials:
        config = config.replace({"sweep.trials": trials})
    records.table()  # a damaged one is refused here, not in every worker
    trials_so_far = records.trials()
    ended = sum(trial.ended for trial in trials_so_far)
    torn = " (a half-written last row was left out)" if records.torn else ""
    print(f"resuming {given.resume}: {ended} of {config.sweep.trials} trials have ended{torn}")
    if given.dry_run:
        return None
    records.lock()
    if config.to_dict() != records.sweep["config"]:
        records.write_sweep(
            records.sweep | {"config": config.to_dict(), "trials": config.sweep.trials}
        )
    if ended < config.sweep.trials:
        records.clear_done()
    return Prepared(config, records, resumed=True)


def _refuse_differences(given: argparse.Namespace, config: Config, *, preset: str | None) -> None:
    as_it_was = {
        "trials": config.sweep.trials,
        "preset": given.preset or preset,
        "data": given.data or [config.data.corpora],
    }
    given = argparse.Namespace(**(vars(given) | as_it_was))
    keys = differences(config.to_dict(), make_config(given).to_dict())
    if keys:
        raise UserError(
            f"{given.resume} was started with other values of {', '.join(keys)}; "
            "leave these options away, or start a new sweep with --out."
        )


def _absolute(name: str) -> str:
    word, path = parse_corpus(name)
    return f"{word}={Path(path).absolute()}" if path else name


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; mistakes of form are UserErrors like all others."""
    parser.error = _refuse  # type: ignore[method-assign]
    return parser.parse_args(arguments)


def _refuse(message: str):
    raise UserError(f"{message}; see --help.")
