"""The Markdown of `figures_coverage.py`: what simulated dev sets say of the intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

HEAD = (
    "# Do the intervals hold the truth?\n\n"
    "All but the points are % of simulated dev sets (`tests/benchmarks/figures_coverage.py` says "
    "how they are made). Of 400 sets a share of 95 or of 5 has a standard error of 1.1, of 200 of "
    "1.5, of 100 of 2.2.\n"
)
ONE = (
    "## Intervals, bound and null band\n\n"
    "How often the 95 % interval of a signed gap (of those that have one; `-`: none has), or the "
    "95 % bound of max_gap, holds the truth; how often a model exceeds the null band's 95 % point "
    "(5 is right where the gap is 0; above it, this is power); and max_gap in points: mean as "
    "measured, as corrected, mean bound.\n"
)
FEW = (
    "## A class that few women of a language say\n\n"
    "Eight women and eight men a language, women of one language are recognised less (15 points), "
    "and of these few say joy: how often the difference in its recall has an interval, and how "
    "often that holds the truth.\n"
)
PAIR = (
    "## Two models on the same utterances\n\n"
    "Equal speakers. `fell` and `rose`: how often a report says that the gap surely did. Where the "
    "true difference is 0, either is an error (5 at most is wanted); where it is below, `fell` is "
    "power. `holds`: both bounds of the difference. `effects`: what is hard for one model is as "
    "hard for the other (shared), or not at all (own). In points: the true difference, means as "
    "measured, of the lower and of the upper bound.\n"
)


def write(rows: Sequence[dict]) -> str:
    """The whole document, of rows as in coverage.jsonl."""
    kinds = {
        kind: [row for row in rows if row["job"][0] == kind] for kind in ("one", "few", "pair")
    }
    parts = [HEAD]
    for kind, (text, table) in {
        "one": (ONE, _one), "few": (FEW, _few), "pair": (PAIR, _pair)
    }.items():  # fmt: skip
        if kinds[kind]:
            parts += [text, table(pd.DataFrame(kinds[kind]))]
    return "\n".join(parts)


def _one(rows: pd.DataFrame) -> str:
    lines = [
        "| true gap | speakers a language | shares | sets | TPR | FPR | W-F1 | acc | bound | "
        "over the band | measured | corrected | bound, mean |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = rows.assign(order=list(map(_in_order, rows["speakers"])))
    for _, part in rows.groupby(["gap", "order", "shares"]):
        first = part.iloc[0]
        held = [
            part.get(f"held_{m}", pd.Series(dtype=float)) for m in ("tpr", "fpr", "w_f1", "acc")
        ]
        over = (part["measured"] > part["band"]).where(part["band"].notna())
        shown = [*held, (part["at_most"] >= first["gap"]).where(part["at_most"].notna()), over]
        shown += [part[name] for name in ("measured", "corrected", "at_most")]
        lines.append(_line(f"{100 * first['gap']:g}", first["speakers"], first["shares"], len(part),
                           *map(_mean, shown)))  # fmt: skip
    return "\n".join(lines) + "\n"


def _in_order(speakers: int | str) -> tuple[bool, int | str]:
    return isinstance(speakers, str), speakers


def _few(rows: pd.DataFrame) -> str:
    lines = ["| women who say it | sets | has an interval | holds | width, points |",
             "|---|---|---|---|---|"]  # fmt: skip
    for sayers, part in rows[rows["support"]].groupby("sayers"):
        shown = (part["there"], part["held_tpr"], part["width"])
        lines.append(_line(sayers, len(part), *map(_mean, shown)))
    return "\n".join(lines) + "\n"


def _pair(rows: pd.DataFrame) -> str:
    lines = [
        "| ERM's true gap and the other's | speakers a language | effects | sets | fell | rose | "
        "holds | difference | measured | low | high |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = rows.sort_values(["seed", "truth"], ascending=[True, False])["pair"]
    named = pd.Categorical(rows["pair"], categories=list(dict.fromkeys(order)))
    rows = rows.assign(pair=named, speakers=list(map(_in_order, rows["speakers"])))
    for (name, (_, speakers), same), part in rows.groupby(
        ["pair", "speakers", "same"], observed=True
    ):
        shown = [part[one] for one in ("fell", "rose", "held", "truth", "value", "low", "high")]
        lines.append(
            _line(name, speakers, "shared" if same else "own", len(part), *map(_mean, shown))
        )
    return "\n".join(lines) + "\n"


def _line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _mean(values: pd.Series) -> str:
    """In percent; `-` where nothing is known."""
    mean = 100 * pd.to_numeric(values).mean()
    return f"{mean:.1f}" if np.isfinite(mean) else "-"
