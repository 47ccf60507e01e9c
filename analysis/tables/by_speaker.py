"""How unequal speakers are to a model, from stored predictions: each speaker has an accuracy.

    table, note = by_speaker.table(info, predictions, least=5)
    table[["trial_id", "speakers", "spread", "worst_tenth", "gini"]]

Groups hide single people: two sides may be alike on average while some speakers are hardly
understood at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd

from analysis.front import FrontInfo
from analysis.statistics.units import SPEAKER
from analysis.tables.cards import cards

MEASURES = ("spread", "sd", "worst_tenth", "gini")
RESAMPLES = 2000
COLUMNS = ["trial_id", "speakers", *MEASURES]
COLUMNS += [f"{name}_{part}" for name in MEASURES for part in ("change", "change_se")]


def table(
    info: FrontInfo, predictions: Mapping[str, pd.DataFrame], *, least: int
) -> tuple[pd.DataFrame, str]:
    """A row a point, and a sentence on who is measured or what is missing.

    Columns, in fractions but for counts and `gini`: trial_id, speakers (n), `measures`, and of each
    of these its change against ERM on the same speakers and that change's standard error over
    resampled speakers (`spread_change`, `spread_change_se` ...). No row without two speakers.

    Args:
        predictions: on dev by trial id, ERM's first.
        least: utterances that a speaker needs; no fewer than 2 in any case.
    """
    least, first, means, errors = max(least, 2), None, {}, {}
    lacking: dict[str, list[str]] = {}
    for name, whole in predictions.items():
        if missing := [c for c in ("speaker", "utterance_id") if c not in whole]:
            reason = f"the predictions lack the column(s) {', '.join(missing)}"
            lacking.setdefault(reason, []).append(name)
            continue
        right = _right(whole)
        first = right.index if first is None else first
        if not right.index.equals(first):
            reason = "the predictions are of other utterances"
            lacking.setdefault(reason, []).append(name)
            continue
        means[name], errors[name], few = by_speaker(right, least)
    notes = [
        f"Nothing is said of the speakers of {', '.join(names)}: {reason}."
        for reason, names in lacking.items()
    ]
    n = len(next(iter(means.values()), ()))
    if n < 2:
        if means:
            notes.insert(0, f"No two dev speakers have {least} utterances each.")
        return pd.DataFrame(columns=COLUMNS), " ".join(notes)
    left_out = f"; {few} with fewer are left out" if few else ""
    notes.insert(0, f"{n} speakers with at least {least} utterances each{left_out}.")
    return _rows(info, means, errors), " ".join(notes)


def _right(table: pd.DataFrame) -> pd.Series:
    """Share of right answers by speaker and utterance: one that is asked twice counts once."""
    who = [name for name in SPEAKER if name in table]
    known = table["speaker"].notna() & (table["speaker"] != "")
    right = (table["label"] == table["prediction"]).astype(float)
    return right[known].groupby([table[name] for name in (*who, "utterance_id")]).mean()


def by_speaker(right: pd.Series, least: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Accuracy of each speaker with `least` utterances, its variance, and how many have fewer.

    The variance is that of a mean of n utterances, of binary ones p (1 - p) / (n - 1).
    """
    speakers = right.groupby(level=list(range(right.index.nlevels - 1)))
    n, mean, variance = speakers.size(), speakers.mean(), speakers.var()
    enough = (n >= least).to_numpy()
    error = (variance / n).to_numpy()
    return mean.to_numpy()[enough], error[enough], int((~enough).sum())


def measures(accuracy: np.ndarray, chance: np.ndarray) -> dict[str, np.ndarray]:
    """What accuracies [..., n] of speakers say of their inequality, each [...].

    spread: standard deviation over speakers beyond what utterances alone give, the square root of
    the sample variance less the mean of `chance` [..., n], or 0; sd: the standard deviation as
    measured; worst_tenth: mean of the lowest tenth of speakers, of one at the least; gini: the mean
    difference of two speakers over twice the mean (Gini 1912), 0 where all are alike.
    """
    ordered, n = np.sort(accuracy, -1), accuracy.shape[-1]
    variance = accuracy.var(-1, ddof=1)
    total = ordered.sum(-1)
    rank = 2 * np.arange(1, n + 1) - n - 1
    gini = np.divide((rank * ordered).sum(-1), n * total, out=np.zeros_like(total), where=total > 0)
    return {
        "spread": np.sqrt(np.maximum(variance - chance.mean(-1), 0.0)),
        "sd": np.sqrt(variance),
        "worst_tenth": ordered[..., : max(n // 10, 1)].mean(-1),
        "gini": gini,
    }


def _rows(
    info: FrontInfo, means: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """The table; all points see the same resamples of n of the n speakers."""
    n = len(next(iter(means.values())))
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    whole = {name: measures(means[name], errors[name]) for name in means}
    resampled = {name: measures(means[name][drawn], errors[name][drawn]) for name in means}
    erm = info.erm.trial_id if info.erm is not None else None
    rows = []
    for name, own in whole.items():
        row = {"trial_id": name, "speakers": n} | {key: float(value) for key, value in own.items()}
        if erm in whole and name != erm:
            for key in MEASURES:
                apart = resampled[name][key] - resampled[erm][key]
                row[f"{key}_change"] = float(own[key] - whole[erm][key])
                # of n drawn with replacement the variance is short by (n - 1) / n
                row[f"{key}_change_se"] = float(apart.std(ddof=1) * np.sqrt(n / (n - 1)))
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def html(table: pd.DataFrame, note: str) -> str:
    """The section of a report."""
    start = f"<h2>Speaker by speaker</h2><p class='soft'>{escape(note)}"
    if table.empty:
        return f"{start}</p>"
    tenth = max(int(table["speakers"].iloc[0]) // 10, 1)
    return (
        f"{start} Spread: standard deviation of their accuracies beyond what so few utterances "
        f"give alone (in brackets: as measured). Worst tenth: the mean of the lowest "
        f"{tenth}. Gini: 0 where all speakers are alike. Less ERM's on the same speakers, ± one "
        "standard error over resampled speakers, no 95 % interval.</p>"
        + cards([_shown(row) for _, row in table.iterrows()])
    )


def _shown(row: pd.Series) -> dict[str, str]:
    return {
        "trial": row["trial_id"],
        "spread, points": f"{100 * row['spread']:.1f} ({100 * row['sd']:.1f})",
        "spread less ERM's": _change(row, "spread"),
        "worst tenth, %": f"{100 * row['worst_tenth']:.1f}",
        "worst tenth less ERM's": _change(row, "worst_tenth"),
        "Gini": f"{row['gini']:.3f}",
        "Gini less ERM's": _change(row, "gini", scale=1, digits=3),
    }


def _change(row: pd.Series, name: str, *, scale: float = 100, digits: int = 1) -> str:
    value, error = scale * row[f"{name}_change"], scale * row[f"{name}_change_se"]
    if not np.isfinite(value):
        return "-"
    return f"{value:+.{digits}f} ± {error:.{digits}f}".replace("-", "\N{MINUS SIGN}")
