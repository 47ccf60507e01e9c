"""Hours and dollars of a sweep, from measured utterances a second and prices that you look up.

    python cluster/cost.py --utterances 23368 --dev 2884 --epochs 20 --trials 60 --gpus 8 \\
        --measured tests/benchmarks/results/gpu-nvidia-h200.json --price 4 --head-price 0.40
    python cluster/cost.py --utterances 23368 --dev 2884 --epochs 20 --trials 60 --gpus 8 \\
        --rate 35 --price 2.24

Rates are of one GPU: either from a file that `make bench-gpu` wrote on such a GPU, or your own. The
paper's preset trains each utterance with and without its text: `--modalities 2`. Nothing but the
standard library is needed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace


@dataclass(frozen=True)
class Sweep:
    """What is run, on what, and at which prices; utterances a second and dollars are of one GPU."""

    utterances: int
    dev: int
    epochs: int
    trials: int
    rate: float
    dev_rate: float
    extract_rate: float | None = None
    modalities: int = 1
    gpus: int = 1
    workers: int = 1
    saved: float = 0.0
    price: float = 0.0
    head_price: float = 0.0
    start_minutes: float = 10.0
    idle_minutes: float = 10.0


TEXT = """\
one trial     {trial_h:.2f} h on {workers} GPU{s}: {epochs} epochs of {epoch_s:.0f} s{saving}
the sweep     {wall_h:.1f} h: {trials} trials, {at_once} at a time, after {start_minutes:g} \
minutes of set-up
GPU-hours     {paid_gpu_h:.1f} paid, of them {busy_gpu_h:.1f} in trials
an hour       {dollars_an_hour:.2f} dollars while all run
in all        {dollars:.2f} dollars: {gpu_dollars:.2f} for GPUs, {head_dollars:.2f} for the head
rates         {rate:.1f} utterances/s in training and {dev_rate:.1f} in evaluation on one GPU \
({source})
not in it     disks, storage, transfers; epochs repeated after a lost node; --confirm"""


def estimate(sweep: Sweep) -> SimpleNamespace:
    """Hours (`_h`) and dollars of a sweep whose trials all take the same time.

    `paid_gpu_h` is what the bill says, `busy_gpu_h` what is spent in trials.
    The sweep holds all of its GPUs from the first trial to the last (it asks the autoscaler for
    every slot at once), so the last, partly filled round is paid for in full, and so is the time in
    which nodes are set up, each computes the frozen features, and, at the end, idles. Several GPUs
    a trial are taken to divide its time evenly, which is the best they can do.
    """
    seconds = sweep.utterances / sweep.rate + sweep.dev / sweep.dev_rate
    epoch_s = seconds * sweep.modalities / sweep.workers
    trial_h = epoch_s * sweep.epochs * (1 - sweep.saved) / 3600
    at_once = min(sweep.gpus // sweep.workers, sweep.trials)
    gpus = at_once * sweep.workers
    features = (sweep.utterances + sweep.dev) / sweep.extract_rate if sweep.extract_rate else 0.0
    wall = sweep.start_minutes / 60 + features / 3600 + math.ceil(sweep.trials / at_once) * trial_h
    until = wall + sweep.idle_minutes / 60
    return SimpleNamespace(
        epoch_s=epoch_s,
        trial_h=trial_h,
        at_once=at_once,
        wall_h=wall,
        busy_gpu_h=sweep.trials * trial_h * sweep.workers,
        paid_gpu_h=gpus * until,
        gpu_dollars=gpus * until * sweep.price,
        head_dollars=until * sweep.head_price,
        dollars_an_hour=gpus * sweep.price + sweep.head_price,
    )


def measured(path: Path, run: str) -> dict[str, float]:
    """The rates of a file that `make bench-gpu` wrote; `run` is a key of its `summary.runs`.

    Raises:
        ValueError: no such file, or none of that form, or without that run.
    """
    try:
        benchmark = json.loads(path.read_text(encoding="utf-8"))
        runs = benchmark["summary"]["runs"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ValueError(
            f"--measured {path} is no file that 'make bench-gpu' wrote ({type(problem).__name__}); "
            "give one of tests/benchmarks/results/gpu-*.json, or --rate."
        ) from problem
    if run not in runs:
        raise ValueError(f"--measured {path} has no run {run!r}; it has {', '.join(sorted(runs))}.")
    rates = {
        "rate": runs[run]["train_utterances_per_second"],
        "dev_rate": runs[run]["eval_utterances_per_second"],
    }
    tower = benchmark["measured"].get(run, {}).get("tower_seconds")
    return rates | ({"extract_rate": 1 / tower} if tower else {})


def text(sweep: Sweep, source: str) -> str:
    """The estimate for people to read; `source` says where the rates come from."""
    plan = estimate(sweep)
    saving = f", {sweep.saved:.0%} of them saved by early stopping" if sweep.saved else ""
    values = vars(sweep) | vars(plan) | {"s": "s" * (sweep.workers > 1), "saving": saving}
    return TEXT.format(dollars=plan.gpu_dollars + plan.head_dollars, source=source, **values)


def number(kind: type, least: float, most: float = math.inf):
    """A parser of an argument: an int or a float (`kind`) of at least `least` and below `most`."""

    def parse(argument: str):
        try:
            value = kind(argument)
        except ValueError:
            value = math.nan
        if not least <= value < most:  # nor is NaN
            bound = f" and below {most:g}" if most < math.inf else ""
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"{argument!r} is not {what} of at least {least:g}{bound}"
            )
        return value

    return parse


def parser() -> argparse.ArgumentParser:
    """The options, whose defaults are those of `Sweep`; a price has none, since prices change."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    count, money, rate = number(int, 1), number(float, 0), number(float, 0.001)
    options.add_argument("--utterances", type=count, required=True, help="of the training split")
    options.add_argument("--dev", type=number(int, 0), default=0, help="judged after every epoch")
    options.add_argument("--modalities", type=count, help="2 for speech and speech+text")
    options.add_argument("--epochs", type=count, required=True)
    options.add_argument("--trials", type=count, required=True)
    options.add_argument("--rate", type=rate, help="utterances/s in training on one GPU")
    options.add_argument("--dev-rate", type=rate, help="in evaluation; by default as in training")
    options.add_argument("--extract-rate", type=rate, help="of the frozen features, computed once")
    options.add_argument(
        "--measured", type=Path, metavar="FILE", help="rates that make bench-gpu wrote"
    )
    options.add_argument("--run", default="ours", help="which run of --measured (default: ours)")
    options.add_argument("--gpus", type=count)
    options.add_argument("--workers", type=count, help="GPUs a trial (sweep.workers)")
    options.add_argument(
        "--saved",
        type=number(float, 0, 1),
        help="share of epochs that early stopping saves; it is off by default, and saved 0.21 to "
        "0.61 in replays (tests/benchmarks/results/search-stopping.md)",
    )
    options.add_argument("--price", type=money, required=True, help="dollars an hour of one GPU")
    options.add_argument("--head-price", type=money, help="dollars an hour of the head")
    options.add_argument("--start-minutes", type=money, help="until a node trains (10, a guess)")
    options.add_argument("--idle-minutes", type=money, help="idle_timeout_minutes (10)")
    return options


def read(arguments: list[str] | None) -> tuple[Sweep, str]:
    """The sweep of a command line, and where its rates come from; ValueError for a mistake."""
    options = parser()

    def refuse(message: str):
        raise ValueError(message.removeprefix("argument ").rstrip(".") + ".")

    options.error = refuse  # type: ignore[method-assign]
    given = vars(options.parse_args(arguments))
    file, run = given.pop("measured"), given.pop("run")
    if (file is None) == (given["rate"] is None):
        raise ValueError("give the speed of one GPU once, by --rate or by --measured.")
    rates = measured(file, run) if file else {"dev_rate": given["rate"]}
    sweep = Sweep(**(rates | {name: value for name, value in given.items() if value is not None}))
    if sweep.workers > sweep.gpus:
        raise ValueError(
            f"a trial of {sweep.workers} GPUs does not fit on {sweep.gpus}; raise --gpus or lower "
            "--workers."
        )
    return sweep, str(file) if file else "yours"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status, 2 after one sentence on a mistake."""
    try:
        sweep, source = read(arguments)
    except ValueError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(text(sweep, source))
    return 0


if __name__ == "__main__":
    sys.exit(main())
