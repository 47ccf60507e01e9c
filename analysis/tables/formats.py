"""A benchmark table as text, CSV, LaTeX, HTML and Markdown.

    made = benchmark_table.table(systems, labels=labels, baseline="ERM")
    print(to_text(made)); write(made, Path("results/tables"))

`grids` decides what is shown, in which order and what is bold; a format only spells it. On
screen scores are percent and gaps percentage points with one decimal, in the CSV fractions.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

from analysis.tables.benchmark_table import BenchmarkTable
from analysis.tables.grids import Grid, grids, notes
from analysis.tables.markup import latex, page
from ermgap.errors import UserError
from ermgap.records import write_atomically

_STYLE = """<style>
:root{color-scheme:light dark;--paper:#fff} body{max-width:1160px;background:var(--paper)}
td:first-child,th:first-child{position:sticky;left:0;background:var(--paper)}
@media(prefers-color-scheme:dark){:root{--paper:#16181b} body{color:#e4e4e4}
th,td{border-color:#34373b} th,.soft{color:#a5a8ac}}
@media(max-width:600px){body{margin:1rem auto}
th:first-child,td:first-child{white-space:normal;min-width:7.5rem;overflow-wrap:anywhere}}
</style>"""


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
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{latex(grid.title)}}}}} \\")
        if i == 0 or grid.header != shown[i - 1].header:
            lines.append(" & ".join(map(latex, grid.header)) + r" \\")
        rows = _marked(grid, latex, lambda text: rf"\textbf{{{text}}}")
        # Braces: a row that begins with [ would be read as an argument of \\.
        lines += [" & ".join([f"{{{first}}}", *rest]) + r" \\" for first, *rest in rows]
    small = "\\par\n".join(latex(note) for note in notes(table))
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


def _md(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", text)
