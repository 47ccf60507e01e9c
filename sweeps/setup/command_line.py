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
    "sweep.slots": "null",
    "sweep.device": "cpu",
}


def options(description: str, *, many: bool) -> argparse.ArgumentParser:
    """The parser of a command; `many`: with the options of a search."""
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
    parser.add_argument("--resume", metavar="DIR", help="continue an unfinished folder")
    parser.add_argument(
        "--storage",
        type=lambda place: absolute_path(place, Path.cwd()),
        metavar="PATH|URI",
        help="folder that all nodes mount, or s3://BUCKET/PREFIX or gs://, for checkpoints, "
        "predictions and adapters",
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
    parser.set_defaults(trials=None, objectives=None, warm_start=[], confirm=None)
    if many:
        parser.add_argument("--trials", type=int, help="how many configurations in all")
        parser.add_argument("--objectives", metavar="a,b[,c]", help="of " + ", ".join(METRICS))
        parser.add_argument(
            "--warm-start",
            nargs="+",
            action="extend",
            default=[],
            metavar="DIR",
            help="earlier sweeps that the search learns from; may be repeated",
        )
        parser.add_argument(
            "--confirm",
            type=int,
            metavar="SEEDS",
            help="then rerun the front, ERM and the knee over so many seeds, on dev and test",
        )
    return parser


def make_config(given: argparse.Namespace) -> Config:
    """The configuration of a command line; UserError as the configuration raises it."""
    smoke = [f"{key}={value}" for key, value in SMOKE.items()] if given.smoke_test else []
    preset = plan.preset_path(given.preset or "demo")
    config = load(preset, [*smoke, *given.settings])
    load_plugins(config.plugins)
    changes: dict = {}
    if given.data:
        named = [name for names in given.data for name in names]
        changes["data.corpora"] = [absolute_corpus(name, Path.cwd()) for name in named]
    if given.strict:
        changes["data.strict"] = True
    if given.trials is not None:
        changes["sweep.trials"] = given.trials
    if given.objectives:
        changes["sweep.objectives"] = [name.strip() for name in given.objectives.split(",")]
    if given.genders:
        changes["data.genders"] = absolute_path(given.genders, Path.cwd())
    if config.sweep.points:
        changes["sweep.trials"] = len(config.sweep.points)
    config = config.replace(changes)
    for name in config.data.corpora:
        parse_corpus(name)
    return config


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
