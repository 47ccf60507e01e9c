"""What reruns score: trials and positions of the dial, on dev and on test, over one fold or K.

make_dial(child, config, positions, address=None)        # on dev, as the dial of any sweep
judge(children, config, positions, folds=None, address=None)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ermgap import metrics
from ermgap.config import METRICS, Config
from ermgap.records import Records, dial_id, parse_id
from sweeps.scoring import dial, judging
from sweeps.search import order

WORSE = ("finished", "degenerate", "failed")  # of a configuration's folds the worst status counts


@dataclass(frozen=True)
class Rerun:
    """A trial or a position of the search, and its id in a folder of reruns, for one seed."""

    name: str
    seed: int
    rerun: str


def _reruns(config: Config, positions: Sequence[str]) -> list[Rerun]:
    """Every trial of a folder of reruns, then the positions whose ends are among these."""
    trials = []
    for number, point in enumerate(config.sweep.points):
        name, _, seed = point.partition(" seed ")
        trials.append(Rerun(name, int(seed), order.trial_id(number)))
    known = {(trial.name, trial.seed): trial.rerun for trial in trials}
    made = []
    for name in positions:
        lower, upper, position = parse_id(name)
        for seed in dict.fromkeys(trial.seed for trial in trials):
            ends = [known.get((end, seed)) for end in (lower, upper)]
            if all(ends):
                made.append(Rerun(name, seed, dial_id(*ends, position)))
    return [*trials, *made]


def make_dial(
    child: Records, config: Config, positions: Sequence[str], *, address: str | None
) -> None:
    """Evaluate the positions between reruns on dev; not where an end failed."""
    failed = {trial.trial_id for trial in child.trials() if trial.status == "failed"}
    for line, places in _lines(each.rerun for each in _reruns(config, positions)).items():
        if not failed & set(line):
            quiet = {"note": lambda text: None}  # it names the trials of the reruns
            dial.make(child, config, [line], address=address, positions=places, **quiet)


def _lines(names: Iterable[str]) -> dict[tuple[str, str], list[float]]:
    """The positions on each line between reruns, of those names that are positions."""
    lines: dict[tuple[str, str], list[float]] = {}
    for lower, upper, position in filter(None, map(parse_id, names)):
        lines.setdefault((lower, upper), []).append(position)
    return lines


def judge(
    children: Sequence[Records],
    config: Config,
    positions: Sequence[str],
    *,
    folds: int | None,
    address: str | None,
) -> pd.DataFrame:
    """A row a configuration, seed and split: trial_id (of the search), seed, split, status, metrics
    and n; over folds also folds, the number of speakers that judge, and the id in a fold (rerun).
    """
    statuses = [_statuses(child) for child in children]
    utterances = pd.concat([child.table() for child in children])
    splits = [split for split in ("dev", "test") if (utterances["split"] == split).any()]
    if "test" not in splits and not folds:
        print(
            "the corpora have no test utterances, so only dev is judged; a sweep that begins with "
            "--set data.test=true keeps a fold of speakers for test"
        )
    every = _reruns(config, positions)
    status_of = {
        each.rerun: max((known.get(each.rerun, "failed") for known in statuses), key=WORSE.index)
        for each in every
    }
    ended = [name for name, status in status_of.items() if status != "failed"]
    tables = {(name, "dev"): [child.predictions(name) for child in children] for name in ended}
    if "test" in splits:
        tables |= _on_test(children, ended, config, address=address)
    rows = []
    for each in every:
        for split in splits:
            row = {"trial_id": each.name, "seed": each.seed, "split": split}
            row["status"] = status_of[each.rerun]
            mine = utterances[utterances["split"] == split]
            if folds:
                speakers = len(mine[["corpus", "speaker"]].drop_duplicates())
                row |= {"folds": folds, "speakers": speakers, "rerun": each.rerun}
            if each.rerun in ended:
                row |= _scores(tables[each.rerun, split], split, config)
            rows.append(row)
    return pd.DataFrame(rows)


def _statuses(child: Records) -> dict[str, str]:
    """The status of each rerun and of each position that was evaluated, by its id."""
    trials = child.trials()
    rule = child.rule(trials)
    places = {row["id"]: rule.status(row["dev"]) if rule else "finished" for row in child.dial()}
    return {trial.trial_id: trial.status for trial in trials} | places


def _scores(tables: Sequence[pd.DataFrame], split: str, config: Config) -> dict[str, float]:
    """The metrics of the folds' predictions: on dev of all together, on test each fold's mean."""
    judged = [pd.concat(tables)] if split == "dev" else tables
    data = config.data
    scores = [metrics.evaluate(table, labels=data.labels, **config.compared) for table in judged]
    names = (*METRICS, "majority_rate")
    means = {name: float(np.mean([score[name] for score in scores])) for name in names}
    return means | {"n": len(judged[0])}


def _on_test(
    children: Sequence[Records], ended: Sequence[str], config: Config, *, address: str | None
) -> dict[tuple[str, str], list[pd.DataFrame]]:
    """Predictions on test by rerun, a table a fold: of its adapter, asked once and then kept."""
    requests: dict[tuple[str, int], judging.Request] = {}
    for fold, child in enumerate(children):
        test, folder = child.table().query("split == 'test'"), child.storage / "predictions"
        of_fold = f" of fold {fold + 1}" * (len(children) > 1)
        for name in ended:
            if not parse_id(name):
                kept = folder / f"{name}.test.parquet"
                requests[name, fold] = judging.of_adapter(
                    child, name, test, kept, name=name + of_fold
                )
        for line, places in _lines(ended).items():
            asked = ",".join(f"{place:g}" for place in sorted(places))
            kept = folder / f"{'-'.join(line)}@{asked}.test.parquet"
            ends = [] if kept.exists() else dial.folders_of(child, line)
            spec = ":".join([f"dial={asked}", *map(str, ends)])
            request = judging.Request(spec, test, kept, f"{line[0]} to {line[1]}{of_fold}")
            requests |= {(dial_id(*line, place), fold): request for place in places}
    answered = judging.answers(
        list(dict.fromkeys(requests.values())),
        config=config,
        folder=children[0].directory,
        features=children[0].features,
        address=address,
    )
    tables: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for (name, _), request in requests.items():
        table, place = answered[request.kept], parse_id(name)
        if place:
            table = table[np.isclose(table["position"], place[2])]
        tables.setdefault((name, "test"), []).append(table)
    return tables
