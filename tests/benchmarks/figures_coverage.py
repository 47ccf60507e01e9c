"""How often the intervals of `analysis/` hold the truth, by simulation.

    make figures-coverage                     # resumable: a row a simulated dev set
    make figures-coverage ARGS="--sets 40"    # a quick look

Three languages, 200 utterances a gender and language, five classes, speakers with a normal effect
on the logit; women of one language are recognised less by what makes the true max_gap (of
infinitely many speakers and utterances) the wanted one. Writes results/coverage.md, and beside it
coverage.jsonl, which git does not keep: it takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import product
from multiprocessing import Pool
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from analysis import intervals, null_band
from analysis.panel import Panel, largest
from ermgap import metrics
from ermgap.metrics import GENDERS, Margins

RESULTS = Path(__file__).parent / "results"
LABELS = ("neutral", "joy", "anger", "sadness", "surprise")
PRIOR = np.array([0.36, 0.2, 0.16, 0.16, 0.12])
EASE = np.array([1.2, 0.6, 0.4, 0.0, -0.2])  # logits of recognising each class
LANGUAGES = ("de", "en", "ja")
EACH = 200  # utterances a gender and language
EFFECT = 0.5  # standard deviation of a speaker's effect on the logit
GAPS, SPEAKERS, SHARES = (0.0, 0.02, 0.05, 0.15), (6, 12, 40), ("equal", "unequal")
RESAMPLES = 600


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=400, help="dev sets a setting")
    parser.add_argument("--fair-sets", type=int, default=2000, help="where the true gap is 0")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = given.out / "coverage.jsonl"
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    known = {(r["gap"], r["speakers"], r["shares"], r["seed"]) for r in done}
    jobs = [
        (*setting, seed)
        for setting in product(GAPS, SPEAKERS, SHARES)
        for seed in range(given.sets if setting[0] else given.fair_sets)
        if (*setting, seed) not in known
    ]
    with Pool(given.processes) as pool, open(rows, "a", encoding="utf-8") as file:
        for row in pool.imap_unordered(one, jobs):
            done.append(row)
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
            file.flush()
    text = table(pd.DataFrame(done))
    (given.out / "coverage.md").write_text(text, encoding="utf-8")
    print(text)


def one(job: tuple[float, int, str, int]) -> dict:
    """What the intervals of one simulated dev set hold."""
    gap, speakers, shares, seed = job
    handicap = handicap_of(gap)
    rng = np.random.default_rng((seed, speakers, int(1000 * gap), SHARES.index(shares)))
    panel = Panel.of({"model": dev_set(handicap, speakers, shares, rng)}, labels=LABELS)
    truth = true_gaps(handicap)
    told = intervals.signed(panel, "model")
    cell = told["cell"].map(panel.cells.index).to_numpy()
    order = intervals.parts(panel)
    part = [order.index(one) for one in zip(told["metric"], told["class"], strict=True)]
    right = truth[cell, part]
    held = ((told["low"] <= right) & (right <= told["high"])).groupby(told["metric"]).mean()
    bound = intervals.largest_gap(panel, "model", panel.draws(RESAMPLES, rng))
    band = null_band.fair(panel, "model", worlds=RESAMPLES)
    return {
        "gap": gap, "speakers": speakers, "shares": shares, "seed": seed,
        **{f"held_{metric}": round(float(share), 4) for metric, share in held.items()},
        "width": round(float((told["high"] - told["low"])[told["metric"] == "acc"].mean()), 4),
        "measured": round(bound.measured, 5), "corrected": round(bound.corrected, 5),
        "at_most": round(bound.at_most, 5), "band": round(band.high, 5),
    }  # fmt: skip


def dev_set(handicap: float, speakers: int, shares: str, rng: np.random.Generator) -> pd.DataFrame:
    """Predictions of one model on `speakers` speakers a language, half of them women."""
    half = speakers // 2
    share = np.ones(half) if shares == "equal" else 1 / np.arange(1, half + 1)
    parts = []
    for language, gender in product(LANGUAGES, GENDERS):
        who = rng.choice(half, EACH, p=share / share.sum())
        label = rng.choice(len(LABELS), EACH, p=PRIOR)
        lower = handicap * (language == LANGUAGES[0] and gender == "female")
        easy = EASE[label] - lower + rng.normal(0, EFFECT, half)[who]
        wrong = (label + rng.integers(1, len(LABELS), EACH)) % len(LABELS)
        said = np.where(rng.random(EACH) < expit(easy), label, wrong)
        parts.append(
            pd.DataFrame({
                "language": language, "gender": gender,
                "speaker": [f"{language}{gender}{n}" for n in who],
                "label": np.array(LABELS)[label], "prediction": np.array(LABELS)[said],
            })
        )  # fmt: skip
    table = pd.concat(parts, ignore_index=True).assign(modality="speech", corpus="made")
    return table.assign(utterance_id=[f"u{i:05d}" for i in range(len(table))])


def true_gaps(handicap: float) -> np.ndarray:
    """Signed gaps [3, 2K + 2] of infinitely many speakers and utterances."""
    at, weight = np.polynomial.hermite_e.hermegauss(40)
    rates = np.zeros((3, 2, 2 * len(LABELS) + 2))
    for cell, side in product(range(3), range(2)):
        lower = handicap * (cell == 0 and side == 0)
        hit = (expit(EASE - lower + EFFECT * at[:, None]) * weight[:, None]).sum(0) / weight.sum()
        missed = PRIOR * (1 - hit) / (len(LABELS) - 1)
        margins = Margins(PRIOR, PRIOR * hit, PRIOR * hit + missed.sum() - missed)
        both = Margins(*(np.stack([part, part]) for part in margins))
        rates[cell, side] = metrics.rates(both, classes=np.ones(len(LABELS), bool))[0]
    return metrics.differences(rates)


def handicap_of(gap: float) -> float:
    """What women of the first language lack on the logit for this true max_gap."""
    if not gap:
        return 0.0
    return float(brentq(lambda lower: float(largest(true_gaps(lower))) - gap, 0.0, 4.0))


def table(rows: pd.DataFrame) -> str:
    """Markdown: a line a setting."""
    lines = [
        "# Do the intervals hold the truth?", "",
        "Share of simulated dev sets (%) in which the 95 % interval of a signed gap, or the 95 % "
        "bound of max_gap, holds the truth; how often a model exceeds the null band's 95 % point "
        "(5 is right where the gap is 0; above it, this is power); and max_gap in points: "
        "truth, mean as measured, mean as corrected, mean bound. `tests/benchmarks/"
        "figures_coverage.py` says how the sets are made.", "",
        "| true gap | speakers a language | shares | sets | TPR | FPR | W-F1 | acc | bound | "
        "over the band | measured | corrected | bound, mean |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for (gap, speakers, shares), part in rows.groupby(["gap", "speakers", "shares"]):
        share = [100 * part[f"held_{m}"].mean() for m in ("tpr", "fpr", "w_f1", "acc")]
        share += [
            100 * (part["at_most"] >= gap).mean(),
            100 * (part["measured"] > part["band"]).mean(),
        ]
        points = [100 * part[name].mean() for name in ("measured", "corrected", "at_most")]
        cells = " | ".join(f"{x:.1f}" for x in share + points)
        lines.append(f"| {100 * gap:g} | {speakers} | {shares} | {len(part)} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
