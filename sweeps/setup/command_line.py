"""The options that the commands of `sweeps/` share, and the configuration these make."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ermgap.config import METRICS, Config, absolute_corpus, absolute_path, load
from ermgap.corpora import parse as parse_corpus
from ermgap.errors import UserError
from ermgap.records import is_uri
from ermgap.registry import load_plugins
from sweeps.setup import plan

SMOKE = {
    "data.corpora": "[demo]",
    "backbone.name": "random-tiny",
    "backbone.window_s": 2,
    "train.epochs": 2,
    "data.limit": 48,
    "data.min_support": 1,
    "data.cell_support": 1,
    "sweep.trials": 3,
    "train.batch": 16,
    "sweep.floor": 0.0,
    "sweep.cell": "null",
    "sweep.slots": "null",
    "sweep.device": "cpu",
}


def options(description: str, *, many: bool) -> argparse.ArgumentParser:
    """The parser of a command; `many`: with the options of a search."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--preset", help="demo (the default), small, paper, ablation, or a YAML file")
    data = "corpora instead of the preset's; may be repeated"
    add("--data", action="append", nargs="+", metavar="NAME[=PATH]", help=data)
    add("--genders", metavar="FILE", help="a CSV of speaker,gender instead of MELD-ST's table")
    add(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="a.b=c",
        help="change one value of the configuration; may be repeated",
    )
    add("--out", type=Path, metavar="DIR", help="folder of the results; default results/PRESET")
    add("--resume", metavar="DIR", help="continue an unfinished folder")
    add(
        "--storage",
        type=lambda place: absolute_path(place, Path.cwd()),
        metavar="PATH|URI",
        help="folder that all nodes mount, or s3://BUCKET/PREFIX or gs://, for checkpoints, "
        "predictions and adapters",
    )
    add("--address", help="a running Ray cluster, such as auto")
    add("--strict", action="store_true", help="refuse clips that would be cropped or left out")
    add("--dry-run", action="store_true", help="print what would run, and stop")
    smoke = "a tiny random model, 48 clips: every file in 90 s"
    add("--smoke-test", action="store_true", help=smoke)
    parser.set_defaults(trials=None, objectives=None, warm_start=[], confirm=None, folds=None)
    if many:
        add("--trials", type=int, help="how many configurations in all")
        add("--objectives", metavar="a,b[,c]", help="of " + ", ".join(METRICS))
        add(
            "--warm-start",
            nargs="+",
            action="extend",
            default=[],
            metavar="DIR",
            help="earlier sweeps that the search learns from; may be repeated",
        )
        confirm = "then rerun the front, ERM and the knee over so many seeds, on dev and test"
        add("--confirm", type=int, metavar="SEEDS", help=confirm)
        each = "with --confirm: on each of K speaker folds, so that every speaker judges"
        add("--folds", type=int, metavar="K", help=each)
    return parser


def make_config(given: argparse.Namespace) -> Config:
    """The configuration of a command line; UserError as the configuration raises it."""
    smoke = [f"{key}={value}" for key, value in SMOKE.items()] if given.smoke_test else []
    preset = plan.preset_path(given.preset or "demo")
    config = load(preset, [*smoke, *given.settings])
    load_plugins(config.plugins)
    changes = {
        "data.corpora": [absolute_corpus(n, Path.cwd()) for ns in given.data or () for n in ns],
        "data.strict": given.strict,
        "data.genders": given.genders and absolute_path(given.genders, Path.cwd()),
        "sweep.objectives": given.objectives and [n.strip() for n in given.objectives.split(",")],
    }
    changes = {key: value for key, value in changes.items() if value}
    named, others = (
        any(setting.startswith(f"{key}=") for setting in given.settings)
        for key in ("sweep.cell", "objective.attribute")
    )
    others = others or given.data and not _share_a_corpus(config, changes["data.corpora"])
    if others and not named:
        changes["sweep.cell"] = None  # a preset's is a cell of its own corpora and attribute
    if config.sweep.points or given.trials is not None:
        changes["sweep.trials"] = len(config.sweep.points) or given.trials
    config = config.replace(changes)
    for name in config.data.corpora:
        parse_corpus(name)
    return config


def _share_a_corpus(config: Config, corpora: Sequence[str]) -> bool:
    return bool({name.split("=")[0] for name in config.data.corpora}
                & {name.split("=")[0] for name in corpora})  # fmt: skip


def refuse_uri(given: argparse.Namespace, option: str) -> None:
    """UserError for a URI where a command needs a folder."""
    if (value := getattr(given, option)) and is_uri(value):
        raise UserError(f"--{option} {value}: this command needs a folder that all nodes mount.")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The parsed options; UserError for mistakes of form."""
    if cache := os.environ.get("ERMGAP_CACHE"):  # workers start in another folder
        os.environ["ERMGAP_CACHE"] = os.path.abspath(cache)
    parser.error = _raise  # type: ignore[method-assign]
    return parser.parse_args(arguments)


def _raise(message: str):
    raise UserError(f"{message}; see --help.")
