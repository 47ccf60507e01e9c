"""Real training as a test problem: a random design over the small preset, and a surrogate of it.

    python tests/benchmarks/search_design.py results/search-design      # a sweep's folder -> .npz

`SETTINGS` are those of the design (make figures-search runs it): 66 random configurations of
MinMaxGAP over six hyperparameters, 6 epochs each, every epoch's dev predictions kept. `pack` writes
what they showed, and how much of it is luck of the dev utterances, to results/search-design.npz;
`problem` fits the surrogate, a forest over the learning curves, shrunk to its mean as far as
cross-validation says that it has only learnt luck, for `search_ours.py` and the peers.
Packing needs this project; the problem needs numpy and scikit-learn.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "results" / "search-design.npz"
SETTINGS = {
    "backbone.dtype": "bfloat16",
    "objective.loss": "minmaxgap",
    "objective.schedule": "linear",
    "objective.p": 2,
    "train.patience": 6,
    "train.keep_epochs": "true",
    "sweep.sampler": "random",
    "sweep.floor": 0,
    "sweep.seed": 5,
    "sweep.space": "{loss: false, schedule: false, p: false, lora_r: false, lora_dropout: false, "
    "lambda_max: [0.003, 3]}",
}
OBJECTIVES = ("acc", "max_gap")
RESAMPLES = 40


def pack(folder: Path, file: Path = FILE) -> None:
    """Write the design: configurations, curves [n, epochs, 2], and dev luck of each [.., R, ..].

    `luck` is what a resample of dev (speakers, or utterances where a group has one speaker) changes
    in the objectives that the search would have seen. Every epoch's predictions go along, as codes.
    """
    import pandas as pd

    from analysis.statistics import SpeakerSums
    from ermgap import metrics
    from ermgap.records import Records

    records = Records.open(folder)
    trials = [
        t for t in records.trials() if "start" in t.hyperparameters and t.status == "finished"
    ]
    labels, epochs = records.sweep["labels"], records.sweep["config"]["train"]["epochs"]
    curves, luck, predicted = [], [], []
    for trial in trials:
        rows = [row for row in trial.rows if row["epoch"]]
        table = pd.read_parquet(records.storage / "predictions" / f"{trial.trial_id}.rungs.parquet")
        chosen = [row["selected"]["epoch"] for row in rows]
        parts = [table[table["epoch"] == epoch].sort_values("utterance_id") for epoch in
                 range(1, epochs + 1)]  # fmt: skip
        changes = []
        for part in parts:
            sums = SpeakerSums.of({"": part}, labels=labels, min_support=5)
            found = sums.objectives(OBJECTIVES, resamples=RESAMPLES)[:, 0].T
            whole = metrics.evaluate(part, labels=labels, min_support=5)
            changes.append([one - whole[name] for one, name in zip(found, OBJECTIVES, strict=True)])
        changes = np.array(changes)[np.array(chosen) - 1]  # [epochs, 2, R], of the selected epoch
        luck.append(np.moveaxis(changes, -1, 0))
        curves.append([[row["selected"][name] for name in OBJECTIVES] for row in rows])
        predicted.append([[labels.index(word) for word in part["prediction"]] for part in parts])
    told = {
        "labels": labels,
        "space": {
            n: d for n, d in records.sweep["space"].items() if n in trials[0].hyperparameters
        },
        "majority": records.sweep["majority_rate"],
        "configurations": [trial.hyperparameters for trial in trials],
    }
    kept = ["utterance_id", "language", "gender", "speaker", "label"]
    file.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        file,
        told=json.dumps(told),
        utterances=json.dumps(parts[0][kept].to_dict("list")),
        curves=np.array(curves, np.float32),
        luck=np.array(luck, np.float32),
        predicted=np.array(predicted, np.uint8),
    )


class Surrogate:
    """The design as a problem: see `search_problems.Problem`, whose methods it has."""

    name = "training"
    objectives = 2

    def __init__(self, file: Path = FILE) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        with np.load(file) as held:
            told = json.loads(str(held["told"]))
            self.curves, self.luck = held["curves"], held["luck"]
        self.space = told["space"]
        self.names, self.epochs = tuple(self.space), self.curves.shape[1]
        self.reference, self.ideal = (-told["majority"], 0.30), (-1.0, 0.0)
        self.signs = np.array([-1.0, 1.0])
        self.features = np.array([self._features(one) for one in told["configurations"]])
        self.forest = lambda: ExtraTreesRegressor(100, min_samples_leaf=3, random_state=0)
        flat = self._flat(self.curves)
        self.model = self.forest().fit(self.features, flat)
        # What cross-validation does not support is no structure but the design's own luck.
        self.mean, held_out = flat.mean(0), self._held_out() - flat.mean(0)
        slope = (held_out * (flat - self.mean)).sum(0) / (held_out**2).sum(0)
        self.slope = slope.clip(0, 1)

    def final(self, x: dict) -> np.ndarray:
        """What a configuration is truly worth: (-accuracy, gap)."""
        return self._curve(x)[-1] * self.signs

    def curve(self, x: dict, seed: int) -> np.ndarray:
        """What a trial of it shows after each epoch, [epochs, 2]: with the luck of a trial that is
        among the five nearest of the design, on dev utterances drawn anew."""
        rng = np.random.default_rng(seed)
        far = ((self.features - self._features(x)) ** 2).sum(1)
        near = np.argsort(far, kind="stable")[rng.integers(5)]
        return (self._curve(x) + self.luck[near, rng.integers(self.luck.shape[1])]) * self.signs

    def quality(self) -> dict[str, list[float]]:
        """Of each objective after each epoch: R^2 of the forest in ten-fold cross-validation, and
        the share of its structure that the surrogate keeps for it (`_slope`)."""
        flat = self._flat(self.curves)
        r2 = 1 - ((self._held_out() - flat) ** 2).mean(0) / flat.var(0)
        return {
            f"{name}{end}": values.reshape(self.epochs, 2)[:, j].round(2).tolist()
            for j, name in enumerate(OBJECTIVES)
            for end, values in (("", r2), ("_slope", self.slope))
        }

    def _held_out(self) -> np.ndarray:
        """The design's values as forests predict them that have not seen them, [n, epochs * 2]."""
        from sklearn.model_selection import KFold

        flat = self._flat(self.curves)
        found = np.zeros_like(flat)
        for fit, left in KFold(10, shuffle=True, random_state=0).split(flat):
            model = self.forest().fit(self.features[fit], flat[fit])
            found[left] = model.predict(self.features[left])
        return found

    def _curve(self, x: dict) -> np.ndarray:
        forest = self.model.predict(self._features(x)[None])[0]
        return (self.mean + self.slope * (forest - self.mean)).reshape(self.epochs, 2)

    @staticmethod
    def _flat(curves: np.ndarray) -> np.ndarray:
        return curves.reshape(len(curves), -1).astype(float)

    def _features(self, x: dict) -> np.ndarray:
        row = []
        for name, given in self.space.items():
            if "choices" in given:
                row += [0.7 * (x[name] == option) for option in given["choices"]]
            else:
                ends = np.array([x[name], given["low"], given["high"]], float)
                at, low, high = np.log(ends) if given["log"] else ends
                row.append((at - low) / (high - low))
        return np.array(row)


@cache
def problem() -> Surrogate:
    """The surrogate of the committed design."""
    return Surrogate()


def problems() -> dict:
    """All problems by name: the published ones, and this one where the design is there."""
    import search_problems

    known = search_problems.DESIGN | search_problems.UNTOUCHED
    return known | ({"training": problem()} if FILE.exists() else {})


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
    print(problem().quality())
