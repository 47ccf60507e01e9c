"""Predictions of several systems on the same utterances, as sums over speakers.

    sums = SpeakerSums.of({"erm": table, "t0004": other}, labels=LABELS)
    drawn = sums.margins(sums.draws(10_000, np.random.default_rng(0)), "erm")
Whatever is resampled (speakers drawn, left out, given another gender) is a weight a unit; margins
of all resamples are then one matrix product, and all systems see the same resamples. A unit is a
speaker within a language and gender (a *stratum*); where a stratum has a single speaker its
utterances are the units, which misses what differs between speakers: `lone` names those strata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from ermgap import metrics
from ermgap.config import GENDERS
from ermgap.errors import UserError
from ermgap.metrics import Margins

SPEAKER = ["corpus", "speaker"]
_ASKED = ["utterance_id", "modality", "label"]


@dataclass(frozen=True, eq=False)
class SpeakerSums:
    """Sums of every system's predictions over every unit.

    Attributes:
        labels: the K classes. cells: the C cells, `language/modality`.
        units: as from `units_of`.
        sums: by system, float [U, C, K, 3]: true utterances, hits and predictions of a class.
        confusions: by system, float [C, K, K + 1], both genders together.
        classes: bool [C, K], classes with enough support of each gender.
        counted: bool [C], cells that count for max_gap (`metrics.counted_cells`); what is derived
            from the rates of any other is NaN.
        named: the index of the cell that was named before the sweep, if it counts; or None.
    """

    labels: tuple[str, ...]
    cells: tuple[str, ...]
    units: pd.DataFrame
    counts: dict[str, np.ndarray] = field(repr=False)
    confusions: dict[str, np.ndarray] = field(repr=False)
    classes: np.ndarray = field(repr=False)
    counted: np.ndarray = field(repr=False)
    named: int | None = None

    @classmethod
    def of(
        cls,
        tables: Mapping[str, pd.DataFrame],
        *,
        labels: Sequence[str],
        min_support: float = 5,
        cell_support: float | None = None,
        cell: str | None = None,
        omitted: dict[str, str] | None = None,
    ) -> SpeakerSums:
        """The sums of prediction tables (as in predictions/<trial_id>.parquet, one split).

        Args:
            cell: the one that was named before the sweep.
            omitted: gets the reason for each table that cannot be read or is not of the same
                utterances as the first that can; None: that is an error.

        Raises:
            UserError: there is no table, one lacks a column, or two are not of the same utterances.
        """
        counts: dict[str, np.ndarray] = {}
        confusions: dict[str, np.ndarray] = {}
        for name, table in tables.items():
            try:
                keys, coded = ordered(table, labels)
                if not counts:
                    first, (units, unit) = name, units_of(keys)
                    asked, cells = keys[_ASKED], coded.cells
                elif not keys[_ASKED].equals(asked):
                    raise UserError(
                        f"the predictions of {name} are not of the same utterances as those of "
                        f"{first}; compare systems that were evaluated on one split of one table."
                    )
            except UserError as problem:
                if omitted is None:
                    raise
                omitted[name] = str(problem)
                continue
            counts[name], confusions[name] = _sums(coded, unit, len(units))
        if not counts:
            raise UserError("there are no predictions to compare; name at least one system.")
        support = counts[first][..., 0]
        female = (units["gender"] == GENDERS[0]).to_numpy()
        both = np.stack([support[female].sum(0), support[~female].sum(0)], 1)
        classes = (both >= min_support).all(1)
        truth = Margins(both, both, both)  # which gaps are defined depends on the true labels alone
        counted = metrics.counted_cells(truth, min_support=min_support, cell_support=cell_support)
        named = cells.index(cell) if cell in cells and counted[cells.index(cell)] else None
        return cls(tuple(labels), cells, units, counts, confusions, classes, counted, named)

    def with_all_cells(self) -> SpeakerSums:
        """The same with all cells counted, to list what each of them has."""
        return replace(self, counted=np.ones(len(self.cells), bool))

    @cached_property
    def female(self) -> np.ndarray:
        """Bool [U]."""
        return (self.units["gender"] == GENDERS[0]).to_numpy()

    @cached_property
    def strata(self) -> list[np.ndarray]:
        """The units of each language and gender."""
        return list(self.units.groupby("stratum", sort=True).indices.values())

    @cached_property
    def is_lone(self) -> list[bool]:
        """Of each stratum, whether it has a single speaker."""
        return self.units.groupby("stratum", sort=True)["is_lone"].first().tolist()

    @cached_property
    def lone(self) -> tuple[str, ...]:
        """Strata of one speaker, as `language/gender`."""
        names = (self.units["language"] + "/" + self.units["gender"])[self.units["is_lone"]]
        return tuple(sorted(set(names)))

    @cached_property
    def denominators(self) -> np.ndarray:
        """A unit's utterances in the denominator of each of `metrics.rates`, [U, C, 2K + 2].

        All of its cell for W-F1 and accuracy.
        """
        support = next(iter(self.counts.values()))[..., 0]
        n = support.sum(-1, keepdims=True)
        return np.concatenate([support, n - support, n, n], -1)

    @cached_property
    def share(self) -> np.ndarray:
        """A unit's weight in its stratum's rates, `denominators` over their sum, [U, C, 2K + 2]."""
        shares = np.zeros_like(self.denominators)
        for rows in self.strata:
            mine = self.denominators[rows]
            whole = np.broadcast_to(mine.sum(0), mine.shape)
            shares[rows] = np.divide(mine, whole, out=np.zeros_like(mine), where=whole > 0)
        return shares

    def draws(self, resamples: int, rng: np.random.Generator) -> np.ndarray:
        """Weights [resamples, U] of the rescaling bootstrap within strata (Rao and Wu 1988).

        Of n units n - 1 are drawn with replacement and weigh n / (n - 1): the plain bootstrap's
        errors are too short by sqrt((n - 1) / n), 29 % at two speakers.
        """
        weights = np.ones((resamples, len(self.units)))
        for rows in self.strata:
            n, draws = len(rows), max(len(rows) - 1, 1)
            weights[:, rows] = rng.multinomial(draws, np.full(n, 1 / n), resamples) * (n / draws)
        return weights

    def without_each(self) -> np.ndarray:
        """Weights [U, U]: row u is without unit u, the others of its stratum making up for it.

        A unit that is alone stays: without it nothing would be left.
        """
        weights = np.ones((len(self.units), len(self.units)))
        for rows in self.strata:
            if len(rows) > 1:
                weights[np.ix_(rows, rows)] = len(rows) / (len(rows) - 1)
                weights[rows, rows] = 0.0
        return weights

    def margins(
        self, weights: np.ndarray, system: str, *, female: np.ndarray | None = None
    ) -> Margins:
        """Margins [resamples, C, 2, K] of a system under weights [resamples, U].

        Args:
            female: bool [U] or [resamples, U], in place of the speakers' own gender.
        """
        counts = self.counts[system]
        flat = counts.reshape(len(counts), -1)
        female = self.female if female is None else female
        parts = [weights * female @ flat, weights * ~female @ flat]
        shaped = np.stack([part.reshape(-1, *counts.shape[1:]) for part in parts], 2)
        return Margins(*np.moveaxis(shaped, -1, 0))

    def rates(self, weights: np.ndarray, system: str, **given) -> np.ndarray:
        """`metrics.rates` of each gender, [resamples, C, 2, 2K + 2]."""
        margins = self.margins(weights, system, **given)
        return metrics.rates(margins, classes=self.classes, cells=self.counted)

    def signed_gaps(self, weights: np.ndarray, system: str, **given) -> np.ndarray:
        """Differences of the rates, female less male, [resamples, C, 2K + 2]."""
        return metrics.differences(self.rates(weights, system, **given))

    def values(self, weights: np.ndarray, system: str) -> dict[str, np.ndarray]:
        """`acc` and `w_f1` over everything, and `max_gap`, each [resamples].

        And `cell_gap`, the average gap of the named cell, where there is one.
        """
        margins = self.margins(weights, system)
        whole = Margins(*(part.sum((-3, -2)) for part in margins))
        values = {
            "acc": metrics.accuracy(whole),
            "w_f1": metrics.weighted_f1(whole),
            "max_gap": largest_gap_of_margins(margins, self.classes, self.counted),
        }
        if self.named is not None:
            rates = metrics.rates(margins, classes=self.classes, cells=self.counted)
            values["cell_gap"] = self.named_gap(metrics.differences(rates))
        return values

    def named_gap(self, signed: np.ndarray) -> np.ndarray:
        """The average gap [...] of the named cell, of signed gaps [..., C, 2K + 2]."""
        return metrics.gap_sizes(signed[..., self.named, :])["avg"]

    def objectives(self, names: Sequence[str], *, resamples: int, seed: int = 0) -> np.ndarray:
        """What all systems score under the same resamples, [resamples, systems, names]."""
        return self.scores(names, self.draws(resamples, np.random.default_rng(seed)))

    def scores(self, names: Sequence[str], weights: np.ndarray) -> np.ndarray:
        """`values` of all systems, [resamples, systems, names]."""
        scores = [self.values(weights, system) for system in self.counts]
        return np.stack([np.stack([score[name] for name in names], -1) for score in scores], 1)

    def observed(self, system: str) -> np.ndarray:
        """The differences as measured, [C, 2K + 2]."""
        return self.signed_gaps(self.measured_weights, system)[0]

    @cached_property
    def measured_weights(self) -> np.ndarray:
        """The weights of what was measured, [1, U]."""
        return np.ones((1, len(self.units)))


def largest_gap(signed: np.ndarray) -> np.ndarray:
    """max_gap [...] of signed gaps [..., C, 2K + 2]: the largest average gap; NaN if undefined.

    A seminorm, as a maximum of seminorms is.
    """
    gap = metrics.gap_sizes(signed)["avg"]
    worst = np.where(np.isfinite(gap), gap, -np.inf).max(-1)
    return np.where(np.isfinite(worst), worst, np.nan)


def largest_gap_of_margins(
    margins: np.ndarray | Margins, classes: np.ndarray, cells: np.ndarray | None = None
) -> np.ndarray:
    """max_gap [...] of margins (or counts) [..., C, 2, K] over `cells` (bool [C]; None: all)."""
    return largest_gap(metrics.differences(metrics.rates(margins, classes=classes, cells=cells)))


def ordered(
    table: pd.DataFrame, labels: Sequence[str]
) -> tuple[pd.DataFrame, metrics.EncodedPredictions]:
    """A table in the order of its utterances, and its predictions as numbers."""
    keys = ["utterance_id", "modality"]
    if missing := [name for name in [*keys, "speaker", "gender", "language"] if name not in table]:
        raise UserError(
            f"the predictions lack the column(s) {', '.join(missing)}; "
            "give a table as written in predictions/<trial_id>.parquet."
        )
    table = table.sort_values(keys, kind="stable", ignore_index=True)
    return table, metrics.encode(table, labels=labels)


def units_of(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The units of predictions, and the unit of each row (int [n]).

    A row a unit: language, gender, stratum and speaker (integers), size (utterances, all
    modalities) and is_lone, whether its stratum has a single speaker.
    """
    speaker = [name for name in SPEAKER if name in table]
    stratum = table.groupby(["language", "gender"], sort=True).ngroup().to_numpy()
    who = table.groupby(["language", "gender", *speaker], sort=True).ngroup().to_numpy()
    is_lone = pd.Series(who).groupby(stratum).transform("nunique").to_numpy() == 1
    # An utterance that is asked in two modalities is one unit.
    utterance = pd.factorize(table["utterance_id"])[0]
    key = np.where(is_lone, len(table) + utterance, who)
    _, first, unit = np.unique(key, return_index=True, return_inverse=True)
    units = table.loc[first, ["language", "gender"]].reset_index(drop=True)
    speaker, columns = pd.factorize(who[first])[0], {"stratum": stratum, "is_lone": is_lone}
    columns = {name: column[first] for name, column in columns.items()}
    return units.assign(**columns, speaker=speaker, size=np.bincount(unit)), unit


def _sums(
    coded: metrics.EncodedPredictions, unit: np.ndarray, units: int
) -> tuple[np.ndarray, np.ndarray]:
    """Margins of every unit [U, C, K, 3], and confusions [C, K, K + 1]."""
    shape = (units, len(coded.cells), coded.classes, coded.classes + 1)
    flat = np.ravel_multi_index((unit, coded.cell, coded.label, coded.prediction), shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(float)
    return np.stack(Margins.of(counts), -1), counts.sum(0)
