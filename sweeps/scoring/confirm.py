"""Confirm a sweep: its front (the knee is of it) and its ERM again over seeds, on dev and on test.

    python sweeps/pareto.py --resume results/small --confirm 5

A point is on the front because its dev values were good, so part of them is luck. Here each
configuration of them is trained anew with seeds that the search did not use, and judged on dev and
on test: the only place of a sweep that touches test. All of it lies in DIR/confirm, a sweep folder
of its own over named points, which `--resume DIR --confirm S` goes on with, or extends to more
seeds. Writes confirm/confirmed.parquet (a row a configuration, seed and split), and the analysis
draws confirm.png and writes confirm.csv (analysis/confirmed.py).
"""

from __future__ import annotations

import pandas as pd

from ermgap import metrics
from ermgap.config import METRICS, Config, from_dict
from ermgap.errors import UserError, in_shell
from ermgap.records import Records, bucket_mirror, file_names, write_atomically
from sweeps.scheduler.machines import machine
from sweeps.scoring import judging
from sweeps.search import order


def require(seeds: int | None, config: Config) -> None:
    """UserError for a number of seeds, or a sweep, that cannot be confirmed."""
    if seeds is None:
        return
    if seeds < 2:
        raise UserError(
            f"--confirm {seeds} is not possible: give two seeds or more, so that there is a spread."
        )
    if config.sweep.points:
        raise UserError(
            "--confirm reruns what a search found, and this sweep names its points; give them "
            "train.seed of their own instead."
        )


def run(records: Records, config: Config, *, seeds: int, address: str | None) -> int:
    """Train what is not trained yet, judge it, write the table; returns the exit status."""
    from analysis import confirmed
    from sweeps.scheduler import driver

    wanted = to_confirm(records)
    if not wanted:
        print("nothing to confirm: no trial is on the front and none is ERM")
        return 0
    child = _folder(records, config, wanted, seeds)
    planned = _config(child)
    print(
        f"confirm: {', '.join(wanted)} over {seeds} seeds, {planned.sweep.trials} runs of "
        f"{planned.train.epochs} epochs"
    )
    child.lock()
    session = driver.run(planned, child, address=address, leave=False)
    child.consolidate()
    trials = child.trials()
    stopped = (
        f"stopped; continue with: python sweeps/pareto.py --resume {in_shell(records.directory)} "
        f"--confirm {seeds}"
    )
    if session.interrupted or sum(t.ended for t in trials) < planned.sweep.trials:
        print(stopped)
        return 130 if session.interrupted else 1
    try:
        table = _judge(child, planned, address=address)
    except (UserError, KeyboardInterrupt):
        print(stopped)
        raise
    if not address:
        machine.leave()
    write_atomically(
        child.directory / file_names.CONFIRMED, lambda path: table.to_parquet(path, index=False)
    )
    bucket_mirror.mark_done(child)
    confirmed.write(records.directory)
    return 0


def to_confirm(records: Records) -> dict[str, dict]:
    """The hyperparameters of each configuration to confirm, by its trial's id."""
    from analysis.front import front

    return {
        point.trial_id: dict(point.hyperparameters) for point in front.info(records).highlighted
    }


def _folder(records: Records, config: Config, wanted: dict[str, dict], seeds: int) -> Records:
    """The sweep folder of the reruns: new ones are added to its points, which keep their ids."""
    directory = records.directory / file_names.CONFIRM
    known = Records.open(directory) if (directory / file_names.SWEEP).exists() else None
    points = dict(_config(known).sweep.points) if known else {}
    for seed in range(1, seeds + 1):
        for trial_id, values in wanted.items():
            seeded = values | {"train.seed": config.train.seed + seed}
            points.setdefault(f"{trial_id} seed {seed}", seeded)
    settings = config.replace(
        {"sweep.points": points, "sweep.trials": len(points), "sweep.stop_after": None}
    )
    changes = {"config": settings.to_dict(), "trials": len(points), "kind": "confirm", "space": {}}
    if known is None:
        storage = records.sweep.get("storage")
        changes["storage"] = f"{storage}-confirm" if storage else None
        return Records.create(directory, sweep=records.sweep | changes, table=records.table())
    if len(points) > known.sweep["trials"]:
        known.clear_done()
    known.write_sweep(known.sweep | changes)
    return known


def _config(records: Records) -> Config:
    return from_dict(records.sweep["config"], where=str(records.directory / file_names.SWEEP))


def _judge(child: Records, config: Config, *, address: str | None) -> pd.DataFrame:
    """A row a point, seed and split: trial_id (of the search), seed, split, status, metrics, n."""
    trials = {trial.trial_id: trial for trial in child.trials()}
    utterances = child.table()
    splits = [split for split in ("dev", "test") if (utterances["split"] == split).any()]
    if "test" not in splits:
        print(
            "the corpora have no test utterances, so only dev is judged; a sweep that begins with "
            "--set data.test=true keeps a fold of speakers for test"
        )
    ended = [name for name, trial in trials.items() if trial.status != "failed"]
    tables = _predictions(child, config, ended, splits, address=address)
    rows = []
    for number, name in enumerate(config.sweep.points):
        trial = trials[order.trial_id(number)]
        first, _, seed = name.partition(" seed ")
        for split in splits:
            row = {"trial_id": first, "seed": int(seed), "split": split, "status": trial.status}
            if trial.status != "failed":
                table = tables[trial.trial_id, split]
                data = config.data
                scores = metrics.evaluate(table, labels=data.labels, **data.support)
                row |= {key: scores[key] for key in (*METRICS, "majority_rate")} | {"n": len(table)}
            rows.append(row)
    return pd.DataFrame(rows)


def _predictions(
    child: Records, config: Config, ended: list[str], splits: list[str], *, address: str | None
) -> dict[tuple[str, str], pd.DataFrame]:
    """Predictions by trial and split: training's own on dev; on test the saved adapter's, kept."""
    predictions = {(name, "dev"): child.predictions(name) for name in ended if "dev" in splits}
    if "test" not in splits:
        return predictions
    utterances = child.table().query("split == 'test'")
    folder = child.storage / "predictions"
    requests = {
        (name, "test"): judging.of_adapter(
            child, name, utterances, folder / f"{name}.test.parquet", name=name
        )
        for name in ended
    }
    answered = judging.answers(
        list(requests.values()),
        config=config,
        folder=child.directory,
        features=child.features,
        address=address,
    )
    return predictions | {key: answered[request.kept] for key, request in requests.items()}
