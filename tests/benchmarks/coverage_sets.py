"""Simulated dev sets of `figures_coverage.py`, and the true gaps of infinitely many speakers.

Speakers have a normal effect on the logit of being recognised, classes differ in theirs, and a
wrong answer is any other class. One side (women) of the first languages is recognised less by a
handicap.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from analysis.statistics.speaker_sums import largest_gap
from ermgap import metrics
from ermgap.config import GENDERS
from ermgap.metrics import Margins

LABELS = ("neutral", "joy", "anger", "sadness", "surprise")
PRIOR = np.array([0.36, 0.2, 0.16, 0.16, 0.12])
EASE = np.array([1.2, 0.6, 0.4, 0.0, -0.2])  # logits of recognising each class
LANGUAGES = ("de", "en", "ja")
EACH = 200  # utterances a gender and language
EFFECT = 0.5  # standard deviation of a speaker's effect on the logit
COUNTS = {  # women and men of each language, where they are not the same everywhere
    "2 F 8 M": dict.fromkeys(LANGUAGES, (2, 8)),
    "2 F 20 M": dict.fromkeys(LANGUAGES, (2, 20)),
    "3 F 12 M": dict.fromkeys(LANGUAGES, (3, 12)),
    "de 1 F 1 M, en 1 F 2 M": {"de": (1, 1), "en": (1, 2)},
    "de 1 F 8 M": {"de": (1, 8)},
    "de 1 F 4 M, en 4 F 4 M": {"de": (1, 4), "en": (4, 4)},
}
ACCENTS = ("north", "south", "east", "west", "middle")  # sides, where these are more than two
SAID = "joy"  # the class that few German women say, of eight


class Model(NamedTuple):
    """A model whose women have the true gap `gap` in the first `cells` languages.

    `ease` is added to the logits of everybody, `alone` is the class whose recall alone is lower,
    and a share `constant` of answers is the commonest class whatever was said.
    """

    gap: float
    cells: int = 1
    ease: float = 0.0
    alone: str | None = None
    constant: float = 0.0


def counts(speakers: int | str | dict) -> dict[str, tuple[int, int]]:
    """Women and men of each language: half of `speakers` each, as COUNTS has it, or themselves."""
    if isinstance(speakers, dict):
        return speakers
    half = speakers // 2 if isinstance(speakers, int) else 0
    return dict.fromkeys(LANGUAGES, (half, half)) if half else COUNTS[speakers]


def accented(
    models: tuple[Model, ...], sides: int, each_side: int, rng: np.random.Generator
) -> list[pd.DataFrame]:
    """Predictions of models on the same utterances, by `each_side` speakers of each of ACCENTS.

    What is hard for one model is not for another.
    """
    made = [(handicap_of(*one), *one[1:]) for one in models]
    speakers = dict.fromkeys(LANGUAGES, (each_side,) * sides)
    return _drawn(made, speakers, "equal", rng, same=False, accents=ACCENTS[:sides])


def dev_set(
    handicap: float, speakers: int | str, shares: str, rng: np.random.Generator, **given
) -> pd.DataFrame:
    """Predictions of one model whose women of the first language are recognised less."""
    return _drawn([(handicap, 1, 0.0, None, 0.0)], speakers, shares, rng, **given)[0]


def dev_sets(
    models: tuple[Model, ...],
    speakers: int | str | dict,
    shares: str,
    rng: np.random.Generator,
    *,
    same: bool | str,
    each: int | None = None,
) -> list[pd.DataFrame]:
    """Predictions of several models on the same utterances.

    Args:
        same: who and what is hard for one is as hard for the others; `speakers`: who is.
        each: utterances a gender and language; None: EACH.
    """
    made = [(handicap_of(*one), *one[1:]) for one in models]
    return _drawn(made, speakers, shares, rng, same=same, each=each)


def _drawn(models, speakers, shares, rng, *, same=True, sayers=None, each=None, accents=()) -> list:
    """A table a model: its handicap in place of its gap, then the other fields of `Model`."""
    each, sides = each or EACH, accents or GENDERS
    column = "accent" if accents else "gender"
    parts = [[] for _ in models]
    for language, side in product(counts(speakers), range(len(sides))):
        number, name = counts(speakers)[language][side], sides[side]
        share = np.ones(number) if shares == "equal" else 1 / np.arange(1, number + 1)
        who = rng.choice(number, each, p=share / share.sum())
        label = rng.choice(len(LABELS), each, p=PRIOR)
        if sayers and language == LANGUAGES[0] and side == 0:
            label = _said_by(who < sayers, label, rng)
        for i, (handicap, cells, ease, alone, constant) in enumerate(models):
            if i == 0 or not same:
                effect = rng.normal(0, EFFECT, number)[who]
            if i == 0 or same in (False, "speakers"):
                chance = rng.random(each)
                wrong = (label + rng.integers(1, len(LABELS), each)) % len(LABELS)
            lower = handicap * (language in LANGUAGES[:cells] and side == 0) * _hit_by(alone)[label]
            said = np.where(chance < expit(EASE[label] + ease - lower + effect), label, wrong)
            if constant:
                said = np.where(rng.random(each) < constant, 0, said)
            parts[i].append(
                pd.DataFrame({
                    "language": language, column: name,
                    "speaker": [f"{language}{name}{n}" for n in who],
                    "label": np.array(LABELS)[label],
                    "prediction": np.array(LABELS)[said],
                })
            )  # fmt: skip
    tables = [pd.concat(one, ignore_index=True) for one in parts]
    names = [f"u{i:05d}" for i in range(len(tables[0]))]
    return [one.assign(modality="speech", corpus="made", utterance_id=names) for one in tables]


def _said_by(these: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The labels, where SAID of all others has become another."""
    joy = LABELS.index(SAID)
    rest = np.where(np.arange(len(LABELS)) == joy, 0, PRIOR)
    return np.where(
        these | (label != joy), label, rng.choice(len(LABELS), len(label), p=rest / rest.sum())
    )


def _hit_by(alone: str | None) -> np.ndarray:
    """1 for each class that a handicap hits, else 0, [K]."""
    return np.array([float(alone in (None, label)) for label in LABELS])


def true_gaps(
    handicap: float,
    cells: int = 1,
    ease: float = 0.0,
    alone: str | None = None,
    constant: float = 0.0,
    sides: int = 2,
    order: Sequence[int] | None = None,
) -> np.ndarray:
    """Signed gaps [3, pairs, 2K + 2] of infinitely many speakers and utterances."""
    at, weight = np.polynomial.hermite_e.hermegauss(40)
    rates = np.zeros((3, sides, 2 * len(LABELS) + 2))
    for cell, side in product(range(3), range(sides)):
        logit = EASE + ease - handicap * (cell < cells and side == 0) * _hit_by(alone)
        hit = (expit(logit + EFFECT * at[:, None]) * weight[:, None]).sum(0) / weight.sum()
        missed = PRIOR * (1 - hit) / (len(LABELS) - 1)
        always = constant * (np.arange(len(LABELS)) == 0)
        said = (1 - constant) * (PRIOR * hit + missed.sum() - missed) + always
        margins = Margins(PRIOR, PRIOR * ((1 - constant) * hit + always), said)
        both = Margins(*(np.stack([part, part]) for part in margins))
        rates[cell, side] = metrics.rates(
            both, classes=np.ones((2, len(LABELS)), bool), sides=np.ones(2, bool)
        )[0]
    return metrics.differences(rates if order is None else rates[:, order])


@cache
def handicap_of(
    gap: float,
    cells: int = 1,
    ease: float = 0.0,
    alone: str | None = None,
    constant: float = 0.0,
) -> float:
    """What women of the first language lack on the logit for this true max_gap."""
    if not gap:
        return 0.0
    rest = (cells, ease, alone, constant)
    return float(brentq(lambda x: float(largest_gap(true_gaps(x, *rest))) - gap, 0.0, 6.0))
