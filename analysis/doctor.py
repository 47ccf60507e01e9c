"""What was wrong with a sweep, and what to change in the next one.

    findings = examine(info, records)   # plain values, for summary.json
    for line in sentences(findings): print(line)
It says what failed and why, whether the gap tells configurations apart at all or only draws noise,
which hyperparameters want a wider range, what early stopping cost and saved, and whether more
trials would still help. Nothing here needs the models: rows and predictions are enough.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from analysis.front import COMPLETE, FrontInfo
from analysis.statistics import SpeakerSums
from analysis.statistics.uncertainty import speaker_sums
from ermgap.records import Records, file_names

SPLITS = 20
MIN_TRIALS = 6  # trials under which a rank correlation says nothing
MAX_TRIALS = 300  # trials whose predictions are halved: more would add nothing
EDGE = 0.05  # of a range, on its own scale


def examine(info: FrontInfo, records: Records) -> dict[str, object]:
    """The findings: failures, gap, edges, budget, hypervolume (over time), stopping."""
    rows = records.rows()
    return {
        "failures": dict(
            Counter(point.reason for point in info.points if point.status == "failed")
        ),
        "gap": predictability(info, records),
        "edges": edges(info),
        "budget": budget(rows),
        "stopping": _stopping(records),
        "hypervolume": progress(info, rows),
    }


def predictability(info: FrontInfo, records: Records) -> dict[str, object]:
    """Whether accuracy and gap order the trials alike on two halves of dev.

    The speakers of dev are halved at random within language and side, the same for all trials,
    `SPLITS` times: what one speaker makes of a trial must not show in both halves. The gap is over
    the cells that count and whose sides have two speakers each, `cells` of them. `rank` is the
    mean Spearman correlation over trials between the halves, `reliability` that of the whole dev by
    Spearman and Brown's formula, 2r / (1 + r), `error` the standard error of `rank` for as many
    trials as there are, if they were independent and dev were halved once, 1 / sqrt(n - 3): the
    mean of many splits varies less, which leaves room for what trials of unlike accuracy have in
    common (fair models, too, show larger gaps where they err more).
    """
    usable = [point for point in info.points if point.eligible]
    if len(usable) > MAX_TRIALS:
        usable = [usable[i] for i in np.linspace(0, len(usable) - 1, MAX_TRIALS).astype(int)]
    sums, _ = speaker_sums(records, [point.trial_id for point in usable])
    trials = 0 if sums is None else len(sums.counts)
    if trials < MIN_TRIALS:
        return {"trials": trials}
    lone = {stratum.split("/")[0] for stratum in sums.lone}
    halved = [cell.split("/")[0] not in lone for cell in sums.cells]
    sums = sums.with_cells(sums.counted & halved)
    half = _halves(sums)
    weights = np.concatenate([half, ~half]).astype(float)
    names = ("acc", "max_gap")
    values = sums.scores(names, weights).reshape(2, SPLITS, trials, len(names))
    findings = {"trials": trials, "error": float(1 / np.sqrt(max(trials - 3, 1)))}
    findings |= {"cells": int(sums.counted.sum())}
    for name, (first, second) in zip(names, np.moveaxis(values, -1, 0), strict=True):
        ranks = [_spearman(*pair) for pair in zip(first, second, strict=True)]
        ranks = [rank for rank in ranks if np.isfinite(rank)]
        rank = float(np.mean(ranks)) if ranks else float("nan")
        findings[name] = {"rank": rank, "reliability": 2 * rank / (1 + rank) if rank > 0 else 0.0}
    return findings


def edges(info: FrontInfo) -> dict[str, dict]:
    """Hyperparameters of which most points of the front lie at one end of the searched range.

    `at` is the end, `share` of the front's points that have the hyperparameter, `of` their number.
    """
    at_ends = {}
    for name, given in (info.sweep.get("space") or {}).items():
        values = [p.hyperparameters[name] for p in info.front if name in p.hyperparameters]
        if "choices" in given or len(values) < 2:
            continue
        low, high = given["low"], given["high"]
        if given["log"]:
            low, high, values = np.log(low), np.log(high), np.log(values)
        place = (np.asarray(values, float) - low) / (high - low) if high > low else np.array([0.5])
        for end, share in (("low", np.mean(place < EDGE)), ("high", np.mean(place > 1 - EDGE))):
            if share > 0.5:
                at_ends[name] = {"at": end, "share": float(share), "of": len(values)}
    return at_ends


def budget(rows: Sequence[Mapping]) -> dict[str, float]:
    """Epochs spent by the status of their trial, and in all (`epochs`), repeated ones too."""
    status = {row["trial_id"]: row["status"] for row in rows}
    spent = Counter(status[row["trial_id"]] for row in rows if _trained(row))
    return {"epochs": sum(spent.values())} | dict(spent)


def progress(info: FrontInfo, rows: Sequence[Mapping]) -> list[dict]:
    """The hypervolume after each trial that ran to its end, by epochs and worker-hours so far.

    A worker holds one GPU, where there are any: then these are GPU-hours.
    """
    workers = ((info.sweep.get("config") or {}).get("sweep") or {}).get("workers") or 1
    eligible = {point.trial_id: point for point in info.points if point.eligible}
    spent, seconds, points, volumes = 0, 0.0, [], []
    for row in rows:
        spent += _trained(row)
        seconds += (row.get("seconds") or 0.0) if _trained(row) else 0.0
        if row["status"] in COMPLETE and row["trial_id"] in eligible:
            points.append(eligible.pop(row["trial_id"]))
            so_far = {"epochs": spent, "hours": workers * seconds / 3600, "trials": len(points)}
            volumes.append(so_far | {"hypervolume": info.volume(info.scores(points))})
    return volumes


def _trained(row: Mapping) -> bool:
    """Whether a row is of an epoch of training; that of the zero-shot baseline is not."""
    return bool(row["epoch"]) and row.get("seconds") is not None


def sentences(findings: Mapping) -> list[str]:
    """One sentence a finding, with what to do."""
    lines = [f"{n} failed: {reason}." for reason, n in findings["failures"].items()]
    lines += _of_the_gap(findings["gap"])
    lines += [
        f"{name} lies at the {edge['at']} end of its range in {edge['share']:.0%} of the front's "
        f"{edge['of']} points: widen it with --set 'sweep.space.{name}=[low,high]'."
        for name, edge in findings["edges"].items()
    ]
    lines += _of_the_budget(findings["budget"], findings["stopping"])
    return lines + _of_the_progress(findings["hypervolume"])


def _of_the_gap(gap: Mapping) -> list[str]:
    if "max_gap" not in gap:
        return [f"Whether the gap is more than noise needs {MIN_TRIALS} usable trials with "
                f"predictions; there are {gap['trials']}."]  # fmt: skip
    rank, error, accuracy = gap["max_gap"]["rank"], gap["error"], gap["acc"]["rank"]
    if not np.isfinite(rank):
        return ["Whether the gap is more than noise is unknown: no cell that counts for it has "
                "two dev speakers of each side."]  # fmt: skip
    measured = (
        f"between two halves of the dev speakers the gaps of {gap['trials']} trials agree in rank "
        f"by {rank:.2f} ± {error:.2f} (accuracy: {accuracy:.2f})"
    )
    if not rank > 2 * error:
        return [f"The gap cannot be distinguished from noise: {measured}. Use more dev speakers, "
                "or confirm the front over seeds before you choose by it."]  # fmt: skip
    return [f"The gap differs between configurations: {measured}."]


def _of_the_budget(spent: Mapping, stopping: Mapping) -> list[str]:
    epochs = spent["epochs"]
    lines = [
        f"{spent[status] / epochs:.0%} of {epochs} epochs went into {status} trials."
        for status in ("stopped", "failed", "degenerate")
        if spent.get(status)
    ]
    if stopping.get("stopped"):
        lines.append(
            f"Early stopping ended {stopping['stopped']} trials; with all that is known now it "
            f"would have let {stopping['regretted']} of them go on."
        )
    return lines


def _of_the_progress(volumes: Sequence[Mapping]) -> list[str]:
    if len(volumes) < 4 or not volumes[-1]["hypervolume"] > 0 or not volumes[-1]["epochs"]:
        return []
    last = volumes[-1]
    near = next(v for v in volumes if v["hypervolume"] >= 0.95 * last["hypervolume"])
    share = near["epochs"] / last["epochs"]
    more = "more trials may still help" if share > 0.75 else "more trials of this space add little"
    return [f"95 % of the final hypervolume was there after {share:.0%} of the epochs: {more}."]


def _stopping(records: Records) -> dict:
    """What the sweep noted of its early stopping (sweeps/search/stopping.py), if it did."""
    try:
        return json.loads((records.directory / file_names.STOPPING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _halves(sums: SpeakerSums) -> np.ndarray:
    """Bool [SPLITS, U], the first half of each split: half of the speakers of each stratum.

    Speakers of about equally many utterances are parted, so that the halves are alike in size.
    """
    rng = np.random.default_rng(0)
    speakers = sums.units.groupby("speaker").agg({"stratum": "first", "size": "sum"})
    speakers = speakers.sort_values("stratum", kind="stable")
    first_half = np.zeros((SPLITS, len(speakers)), bool)
    for k in range(SPLITS):
        order = speakers.assign(draw=rng.random(len(speakers)))
        order = order.sort_values(["size", "draw"], ascending=False)
        for rows in order.groupby("stratum", sort=True).indices.values():
            first = rng.integers(2, size=-(-len(rows) // 2))  # one of each two that follow
            half = np.stack([first, 1 - first], 1).ravel()[: len(rows)] == 0
            first_half[k, order.index[rows]] = half
    return first_half[:, sums.units["speaker"]]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    fine = np.isfinite(a) & np.isfinite(b)
    if fine.sum() < 3 or np.ptp(a[fine]) == 0 or np.ptp(b[fine]) == 0:
        return float("nan")
    return float(stats.spearmanr(a[fine], b[fine]).statistic)
