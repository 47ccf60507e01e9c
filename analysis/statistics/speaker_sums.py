"""Predictions of several systems on the same utterances, as sums over speakers.

    sums = SpeakerSums.of({"erm": table, "t0004": other}, labels=LABELS)
    drawn = sums.margins(sums.draws(10_000, np.random.default_rng(0)), "erm")
Whatever is resampled (speakers drawn, left out, given another side) is a weight a unit; margins of
all resamples are then one matrix product, and all systems see the same resamples. A unit is a
speaker within a language and side (a *stratum*); where a stratum has a single speaker its
utterances are the units, which misses what differs between speakers: `lone` names those strata.
A speaker who is on several sides (of a speaking style, say) is a unit of each: what her units have
in common cancels in a gap, so that the errors of gaps are rather too large there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.statistics.units import ordered, sums_of, units_of
from ermgap import attributes, metrics
from ermgap.config import GENDER
from ermgap.errors import UserError
from ermgap.metrics import Compared, Margins, largest_gap

_ASKED = ["utterance_id", "modality", "label"]


@dataclass(frozen=True, eq=False)
class SpeakerSums:
    """Sums of every system's predictions over every unit.

    Attributes:
        labels: the K classes. cells: the C cells, `language/modality`. sides: the S sides.
        attribute: the columns that they are values of.
        units: as from `units_of`.
        counts: by system, float [U, C, K, 3]: true utterances, hits and predictions of a class.
        confusions: by system, float [C, K, K + 1], all sides together.
        compared: the sides, classes and cells that gaps are of; what is derived from the rates of
            any other is NaN.
        named: the index of the cell that was named before the sweep, if it counts; or None.
    """

    labels: tuple[str, ...]
    cells: tuple[str, ...]
    sides: tuple[str, ...]
    attribute: tuple[str, ...]
    units: pd.DataFrame
    counts: dict[str, np.ndarray] = field(repr=False)
    confusions: dict[str, np.ndarray] = field(repr=False)
    compared: Compared = field(repr=False)
    named: int | None = None

    @classmethod
    def of(
        cls,
        tables: Mapping[str, pd.DataFrame],
        *,
        labels: Sequence[str],
        attribute: Sequence[str] = (GENDER,),
        sides: Sequence[str] | None = None,
        min_support: float = 5,
        cell_support: float | None = None,
        speaker_support: int = 1,
        cell: str | None = None,
        omitted: dict[str, str] | None = None,
    ) -> SpeakerSums:
        """The sums of prediction tables (as in predictions/<trial_id>.parquet, one split).

        Args:
            attribute, min_support, cell_support, speaker_support: as for `metrics.evaluate`.
            sides: the sides; None: those of the first table.
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
                keys, coded = ordered(table, labels, attribute, sides)
                if not counts:
                    first, (units, unit) = name, units_of(keys, attribute)
                    asked, cells, names = keys[_ASKED], coded.cells, coded.sides
                    heard = metrics.speakers_of_sides(keys, coded)
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
            counts[name], confusions[name] = sums_of(coded, unit, len(units))
        if not counts:
            raise UserError("there are no predictions to compare; name at least one system.")
        support, side = counts[first][..., 0], attributes.index(units["side"], names)
        of_side = np.stack([support[side == place].sum(0) for place in range(len(names))], 1)
        compared = Compared.of(
            Margins(of_side, of_side, of_side),
            min_support=min_support,
            cell_support=cell_support,
            speaker_support=speaker_support,
            speakers=heard,
        )
        counts_there = cell in cells and compared.counted[cells.index(cell)]
        return cls(
            labels=tuple(labels),
            cells=cells,
            sides=names,
            attribute=tuple(attribute),
            units=units,
            counts=counts,
            confusions=confusions,
            compared=compared,
            named=cells.index(cell) if counts_there else None,
        )

    @property
    def counted(self) -> np.ndarray:
        """Bool [C], the cells that count for max_gap."""
        return self.compared.counted

    def with_cells(self, counted: np.ndarray) -> SpeakerSums:
        """The same with other cells that count for max_gap, bool [C]."""
        return replace(self, compared=replace(self.compared, counted=counted))

    def with_all_cells(self) -> SpeakerSums:
        """The same with all cells counted, to list what each of them has."""
        return self.with_cells(np.ones(len(self.cells), bool))

    @cached_property
    def side(self) -> np.ndarray:
        """Index of each unit's side, [U] int; S where it is unknown."""
        return attributes.index(self.units["side"], self.sides)

    def rows_of_sides(self, cells: Sequence[int]) -> list[np.ndarray]:
        """The units of each side that is compared in one of the cells."""
        there = np.flatnonzero(self.compared.sides[cells].any(0))
        return [np.flatnonzero(self.side == place) for place in there]

    @cached_property
    def columns(self) -> int:
        """Sides of margins: S, and one more where units of unknown side are there."""
        return max(len(self.sides), int(self.side.max(initial=0)) + 1)

    @cached_property
    def strata(self) -> list[np.ndarray]:
        """The units of each language and side."""
        return list(self.units.groupby("stratum", sort=True).indices.values())

    @cached_property
    def is_lone(self) -> list[bool]:
        """Of each stratum, whether it has a single speaker."""
        return self.units.groupby("stratum", sort=True)["is_lone"].first().tolist()

    @cached_property
    def lone(self) -> tuple[str, ...]:
        """Strata of one speaker, as `language/side`, that have a part in some gap."""
        alone = self.units["is_lone"].to_numpy() & self.share.any((1, 2))
        names = (self.units["language"] + "/" + self.units["side"])[alone]
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
        """A unit's weight in its side's rates, `denominators` over their sum, [U, C, 2K + 2].

        0 where its side is not compared.
        """
        there = np.column_stack([self.compared.sides, np.zeros(len(self.cells), bool)])
        shares = np.zeros_like(self.denominators)
        for rows in self.strata:
            mine = np.where(there.T[self.side[rows]][..., None], self.denominators[rows], 0.0)
            whole = np.broadcast_to(mine.sum(0), mine.shape)
            shares[rows] = np.divide(mine, whole, out=np.zeros_like(mine), where=whole > 0)
        return shares

    @cached_property
    def share_of_pairs(self) -> np.ndarray:
        """`share` in the difference of each pair, [U, C, pairs, 2K + 2]; 0 of a third side."""
        first, second = metrics.pairs(len(self.sides))
        there = (self.side[:, None] == first) | (self.side[:, None] == second)
        return self.share[:, :, None] * there[:, None, :, None]

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
        self, weights: np.ndarray, system: str, *, side: np.ndarray | None = None
    ) -> Margins:
        """Margins [resamples, C, columns, K] of a system under weights [resamples, U].

        Args:
            side: int [U] or [resamples, U], in place of the units' own.
        """
        counts = self.counts[system]
        flat = counts.reshape(len(counts), -1)
        side = self.side if side is None else side
        parts = [weights * (side == place) @ flat for place in range(self.columns)]
        shaped = np.stack([part.reshape(-1, *counts.shape[1:]) for part in parts], 2)
        return Margins(*np.moveaxis(shaped, -1, 0))

    def rates(self, weights: np.ndarray, system: str, **given) -> np.ndarray:
        """`metrics.rates` of each side, [resamples, C, S, 2K + 2]."""
        return self.rates_of_margins(self.margins(weights, system, **given))

    def rates_of_margins(self, margins: Margins) -> np.ndarray:
        """`metrics.rates` [..., C, S, 2K + 2] of margins [..., C, columns, K]."""
        known = Margins(*(part[..., : len(self.sides), :] for part in margins))
        compared = self.compared
        return metrics.rates(
            known, classes=compared.classes, sides=compared.sides, cells=compared.counted
        )

    def signed_gaps(self, weights: np.ndarray, system: str, **given) -> np.ndarray:
        """`metrics.differences` of the rates, [resamples, C, pairs, 2K + 2]."""
        return metrics.differences(self.rates(weights, system, **given))

    def values(self, weights: np.ndarray, system: str) -> dict[str, np.ndarray]:
        """`acc` and `w_f1` over everything, and `max_gap`, each [resamples].

        And `cell_gap`, the average gap of the named cell, where there is one.
        """
        margins = self.margins(weights, system)
        whole = Margins(*(part.sum((-3, -2)) for part in margins))
        signed = metrics.differences(self.rates_of_margins(margins))
        values = {
            "acc": metrics.accuracy(whole),
            "w_f1": metrics.weighted_f1(whole),
            "max_gap": largest_gap(signed),
        }
        if self.named is not None:
            values["cell_gap"] = self.named_gap(signed)
        return values

    def named_gap(self, signed: np.ndarray) -> np.ndarray:
        """The average gap [...] of the named cell, of signed gaps [..., C, pairs, 2K + 2]."""
        return metrics.gap_sizes(signed[..., self.named, :, :])["avg"]

    def objectives(self, names: Sequence[str], *, resamples: int, seed: int = 0) -> np.ndarray:
        """What all systems score under the same resamples, [resamples, systems, names]."""
        return self.scores(names, self.draws(resamples, np.random.default_rng(seed)))

    def scores(self, names: Sequence[str], weights: np.ndarray) -> np.ndarray:
        """`values` of all systems, [resamples, systems, names]."""
        scores = [self.values(weights, system) for system in self.counts]
        return np.stack([np.stack([score[name] for name in names], -1) for score in scores], 1)

    def observed(self, system: str) -> np.ndarray:
        """The differences as measured, [C, pairs, 2K + 2]."""
        return self.signed_gaps(self.measured_weights, system)[0]

    @cached_property
    def measured_weights(self) -> np.ndarray:
        """The weights of what was measured, [1, U]."""
        return np.ones((1, len(self.units)))
