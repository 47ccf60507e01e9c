"""What gap would a perfectly fair model of the same accuracy show on these utterances?

    band = fair(sums, "t0004")          # quantiles of max_gap without any true gap
    tests = permuted(sums, "t0004")     # per language: p of the observed gap, sides shuffled

`fair` simulates: each true class of a cell is recognised at the rate of all sides together, a
speaker is easier or harder by a normal effect on the logit, and errors go where errors of that
class went. How much speakers differ is estimated from their dispersion within a side; with few
speakers that is itself uncertain, so each simulated world draws its own value, from the fiducial
distribution of the generalised Q statistic (Paule and Mandel 1982; Weerahandi 1993). A side of
one speaker says nothing of it: her one effect, common to all of her utterances, is drawn with the
variance that the other strata show, and where no stratum has two speakers nothing can be said.
`permuted` needs no model, but enough speakers: no p is below one over the number of ways to deal
the sides to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from scipy.special import expit, logit
from scipy.stats import chi2

from analysis.statistics.speaker_sums import SpeakerSums, largest_gap
from ermgap import metrics
from ermgap.metrics import Margins

SHUFFLES = 2000
MIN_SPEAKERS = 10  # speakers of a language for a permutation test
GRID = np.concatenate([[0.0], np.geomspace(1e-3, 16.0, 80)])  # variances of the speaker effect
SHRINK = 16 * np.sqrt(3) / (15 * np.pi)  # of a logit under a normal effect (Zeger et al. 1988)


@dataclass(frozen=True)
class Band:
    """max_gap of fair models with this system's accuracy, in fractions.

    Attributes:
        median, high: its 50 % and 95 % points; NaN where no side of any language has two
            speakers.
        beaten: share of the fair models whose gap is at least the observed one.
        speakers: median standard deviation of the speaker effect, on the logit.
    """

    median: float
    high: float
    beaten: float
    speakers: float


def fair(sums: SpeakerSums, system: str, *, worlds: int = 2000, seed: int = 0) -> Band:
    """The null band of a system, from `worlds` simulated fair models."""
    rng = np.random.default_rng(seed)
    variance = dispersion(sums, system, rng.random(worlds))
    if variance is None:
        return Band(*[float("nan")] * 4)
    gaps = largest_gap(metrics.differences(_simulated(sums, system, variance, rng)))
    observed = largest_gap(sums.observed(system))
    beaten, speakers = np.mean(gaps >= observed), np.sqrt(np.median(variance))
    return Band(*map(float, (*np.nanquantile(gaps, (0.5, 0.95)), beaten, speakers)))


def dispersion(sums: SpeakerSums, system: str, levels: np.ndarray) -> np.ndarray | None:
    """Variances of the speaker effect at fiducial `levels` [n] in (0, 1).

    None where no stratum has two speakers.

    A unit's hits less their expectation under its own stratum's rates have a variance that grows
    with that of the effect. Q, the squares over it, is close to chi2 of (units - strata) degrees of
    freedom at the true variance, and falls with it.
    """
    # A cell that does not count says nothing either: two speakers of one utterance each have so
    # little expected variance that they alone would put the effect at its largest.
    support, hits = np.moveaxis(sums.counts[system][:, sums.counted, :, :2], -1, 0)
    q, freedom = np.zeros(len(GRID)), 0
    for rows, is_lone in zip(sums.strata, sums.is_lone, strict=True):
        if is_lone or not support[rows].any():
            continue
        n, rate = support[rows], (hits[rows].sum(0) + 0.5) / (support[rows].sum(0) + 1)
        off = (hits[rows] - n * rate).sum((1, 2))
        spread = _variances(n.reshape(len(rows), -1), rate.ravel())
        q += (len(rows) - 1) / len(rows) * (off[:, None] ** 2 / np.maximum(spread, 1e-9)).sum(0)
        freedom += len(rows) - 1
    if not freedom:
        return None
    return np.interp(-chi2.ppf(levels, freedom), -q, GRID)


def _variances(n: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Variance of each unit's hits less their expectation, [U, G].

    Args:
        n: [U, P], utterances. rate: [P], at which they are recognised, estimated from these units:
            so a large unit has drawn it to itself.
    """
    at, weight = np.polynomial.hermite_e.hermegauss(15)
    weight = weight / weight.sum()
    effect = np.sqrt(GRID)[:, None, None] * at[:, None]  # [G, nodes, 1]
    middle = logit(rate) * np.sqrt(1 + SHRINK**2 * GRID)[:, None, None]
    p = expit(middle + effect)
    mean = (weight[:, None] * p).sum(1)  # [G, P]
    apart = p - mean[:, None]
    shared = np.einsum("q,gqp,gqr->gpr", weight, apart, apart)
    single = mean * (1 - mean) - np.einsum("gpp->gp", shared)
    whole = n.sum(0)
    share = np.divide(n, whole, out=np.zeros_like(n), where=whole > 0)
    own = n * (1 - share)
    others = shared * (n.T @ n)
    variances = own @ single.T + np.einsum("up,gpr,ur->ug", own, shared, own, optimize=True)
    variances += np.einsum("up,gpr,ur->ug", share, others, share, optimize=True)
    mine = share * n  # its own part of the sum over units
    return variances - np.einsum("up,gpr,ur->ug", mine, shared, mine, optimize=True)


def _simulated(sums: SpeakerSums, system: str, variance: np.ndarray, rng) -> np.ndarray:
    """Rates [worlds, C, S, 2K + 2] of fair models whose speakers differ by variance [worlds]."""
    units, speaker = sums.counts[system][..., 0], sums.units["speaker"].to_numpy()
    first = np.unique(speaker, return_index=True)[1]
    support, sides = np.zeros((len(first), *units.shape[1:])), sums.side[first]
    np.add.at(support, speaker, units)  # [speakers, C, K]
    confusion = sums.confusions[system]
    n, hits = confusion.sum(-1), np.diagonal(confusion, axis1=-2, axis2=-1)
    middle = logit((hits + 0.5) / (n + 1))
    wrong = confusion.copy()
    k = np.arange(wrong.shape[1])
    wrong[:, k, k] = 0.0
    total = wrong.sum(-1, keepdims=True)
    wrong[..., -1:] += total == 0  # a class without errors: the few simulated go to no label
    wrong = wrong / wrong.sum(-1, keepdims=True)
    effect = rng.standard_normal((len(variance), len(support))) * np.sqrt(variance)[:, None]
    widened = np.sqrt(1 + SHRINK**2 * variance)[:, None, None, None]
    shape = (len(variance), len(sums.cells), len(sums.sides), len(k))
    right, seen = np.zeros(shape), np.zeros(shape[1:])
    for side in range(len(sums.sides)):
        those = np.flatnonzero(sides == side)
        seen[:, side] = support[those].sum(0)
        for speaker in those:
            cells = np.flatnonzero(support[speaker].sum(-1))
            at = widened[:, 0] * middle[cells] + effect[:, speaker, None, None]
            right[:, cells, side] += rng.binomial(support[speaker, cells].astype(int), expit(at))
    missed = (seen - right).astype(int)
    elsewhere = rng.multinomial(missed, wrong[:, None]).sum(-2)[..., :-1]
    margins = Margins(np.broadcast_to(seen, shape), right, right + elsewhere)
    return sums.rates_of_margins(margins)


@dataclass(frozen=True)
class Permutation:
    """The largest gap of a language against those under shuffled sides.

    Attributes:
        p: share of shufflings with a gap at least as large; None under `MIN_SPEAKERS` speakers.
        smallest: the least p that these speakers could give.
    """

    language: str
    speakers: int
    p: float | None
    smallest: float


def permuted(sums: SpeakerSums, system: str, *, seed: int = 0) -> list[Permutation]:
    """For each language with two sides or more, a test by shuffling the sides over its speakers.

    All ways to deal them if they are no more than SHUFFLES, else that many at random.
    """
    rng = np.random.default_rng(seed)
    tests = []
    observed = metrics.gap_sizes(sums.observed(system))["avg"]
    languages, compared = sums.units["language"].to_numpy(), sums.share.any((1, 2))
    for language in sorted(set(languages)):
        rows = np.flatnonzero((languages == language) & compared)
        sizes = np.bincount(sums.side[rows])
        n, sizes = len(rows), sizes[sizes > 0]
        lone = any(stratum.startswith(f"{language}/") for stratum in sums.lone)
        cells = [i for i, cell in enumerate(sums.cells) if cell.split("/", 1)[0] == language]
        if lone or len(sizes) < 2 or not sums.counted[cells].any():
            continue
        ways = math.prod(comb(sum(sizes[place:]), size) for place, size in enumerate(sizes))
        # Sides of equal size can be exchanged without changing a gap.
        alike = math.prod(math.factorial(int(count)) for count in np.bincount(sizes))
        smallest = alike / ways
        if n < MIN_SPEAKERS:
            tests.append(Permutation(language, n, None, smallest))
            continue
        side, drawn_at_random = np.tile(sums.side, (min(ways, SHUFFLES), 1)), ways > SHUFFLES
        if drawn_at_random:
            side[:, rows] = rng.permuted(side[:, rows], axis=1)
        else:
            side[:, rows] = list(_dealt(sums.side[rows]))
        drawn = sums.signed_gaps(np.ones(side.shape), system, side=side)[:, cells]
        at_least = largest_gap(drawn) >= np.nanmax(observed[cells]) - 1e-12
        p = (at_least.sum() + drawn_at_random) / (len(side) + drawn_at_random)
        tests.append(Permutation(language, n, float(p), smallest))
    return tests


def _dealt(sides: np.ndarray) -> Iterator[np.ndarray]:
    """Every different order of `sides` [n]."""
    first, *others = np.unique(sides)
    if not others:
        yield sides
        return
    for places in combinations(range(len(sides)), int((sides == first).sum())):
        rest = np.delete(np.arange(len(sides)), places)
        for order in _dealt(sides[sides != first]):
            dealt = np.full(len(sides), first)
            dealt[rest] = order
            yield dealt
