"""A benchmark table as text, CSV, LaTeX, HTML and Markdown.

    made = benchmark_table.table(systems, labels=labels, baseline="ERM")
    print(to_text(made)); write(made, Path("results/tables"))

`grids` decides what is shown, in which order and what is bold; a format only spells it. On screen
scores are percent and gaps percentage points with one decimal, in the CSV fractions.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.benchmark_table import COMPARED, OVERALL, SCORES, BenchmarkTable
from analysis.page import page
from ermgap.errors import UserError
from ermgap.records import write_atomically

HEADS = ("W-F1", "ACC", "TPR gap", "FPR gap", "W-F1 gap", "ACC gap", "AVG gap")  # of SCORES
CHANGES = ("AVG gap", "ACC", "W-F1")  # of COMPARED
WITH_ERROR = ("w_f1", "acc", "avg_gap", "max_gap")
HIGHER = ("w_f1", "acc")  # is better; of the others lower is
_STYLE = """<style>
:root{color-scheme:light dark;--paper:#fff} body{max-width:1160px;background:var(--paper)}
td:first-child,th:first-child{position:sticky;left:0;background:var(--paper)}
@media(prefers-color-scheme:dark){:root{--paper:#16181b} body{color:#e4e4e4}
th,td{border-color:#34373b} th,.soft{color:#a5a8ac}}
@media(max-width:600px){body{margin:1rem auto}
th:first-child,td:first-child{white-space:normal;min-width:7.5rem;overflow-wrap:anywhere}}
</style>"""
_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\u2212": "$-$",
    "±": r"$\pm$", "†": r"\textsuperscript{\dag}", "–": "--", "λ": r"$\lambda$",
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Rows of text under a title; `bold` holds (row, column) of the best values."""

    title: str
    header: list[str]
    rows: list[list[str]]
    bold: frozenset[tuple[int, int]]


def grids(table: BenchmarkTable) -> list[Grid]:
    """One grid a block, then the largest gaps, then the differences to the baseline."""
    many, unparsable = len(table.systems) > 1, bool(table.rows["unparsable"].any())
    made = []
    for block, part in table.rows.groupby("block", sort=False):
        columns = [_column(part, key) for key in SCORES]
        columns.append([f"{row.n_female:,}/{row.n_male:,}" for row in part.itertuples()])
        header = ["System", *HEADS, "n (F/M)"]
        if unparsable:
            columns.append([f"{n:,}" for n in part["unparsable"]])
            header.append("no label")
        language, modality = block.split("/", 1)
        bold = _best(part, SCORES) if many else frozenset()
        made.append(Grid(f"{language}, {modality}", header, _across(part, columns), bold))
    summary = table.systems
    columns = [_column(summary, "max_gap"), [name or "–" for name in summary["worst_cell"]]]
    bold = _best(summary, ["max_gap"]) if many else frozenset()
    header = ["System", "max gap", "worst cell"]
    made.append(Grid("Largest AVG gap over cells", header, _across(summary, columns), bold))
    return made + _changes(table)


def notes(table: BenchmarkTable) -> list[str]:
    """What a reader must know beside the numbers, one sentence or two each."""
    facts, rows = table.facts, table.rows
    splits = ", ".join(facts["splits"]) or "not stated"
    lines = [
        f"Split: {splits}. n counts utterances (female/male). Scores are percent, gaps percentage "
        "points between the genders; TPR and FPR gaps are means over classes with at least "
        f"{facts['min_support']} utterance(s) of each gender, AVG is the mean of the four gaps; "
        "overall pools the utterances of a modality.",
        "± is one standard error over speakers resampled within language and gender, no 95 % "
        "interval; a largest gap is biased upward.",
        "Gaps of few speakers or utterances are mostly noise: a perfectly fair model is expected "
        "to show a largest W-F1 gap of 4.3 points over three languages with 500 utterances per "
        f"gender and language (6.1 with 250, 3.0 with 1,000). Here a language and gender has "
        f"{facts['speakers']} speaker(s) at the least.",
    ]
    if facts["speakers"] == 1:
        lines.append("With one speaker, ± misses what differs between speakers and is too short.")
    if facts["folds"] > 1:
        lines.append(f"Out-of-fold predictions of {facts['folds']} folds are pooled.")
    if "dev" in facts["splits"]:
        lines.append("Epochs are chosen on dev, so values on dev look better than on test.")
    if facts["synthetic"]:
        names = ", ".join(facts["synthetic"])
        lines.append(f"Synthetic speech, not human: {names}; no claim on people follows from it.")
    if (rows.groupby("block")["n"].nunique() > 1).any():
        lines.append(
            "Systems with fewer utterances than others in a block (see n) are never bold there."
        )
    if rows["unparsable"].any():
        lines.append("no label: answers that are none of the labels; they count as wrong.")
    if rows["degenerate"].any():
        half = f", or W-F1 under half of {table.baseline}'s" if table.baseline else ""
        lines.append(
            "† Accuracy not above always giving the commonest label, there or in the whole "
            f"modality{half}: a constant predictor has a gap of 0, so such gaps are never bold."
        )
    return lines + undefined(table)


def undefined(table: BenchmarkTable) -> list[str]:
    """Why a value is undefined (an en dash), one sentence a reason."""
    found = pd.DataFrame(
        [(r.block, r.system, why) for r in table.rows.itertuples() for why in _reasons(r, table)],
        columns=["block", "system", "why"],
    )
    who = found.groupby(["why", "block"], sort=False)["system"].agg(", ".join).reset_index()
    where = who.groupby(["why", "system"], sort=False)["block"].agg(", ".join)
    return [f"– {names} in {blocks}: {why}." for (why, names), blocks in where.items()]


def _reasons(row, table: BenchmarkTable) -> list[str]:
    if row.n == 0:
        return ["no prediction"]
    absent = [name for name in ("female", "male") if getattr(row, f"n_{name}") == 0]
    reasons = [f"no {name} utterance, so no gap is defined" for name in absent]
    if not absent and row.classes == 0:
        least = table.facts["min_support"]
        reasons.append(f"no class has {least} utterance(s) of each gender: no TPR or FPR gap")
    elif not absent and not np.isfinite(row.fpr_gap):
        reasons.append("all utterances of a gender have one label: no FPR gap")
    if table.baseline and row.language == OVERALL and np.isnan(row.delta_acc):
        reasons.append(f"other utterances than those of {table.baseline}: no difference to it")
    return reasons


# What is shown ------------------------------------------------------------------------------------


def _changes(table: BenchmarkTable) -> list[Grid]:
    if table.baseline is None or len(table.systems) < 2:
        return []
    others = table.rows[table.rows["system"] != table.baseline]
    made = []
    for modality, part in others[others["language"] == OVERALL].groupby("modality", sort=False):
        columns = [_column(part, f"delta_{key}", sign="+") for key in COMPARED]
        title = f"Difference to {table.baseline}, {OVERALL}, {modality}"
        made.append(Grid(title, ["System", *CHANGES], _across(part, columns), frozenset()))
    return made


def _column(part: pd.DataFrame, key: str, *, sign: str = "") -> list[str]:
    errors = part[f"{key}_se"] if key in WITH_ERROR or sign else [np.nan] * len(part)
    return [_shown(value, error, sign) for value, error in zip(part[key], errors, strict=True)]


def _shown(value: float, error: float, sign: str = "") -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{100 * value + 0.0:{sign}.1f}".replace("-", "\u2212")
    text = re.sub("^[\u2212+](0\\.0)$", r"\1", text)  # a change of 0.0 has no sign
    return f"{text} ± {100 * error:.1f}" if np.isfinite(error) else text


def _across(part: pd.DataFrame, columns: Sequence[list[str]]) -> list[list[str]]:
    marks = ["†" if poor else "" for poor in part["degenerate"]]
    names = [f"{name}{mark}" for name, mark in zip(part["system"], marks, strict=True)]
    return [list(row) for row in zip(names, *columns, strict=True)]


def _best(part: pd.DataFrame, keys: Sequence[str]) -> frozenset[tuple[int, int]]:
    """Places of the best value of each column, ties included: of no degenerate system, and of none
    that was scored on fewer utterances or cells than another."""
    fair = ~part["degenerate"] & (part["n"] == part["n"].max())
    places = set()
    for column, key in enumerate(keys, 1):
        values = part[key].where(fair).to_numpy(float)
        if np.isfinite(values).any():
            best = np.nanmax(values) if key in HIGHER else np.nanmin(values)
            places |= {(int(i), column) for i in np.flatnonzero(np.abs(values - best) < 1e-12)}
    return frozenset(places)


# Formats ------------------------------------------------------------------------------------------


def to_text(table: BenchmarkTable) -> str:
    """Aligned columns for a terminal; `*` marks the best of a column."""
    lines = []
    for grid in grids(table):
        rows = [grid.header, *_marked(grid, lambda text: text, lambda text: f"{text}*")]
        rows = [
            [c if c.endswith("*") or j == 0 else f"{c} " for j, c in enumerate(r)] for r in rows
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append(grid.title)
        for first, *rest in rows:
            cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
        lines.append("")
    return "\n".join([*lines, "* best of its column.", *notes(table)]) + "\n"


def to_csv(table: BenchmarkTable) -> str:
    """Fractions, one row per block and system, with every column; undefined is empty."""
    summary = table.systems.drop(columns=["degenerate", "n"])
    return table.rows.merge(summary, on="system", how="left").to_csv(index=False)


def to_latex(table: BenchmarkTable) -> str:
    """One tabular for booktabs with a heading per block, and the notes in small print below."""
    shown = grids(table)
    width = max(len(grid.header) for grid in shown)
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule"]
    for i, grid in enumerate(shown):
        lines += [r"\midrule"] if i else []
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{_tex(grid.title)}}}}} \\")
        if i == 0 or grid.header != shown[i - 1].header:
            lines.append(" & ".join(map(_tex, grid.header)) + r" \\")
        rows = _marked(grid, _tex, lambda text: rf"\textbf{{{text}}}")
        # Braces: a row that begins with [ would be read as an argument of \\.
        lines += [" & ".join([f"{{{first}}}", *rest]) + r" \\" for first, *rest in rows]
    small = "\\par\n".join(_tex(note) for note in notes(table))
    end = [r"\bottomrule", r"\end{tabular}", r"\par\smallskip", rf"{{\footnotesize {small}\par}}"]
    return "\n".join([*lines, *end]) + "\n"


def to_html(table: BenchmarkTable, *, title: str = "Benchmark") -> str:
    """One page without scripts; its tables scroll sideways on a phone."""
    body = _STYLE
    for grid in grids(table):
        rows = _marked(grid, html.escape, lambda text: f"<b>{text}</b>")
        cells = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in grid.header)
        inner = f"<tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in cells)
        body += (
            f"<h2>{html.escape(grid.title)}</h2><div class='scroll'><table>{inner}</table></div>"
        )
    return page(
        title, body + "".join(f"<p class='soft'>{html.escape(n)}</p>" for n in notes(table))
    )


def to_markdown(table: BenchmarkTable) -> str:
    """Tables as GitHub shows them, each under a bold title."""
    parts = []
    for grid in grids(table):
        rule = ["---", *["---:"] * (len(grid.header) - 1)]
        rows = [grid.header, rule, *_marked(grid, _md, lambda text: f"**{text}**")]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        parts.append(f"**{_md(grid.title)}**\n\n" + "\n".join(lines))
    return "\n\n".join([*parts, *(f"*{_md(note)}*" for note in notes(table))]) + "\n"


def write(table: BenchmarkTable, folder: Path, *, name: str = "benchmark") -> list[Path]:
    """Write name.csv, .tex, .html and .md into a folder; UserError if it cannot be written."""
    made = {"csv": to_csv, "tex": to_latex, "html": to_html, "md": to_markdown}
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in made]
    try:
        for path, spell in zip(paths, made.values(), strict=True):
            text = spell(table)
            write_atomically(path, lambda p, text=text: p.write_text(text, encoding="utf-8"))
    except OSError as problem:
        raise UserError(
            f"the tables cannot be written to {folder} ({problem.strerror or problem}); "
            "name another folder."
        ) from problem
    return paths


def _marked(grid: Grid, spell: Callable[[str], str], bold: Callable[[str], str]) -> list[list[str]]:
    return [
        [bold(spell(c)) if (i, j) in grid.bold else spell(c) for j, c in enumerate(row)]
        for i, row in enumerate(grid.rows)
    ]


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _md(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", text)
