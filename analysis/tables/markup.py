"""The frame of every page that the analysis writes, and text escaped for LaTeX."""

from __future__ import annotations

import html

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem} h2{font-size:1.1rem;margin-top:2rem} img{max-width:100%}
h3{font-size:1rem;margin:1.2rem 0 .2rem}
.soft{color:#6b6b6b;font-size:.85rem;margin:.2rem 0}
.scroll{overflow-x:auto} table{border-collapse:collapse;font-size:.85rem}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #eee;white-space:nowrap}
th{color:#6b6b6b;font-weight:600} td:first-child,th:first-child{text-align:left}
@media(prefers-color-scheme:dark){body{background:#16181b;color:#e4e4e4}
th,td{border-color:#34373b} th,.soft{color:#a5a8ac} a{color:#8ab8e8}
img{background:#fff;border-radius:4px}}
"""

_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\u2212": "$-$",
    "±": r"$\pm$", "†": r"\textsuperscript{\dag}", "–": "--", "λ": r"$\lambda$",
}  # fmt: skip


def latex(text: str) -> str:
    """`text` with the signs that are special to LaTeX spelt out."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def page(title: str, body: str) -> str:
    """A whole HTML document; `title` is plain text, `body` is HTML."""
    name = html.escape(title)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{name}</title>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<style>{_STYLE}</style></head><body><h1>{name}</h1>{body}</body></html>\n"
    )
