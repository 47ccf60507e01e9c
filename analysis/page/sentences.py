"""The sentences of a report: the result, how sure it is, what to use, and caveats.

for line in sentences(info, bars): print(line)
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.front import choose
from analysis.front.caption import caption
from analysis.front.front import FrontInfo
from analysis.statistics import Evidence
from analysis.statistics import evidence as gap_evidence
from analysis.tables import tables
from ermgap import metrics

SUPPORT = ("min_support", "cell_support")


def sentences(
    info: FrontInfo,
    bars: pd.DataFrame,
    evidence: Evidence | None = None,
    on_test: Callable[[str], str] = lambda trial_id: "",
) -> list[str]:
    """Three plain sentences: the result, how sure it is, what to use.

    `on_test`: what is known of a trial on test, as a sentence with a space before it, or nothing.
    """
    sure = _how_sure(info, bars) if not evidence else gap_evidence.sentence(info, evidence)
    return [_result(info), sure, _what_to_use(info, on_test)]


def columns(info: FrontInfo, evidence: Evidence) -> list[str]:
    """The meaning of the columns beside a gap, and which points level down."""
    if not evidence:
        return []
    lines = [
        "at most: the true gap is no larger, with 95 % confidence. fair models: 95 % of perfectly "
        "fair models of the same accuracy show less on these speakers. against ERM: paired "
        "difference, and bounds that it keeps with 95 % confidence each. "
        f"{tables.accuracies_title(evidence)}: accuracy there where the gap is largest. All in "
        "points; speakers are what is resampled."
    ]
    if info.cell:
        lines[0] += (
            f" {info.cell} against ERM: the change of the gap in that cell, which was named before "
            "the sweep, on the same speakers, with its 95 % interval."
        )
    down = [p.trial_id for p in info.highlighted if gap_evidence.levelled(info, p)]
    if down:
        lines.append(
            f"Levelling down: {', '.join(down)} have a smaller gap than ERM and a worse worst "
            "group."
        )
    lines += pushed_up(info)
    tests = [test for test in evidence.permutations if test.p is not None]
    if tests:
        listed = ", ".join(f"{test.language} p = {test.p:.3f}" for test in tests)
        lines.append(f"ERM's gap with {info.attribute.title} shuffled over speakers: {listed}.")
    few = [test for test in evidence.permutations if test.p is None]
    if few:
        listed = ", ".join(f"{test.language} {test.speakers} ({test.smallest:.2g})" for test in few)
        lines.append(
            f"Shuffling {info.attribute.title} over speakers needs 10 of a language; here are, "
            f"with the smallest p that they could give: {listed}."
        )
    return lines


def pushed_up(info: FrontInfo) -> list[str]:
    """Which points of the front were trained in part by making the better side worse."""
    raised = [point for point in info.highlighted if point.raised_share]
    if not raised:
        return []
    shares = ", ".join(f"{p.trial_id} ({_share(p.raised_share)} %)" for p in raised)
    return [
        f"In their selected epoch the penalty pushed up the losses of a share of the utterances: "
        f"{shares}. Part of a smaller gap may be a better group made worse; objective.sides=worse "
        "never does that."
    ]


def _share(share: float) -> str:
    """A positive share in percent: at least 0.1, so that it does not read as none."""
    return f"{max(100 * share, 0.1):.1f}"


def caveats(info: FrontInfo, bars: pd.DataFrame) -> list[str]:
    """What a reader must know beside the numbers, one sentence each."""
    notes = list(caption(info, errors=len(bars) > 0))
    lone = int(bars["lone_speakers"].max()) if len(bars) else 0
    if lone:
        notes.append(
            f"In {lone} group(s) of one {info.attribute.group} there is a single dev speaker: "
            "their part of the bars misses what differs between speakers, so bars are too short."
        )
    if missing := sorted({p.trial_id for p in info.highlighted} - set(bars["trial_id"])):
        notes.append(f"No bar for {', '.join(missing)}: the predictions are absent or unreadable.")
    notes += _uncounted(info)
    if info.half_written:
        notes.append("A half-written line of trials.jsonl was omitted.")
    notes.append(
        "Points were chosen on these same dev utterances, so they look better than on test."
    )
    return notes


def _uncounted(info: FrontInfo) -> list[str]:
    """Which cells do not count for the largest gap, and which trials' recorded gap is of one."""
    if not info.uncounted:
        return []
    data = (info.sweep.get("config") or {}).get("data") or {}
    support = {"min_support": 5} | {key: data[key] for key in SUPPORT if key in data}
    least = metrics.minimum_per_side(**support)
    named = "; ".join(f"{cell} ({numbers})" for cell, numbers in info.uncounted.items())
    notes = [
        f"The largest gap is over {info.cells - len(info.uncounted)} of {info.cells} cells, "
        f"without {named}: a cell counts with {least} utterances of two sides "
        "(data.cell_support) and as many defined gaps as the others."
    ]
    older = [p.trial_id for p in info.highlighted if p.worst_cell in info.uncounted]
    if older:
        notes.append(
            f"The recorded largest gap of {', '.join(older)} is of such a cell: the sweep was run "
            "before cells needed that support, so run it again before you rely on it."
        )
    return notes


def _result(info: FrontInfo) -> str:
    counts = info.counts
    ended = f"{info.complete} of {info.planned} configurations ran to their end"
    if not info.front:
        return f"{ended} and none is usable yet ({counts.get('degenerate', 0)} near-constant)."
    on_front = f"{len(info.front)} of them are on the front"
    start = f"{ended} and {on_front} (hypervolume {info.hypervolume:.3f})"
    if info.dial:
        start = (
            f"{ended}; with {len(info.dial)} positions of the dial between them the front has "
            f"{len(info.front)} points (hypervolume {info.hypervolume_with_dial:.3f}, "
            f"{info.hypervolume:.3f} without the dial)"
        )
    if info.erm is None:
        return f"{start}; no ERM baseline has finished to compare with."
    fairest = info.find(choose.RULES["fairest"](info).trial_id) or info.front[-1]
    return (
        f"{start}: plain ERM ({info.erm.trial_id}) has {choose.scores(info.erm)}, "
        f"the fairest point ({fairest.trial_id}) {choose.scores(fairest)}."
    )


def _how_sure(info: FrontInfo, bars: pd.DataFrame) -> str:
    speakers = f" by {info.speakers} speakers" if info.speakers else ""
    start = f"Scores are on {info.sweep.get('n_dev', '?')} dev utterances{speakers}"
    if not len(bars) or bars[["acc_se", "max_gap_se"]].isna().all(axis=None):
        return f"{start}; no usable point has predictions that would say how far they would move."
    acc, gap = (100 * bars[name].median() for name in ("acc_se", "max_gap_se"))
    return (
        f"{start}: with other speakers, accuracy would move by about {acc:.1f} points and the gap "
        f"by about {gap:.1f} (one standard error), so differences of that size may be chance."
    )


def _what_to_use(info: FrontInfo, on_test: Callable[[str], str]) -> str:
    for rule in ("knee", "most accurate"):
        point = info.find(choose.RULES[rule](info).trial_id)
        if point is not None:
            down = " (it levels down: its worst group does worse than ERM's)"
            known = on_test(point.trial_id)
            return (
                f"To start with, use the {rule} point {point.trial_id} ({choose.scores(point)})"
                f"{down if gap_evidence.levelled(info, point) else ''}"
                + (
                    f".{known}"
                    if known
                    else ", and confirm it on other seeds and on test before any claim."
                )
            )
    return "Nothing can be recommended yet."
