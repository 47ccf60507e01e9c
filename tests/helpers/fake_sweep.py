"""A sweep folder with made-up trials, written through `Records`, for the tests of the analysis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ermgap import metrics
from ermgap.config import GENDERS, METRICS
from ermgap.records import POSITIONS, Records, dial_id

LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
# Trials for `write`: the baseline, its front with two more, and those that are no use.
ERM = {"acc": 0.66, "max_gap": 0.14, "loss": "erm"}
DEGENERATE = [{"acc": 0.16, "max_gap": 0.0}, {"acc": 0.15, "max_gap": 0.2}]
THREE = [ERM, {"acc": 0.64, "max_gap": 0.06}, {"acc": 0.55, "max_gap": 0.03}]
RUNNING = [{"acc": 0.30, "max_gap": 0.20, "status": "running"}]


def many(seed: int, n: int = 40) -> list[dict]:
    """Trials whose gap grows with their accuracy, a fifth of them ERM."""
    rng = np.random.default_rng(seed)
    acc = rng.uniform(0.45, 0.72, n)
    gap = np.maximum(0.01, (acc - 0.38) * 0.45 + rng.exponential(0.04, n))
    loss = np.where(np.arange(n) % 5, "minmaxgap", "erm")
    return [{"acc": a, "max_gap": g, "loss": x} for a, g, x in zip(acc, gap, loss, strict=True)]


def utterances(
    *, n: int = 480, speakers: int = 4, seed: int = 0, accents: Sequence[str] = ()
) -> pd.DataFrame:
    """Dev utterances of three languages with `speakers` per language and gender.

    `accents` are sides of one more attribute, in turn those of the speakers.
    """
    rng = np.random.default_rng(seed)
    language = np.resize(["de", "en", "ja"], n)
    gender = np.resize(np.repeat(["female", "male"], 3), n)
    number = rng.integers(speakers, size=n)
    speaker = [f"{a}-{b[0]}{c}" for a, b, c in zip(language, gender, number, strict=True)]
    table = pd.DataFrame(
        {
            "utterance_id": [f"u{i:05d}" for i in range(n)],
            "corpus": "demo",
            "language": language,
            "modality": "speech",
            "gender": gender,
            "speaker": speaker,
            "group": speaker,
            "split": "dev",
            "label": rng.choice(LABELS, n),
        }
    )
    return table.assign(accent=np.resize(accents, speakers)[number]) if accents else table


def balanced(speakers: int, *, each: int = 20) -> pd.DataFrame:
    """`each` utterances of every speaker, so that sums over speakers have a closed form."""
    rows = [
        {"language": language, "gender": gender, "speaker": f"{language}{gender}{number}"}
        for language in ("de", "en", "ja")
        for gender in GENDERS
        for number in range(speakers)
        for _ in range(each)
    ]
    table = pd.DataFrame(rows).assign(modality="speech", split="dev")
    table["utterance_id"] = [f"u{i:05d}" for i in range(len(table))]
    table["label"] = np.resize(LABELS, len(table))
    return table


def predictions(
    table: pd.DataFrame,
    *,
    right: float,
    handicap: float,
    seed: int,
    attribute: str = "gender",
) -> pd.DataFrame:
    """Right with probability `right`, less `handicap` for German women; speakers differ by 0.1.

    With another `attribute`, for Germans of its first side.
    """
    rng = np.random.default_rng(seed)
    offset = {name: rng.normal(0, 0.1) for name in sorted(set(table["speaker"]))}
    chance = right + table["speaker"].map(offset)
    first = sorted(set(table[attribute]))[0]
    chance -= handicap * ((table["language"] == "de") & (table[attribute] == first))
    hit = rng.random(len(table)) < chance
    guess = rng.choice(LABELS, len(table))
    return table.assign(prediction=np.where(hit, table["label"], guess))


def write(
    directory: Path,
    trials: Sequence[dict],
    *,
    with_predictions: bool = True,
    planned: int | None = None,
    done: bool = True,
    accents: Sequence[str] = (),
    attribute: Sequence[str] = ("gender",),
    **sweep: object,
) -> Records:
    """A sweep of `trials`: each a dict of acc, max_gap and, if wanted, loss, status, w_f1, reason.

    Given scores are written as they are; predictions are drawn to resemble them. `accents` are
    sides of one more attribute, and `attribute` drives the sweep.
    """
    table = _dev(accents)
    objective = {"attribute": list(attribute)} if accents else {}
    described = {
        "name": directory.name,
        "preset": "demo",
        "config": {"data": {"min_support": 5}, "train": {"select": "w_f1"}}
        | ({"objective": objective} if objective else {}),
        "labels": list(LABELS),
        "objectives": ["acc", "max_gap"],
        "directions": {"acc": "max", "max_gap": "min"},
        "reference_point": {"acc": 0.15, "max_gap": 0.3},
        "majority_rate": 0.16,
        "floor": None,
        "seed": 0,
        "trials": planned or len(trials),
        "n_dev": len(table),
        "languages": ["de", "en", "ja"],
        "synthetic": ["demo"],
        "data": ["demo"],
    }
    records = Records.create(directory, sweep=described | sweep, table=table.assign(synthetic=True))
    for number, trial in enumerate(trials):
        _append(records, f"t{number:04d}", dict(trial), table, with_predictions, attribute)
    if done:
        records.mark_done()
    return records


def write_dial(
    records: Records,
    lower: str,
    upper: str,
    *,
    start: tuple[float, float] = (0.7, 0.45),
    end: tuple[float, float] = (0.68, 0.15),
    positions: Sequence[float] = POSITIONS,
    dip: float = 0.0,
    accents: Sequence[str] = (),
    attribute: Sequence[str] = ("gender",),
) -> None:
    """A line of the dial, and its two ends anew, the same utterances easy for all positions.

    Accuracy (of all but German women) and their handicap go from `start` to `end`; between the ends
    accuracy is lower by up to `dip`. `accents` and `attribute` are those of `write`.
    """
    table = _dev(accents).assign(synthetic=True)
    for position in positions:
        right, handicap = np.array(start) + position * np.subtract(end, start)
        right -= dip * max(0.0, np.sin(np.pi * position))
        said = predictions(
            table, right=right, handicap=max(handicap, 0.0), seed=99, attribute=attribute[-1]
        )
        dev = metrics.evaluate(said, labels=LABELS, attribute=attribute)
        name = dial_id(lower, upper, position)
        trial_id = {0: lower, 1: upper}.get(position)
        for file in filter(None, (name, trial_id)):
            said.to_parquet(records.storage / "predictions" / f"{file}.parquet", index=False)
        row = {"id": name, "lower": lower, "upper": upper, "position": position}
        records.append_dial(row | {"dev": dev, "seconds": 0.1, "time": 0.0})
        for trial in records.trials():
            if trial.trial_id == trial_id:
                selected = trial.selected | {key: dev[key] for key in METRICS}
                records.append(trial.rows[-1] | {"dev": dev, "selected": selected})


def _dev(accents: Sequence[str]) -> pd.DataFrame:
    """The utterances of a sweep, more of them where they have one more attribute."""
    return utterances(n=960, accents=accents) if accents else utterances()


def _append(
    records: Records, trial_id: str, trial: dict, table, with_predictions: bool, attribute
) -> None:
    config = {"loss": trial.pop("loss", "minmaxgap"), "schedule": "linear", "lambda_max": 0.1}
    config |= {"lr": 0.003, "lora_r": 8} | trial.pop("config", {})
    status, reason = trial.pop("status", "finished"), trial.pop("reason", None)
    raised = trial.pop("raised_share", 0.0)
    acc, gap = trial["acc"], trial["max_gap"]
    selected = {"epoch": 1, "w_f1": acc, "worst_group_w_f1": acc, "max_loss_gap": gap} | trial
    dev = {}
    if with_predictions and np.isfinite([acc, gap]).all():
        seed = int(trial_id[1:])
        found = predictions(table, right=acc, handicap=gap, seed=seed, attribute=attribute[-1])
        dev = metrics.evaluate(found, labels=LABELS, attribute=attribute)
        path = records.storage / "predictions" / f"{trial_id}.parquet"
        path.parent.mkdir(exist_ok=True)
        found.to_parquet(path, index=False)
    row = {"trial_id": trial_id, "attempt": 1, "epoch": 1, "config": config, "dev": dev}
    row["raised_share"] = raised
    records.append(row | {"status": status, "reason": reason, "selected": selected})
