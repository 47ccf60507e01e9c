"""How often the intervals of `analysis/` hold the truth where an attribute has several sides.

    make figures-coverage-sides                       # resumable: a row a simulated dev set
    make figures-coverage-sides ARGS="--sets 40"      # a quick look

Three languages, 200 utterances an accent and language, three or five accents, of which one is
recognised less in one language by what makes the true max_gap the wanted one; the rest as in
figures_coverage.py. Writes results/coverage_sides.md, and coverage_sides.jsonl, which git does not
keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from coverage_sets import ACCENTS, LABELS, Model, accented, handicap_of, true_gaps
from figures_coverage import RESAMPLES, arguments, held, rounded, simulate, with_truth

from analysis.statistics import SpeakerSums, intervals, null_band, paired

NAME = "coverage_sides"
GAPS, SIDES, SPEAKERS = (0.0, 0.15), (3, 5), (4, 10)
HEAD = (
    "# Do the intervals hold the truth with several sides?\n\n"
    "% of simulated dev sets (`tests/benchmarks/figures_coverage_sides.py` says how they are "
    "made); of 200 sets a share of 95 has a standard error of 1.5. TPR to acc: how often the "
    "interval of a pair's signed gap holds the truth; `all pairs`: how often those of a cell's "
    "accuracies hold it for all pairs at once (95 is asked). `bound`: the 95 % bound of "
    "max_gap. `change`: how often the bounds of the difference to another model of the same "
    "true gap hold 0. `over the band`: how often max_gap is over the null band's 95 % point (5 "
    "is right where the gap is 0; above it, this is power). `permutation`: how often a "
    "language's test says p <= 0.05. In points: max_gap as measured, as corrected, and its "
    "bound, means.\n"
)


def main() -> None:
    """Run what is missing, then write the table."""
    given = arguments().parse_args()
    settings = list(product(GAPS, SIDES, SPEAKERS))
    jobs = [(*setting, seed) for seed in range(given.sets) for setting in settings]
    text = table(simulate(given, NAME, jobs, run))
    (given.out / f"{NAME}.md").write_text(text, encoding="utf-8")
    print(text)


def run(job: tuple[float, int, int, int]) -> dict:
    """What the intervals of a model and of its change to an equal one hold with several sides."""
    gap, number, each_side, seed = job
    rng = np.random.default_rng((seed, number, each_side, int(1000 * gap)))
    tables = accented((Model(gap), Model(gap)), number, each_side, rng)
    named = dict(zip(("model", "other"), tables, strict=True))
    sums = SpeakerSums.of(named, labels=LABELS, attribute=("accent",))
    # Sides are sorted by name; the truth has the one that is recognised less first.
    order = [ACCENTS.index(name) for name in sums.sides]
    truth = true_gaps(handicap_of(gap), sides=number, order=order)
    told = with_truth(sums, truth)
    weights = sums.draws(RESAMPLES, rng)
    bound = intervals.max_gap_interval(sums, "model", weights)
    change = paired.paired_differences(sums, "other", "model", weights)["max_gap"]
    inside = (told["low"] <= told["right"]) & (told["right"] <= told["high"])
    tests = null_band.permuted(sums, "model", seed=seed)
    return {
        "job": list(job), "gap": gap, "sides": number, "speakers": each_side, "seed": seed,
        **held(told),
        "all_pairs": rounded(inside[told["metric"] == "acc"].groupby(told["cell"]).all().mean()),
        "measured": rounded(bound.measured), "corrected": rounded(bound.corrected),
        "at_most": rounded(bound.at_most),
        "band": rounded(null_band.fair(sums, "model", worlds=RESAMPLES).high),
        "rejected": rounded(np.mean([test.p <= 0.05 for test in tests if test.p is not None])),
        "held_change": change.low <= 0 <= change.high,
    }  # fmt: skip


def table(rows: Sequence[dict]) -> str:
    """Markdown: a line a true gap, number of sides and number of speakers."""
    held_names = [f"held_{metric}" for metric in ("tpr", "fpr", "w_f1", "acc")]
    heads = ["true gap", "sides", "speakers a side", "sets", "TPR", "FPR", "W-F1", "acc"]
    heads += ["all pairs", "bound", "change", "over the band", "permutation"]
    heads += ["measured", "corrected", "bound, mean"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (gap, sides, speakers), part in pd.DataFrame(rows).groupby(["gap", "sides", "speakers"]):
        shown = [part[name] for name in (*held_names, "all_pairs")]
        shown += [part["at_most"] >= gap, part["held_change"], part["measured"] > part["band"]]
        shown += [part[name] for name in ("rejected", "measured", "corrected", "at_most")]
        means = [f"{100 * pd.to_numeric(values).mean():.1f}" for values in shown]
        lines.append("| " + " | ".join([f"{100 * gap:g}", *map(str, (sides, speakers, len(part)))])
                     + " | " + " | ".join(means) + " |")  # fmt: skip
    return "\n".join([HEAD, *lines, ""])


if __name__ == "__main__":
    main()
