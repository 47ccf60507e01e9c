"""The sentences below a picture of the front."""

from __future__ import annotations

from analysis.front.front import FrontInfo
from ermgap.config import METRICS


def caption(info: FrontInfo, *, errors: bool, band: bool = False) -> list[str]:
    """Sentences on data and n, selection, progress and, where there are some, bars and band."""
    sweep = info.sweep
    data = ", ".join(str(name).split("=")[0] for name in sweep.get("data") or []) or "unknown data"
    synthetic = [str(name) for name in sweep.get("synthetic") or []]
    who = f" of {info.speakers} speakers" if info.speakers else ""
    first = f"Data: {data}; {sweep.get('n_dev', '?')} dev utterances{who}."
    if synthetic:
        first += f" Synthetic speech, not human: {', '.join(synthetic)}."
    first += f" Provenance of {info.attribute.title}: {info.attribute.provenance}."
    train = (sweep.get("config") or {}).get("train") or {}
    rule = train.get("select", "w_f1")
    metric = METRICS[rule].short if rule in METRICS else rule
    epoch = "the last one" if rule == "last" else f"the one of the best dev {metric}"
    lines = [first, f"Each point is one trial, at its selected epoch: {epoch}."]
    if info.dial:
        lines[-1] += " Green: positions of the dial."
    if info.complete < info.planned:
        state = "Sweep" if info.done or info.ended >= info.planned else "Unfinished sweep"
        lines.append(f"{state}: {info.complete} of {info.planned} trials ran to their end.")
    if errors:
        lines.append(
            "Bars: plus and minus one standard error over resampled speakers, no 95 % interval; "
            "the largest of several gaps is biased upward."
        )
    if band:
        lines.append(
            "Grey: gaps that 95 % of perfectly fair models of the same accuracy stay within, on "
            "these speakers."
        )
    return lines
