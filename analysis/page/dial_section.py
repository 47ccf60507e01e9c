"""The report's section on the dial: a sentence a line, and a slider over its positions.

    body = dial_section.html(dial)        # empty without a dial
The slider is plain script (static/dial.js) on the values of `Dial.plain`, and fetches nothing.
"""

from __future__ import annotations

from html import escape

import numpy as np

from analysis.front.dial import Line
from analysis.page.explorer import STATIC, as_script
from analysis.statistics.dial import Band, Dial
from ermgap.config import METRICS

ABOUT = (
    "An adapter for every position between two trained ones: 0 is the first, 1 the second, above 1 "
    "it goes on in the same direction. Nothing was trained between them. Choose by the smoothed "
    "curves: of many neighbours the one that measured best is the luckiest. Dots are measured; "
    "bands are one paired standard error (dark) and 95 % (light)."
)


def html(dial: Dial) -> str:
    """The block, after the explorer's in a page: it uses its scripts."""
    if not dial.lines:
        return ""
    style, script = (
        (STATIC / f"dial.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    content = dial.plain()["dial"]
    said = "".join(f"<p>{escape(line)}</p>" for line in sentences(dial))
    erm = dial.info.erm.trial_id if dial.info.erm else None
    content = {"lines": content, "erm": erm}
    content |= {"cell": dial.info.cell} if dial.info.cell else {}
    return (
        f"<h2>The dial</h2><p class='soft'>{ABOUT}</p>{said}<style>{style}</style>"
        f"<section id='dial' aria-label='The dial'></section>"
        f"{as_script('dial-data', content)}<script>{script}</script>"
    )


def sentences(dial: Dial) -> list[str]:
    """Where to turn each line to and what that changes, and each barrier, one sentence each."""
    said = []
    for line in dial.lines:
        band = dial.bands.get(line.name)
        said.append(_what_to_use(line, band, dial.best_position(line), dial.info.cell))
        if band is None:
            said.append(f"Not all predictions of {line.name} are there, so nothing says how sure "
                        "its curve is.")  # fmt: skip
        elif band.barrier:
            said.append(_barrier(line, band))
    return said


def _what_to_use(line: Line, band: Band | None, best: int | None, cell: str | None) -> str:
    start = f"From {line.lower} to {line.upper}"
    if best is None:
        return f"{start}: every position costs more than 2 points of accuracy."
    scores = {name: METRICS[name].text(line.smoothed[name][best]) for name in ("acc", "max_gap")}
    sentence = (
        f"{start}: the smallest gap for at most 2 points of accuracy is at position "
        f"{line.positions[best]:g}, with accuracy {scores['acc']} % and a gap of "
        f"{scores['max_gap']} points by the smoothed curve"
    )
    if band is None:
        return f"{sentence}."
    changes = {METRICS[name].short: band.to_lower[best][name] for name in ("acc", "max_gap")}
    if "cell_gap" in band.to_lower[best]:
        changes[f"gap in {cell}"] = band.to_lower[best]["cell_gap"]
    less = ", ".join(f"{name} {change.text()}" for name, change in changes.items())
    sentence += f"; against {line.lower} on the same speakers, in points (95 %): {less}"
    if np.isfinite(band.recall).all():
        sentence += f"; {_recalls(band, best)}"
    return f"{sentence}."


def _recalls(band: Band, best: int) -> str:
    """How recall changes from the lower end on: of two sides, or the lowest and the highest."""
    ends, names = band.recall[[0, best]], "/".join(band.sides)
    if len(band.sides) > 2:
        ends, names = np.stack([ends.min(1), ends.max(1)], 1), "the lowest/highest side"
    first, last = ("/".join(f"{100 * rate:.1f}" for rate in rates) for rates in ends)
    return f"recall of {names} in {band.cell} goes from {first} to {last} %"


def _barrier(line: Line, band: Band) -> str:
    inside = [f"{p:g}" for p, name in zip(line.positions, line.ids, strict=True)
              if name in band.barrier]  # fmt: skip
    where = f"positions {inside[0]} to {inside[-1]}" if len(inside) > 1 else f"position {inside[0]}"
    return (
        f"Between {line.lower} and {line.upper} lies a barrier: at {where} accuracy is up to "
        f"{100 * max(band.barrier.values()):.1f} points below the worse end's, by more than two "
        "paired standard errors, so that these are not on the front and not to be used."
    )
