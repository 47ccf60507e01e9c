"""From what was measured to what is compared: rates, FLOP/s, shares of the peak, ratios."""

from __future__ import annotations

RUN_EPOCHS = 5


def summary(content: dict) -> dict:
    """Rates of each measurement, the ladder of factors, ratios of ours to the plain path."""
    measured, gpu = content["measured"], content["setting"]["device"] == "cuda"
    peaks = {k: v for k, v in measured.get("peak", {}).items() if isinstance(v, float)}
    runs = {
        name: rates(one, peaks, dtype=one.get("dtype") or _dtype(content), skip_first=gpu)
        for name, one in measured.items()
        if "train_seconds" in one
    }
    return {"runs": runs, "factors": factors(measured, runs), "ratios": ratios(measured, runs)}


def _dtype(content: dict) -> str:
    return "bfloat16" if content["setting"]["device"] == "cuda" else "float32"


def rates(one: dict, peaks: dict, *, dtype: str, skip_first: bool) -> dict:
    """Utterances, tokens and FLOP a second of the training steps; utterances of evaluation."""
    kept = slice(1 if skip_first and len(one["train_seconds"]) > 1 else 0, None)
    # The least disturbed epoch of each: on a shared machine the others measure the neighbours.
    train, evaluation = min(one["train_seconds"][kept]), min(one["eval_seconds"][kept])
    speed = one["utterances"] / train
    flop = sum(one["flop"].values()) / one["flop_utterances"] * speed
    tokens = one.get("tokens") or one["padded_tokens"]
    made = {
        "dtype": dtype,
        "train_utterances_per_second": speed,
        "train_tokens_per_second": speed * tokens,
        "eval_utterances_per_second": one["dev"] / evaluation,
        "flop_per_utterance": {k: v / one["flop_utterances"] for k, v in one["flop"].items()},
        "flop_per_second": flop,
        "share_of_peak": flop / peaks[dtype] if dtype in peaks else None,
        "peak_memory_mb": one["peak_memory_mb"],
        "run_seconds": run_seconds(one, train, evaluation),
    }
    if "collate_seconds" in one:
        spared = (one["utterances"] + one["dev"]) * one["collate_seconds"] * (RUN_EPOCHS - 1)
        made["run_seconds_mel_in_memory"] = made["run_seconds"] - spared
    made["run_utterances_per_second"] = RUN_EPOCHS * one["utterances"] / made["run_seconds"]
    return made


def run_seconds(one: dict, train: float, evaluation: float) -> float:
    """Five epochs, each with an evaluation, from loading the model on.

    Measured as a whole where that many epochs were run (ours on speech, files included), else the
    parts: loading, features of every clip once, and five times the best epoch.
    """
    if "seconds" in one and len(one["train_seconds"]) == RUN_EPOCHS:
        return one["seconds"]
    once = one.get("load_seconds", one.get("prepare_seconds", 0.0))
    once += one.get("tower_seconds", 0.0) * (one["utterances"] + one["dev"])
    return once + RUN_EPOCHS * (train + evaluation)


def factors(measured: dict, runs: dict) -> list[dict]:
    """Milliseconds an utterance of a training step, from the plain path to ours step by step."""
    steps = []
    if "plain" in runs:
        steps.append(("plain path", 1 / runs["plain"]["train_utterances_per_second"]))
        names = {"forward": "without Trainer and processor"}
        for rung in measured.get("ladder", {}).get("rungs", []):
            label = names.get(rung["rung"], rung["rung"])
            steps.append((label, rung["seconds_an_utterance"]))
    for name in ("ours", "ours-labels", "ours-4s", "ours-4s-auto"):
        if name in runs:
            steps.append((measured[name]["what"], 1 / runs[name]["train_utterances_per_second"]))
    before, made = None, []
    for name, seconds in steps:
        times = round(before / seconds, 2) if before else None
        made.append({"rung": name, "ms_an_utterance": round(1e3 * seconds, 3), "times": times})
        before = seconds
    return made


def ratios(measured: dict, runs: dict) -> dict:
    """Each of ours over the plain path: whole run, training step, evaluation, memory."""
    if "plain" not in runs:
        return {}
    base = runs["plain"]
    keys = {"run": "run_utterances_per_second", "train": "train_utterances_per_second"}
    keys |= {"eval": "eval_utterances_per_second", "memory": "peak_memory_mb"}
    return {
        name: {short: round(run[key] / base[key], 2) for short, key in keys.items()}
        for name, run in runs.items()
        if name != "plain"
    }


def table(content: dict) -> str:
    """The runs and the factors as text."""
    told = content["summary"]
    head = ("", "run utt/s", "train utt/s", "tokens/s", "eval utt/s", "GFLOP/s", "of peak", "MB")
    rows = [head]
    for name, run in told["runs"].items():
        share = run["share_of_peak"]
        rows.append((
            name, f"{run['run_utterances_per_second']:.2f}",
            f"{run['train_utterances_per_second']:.2f}", f"{run['train_tokens_per_second']:.0f}",
            f"{run['eval_utterances_per_second']:.2f}", f"{run['flop_per_second'] / 1e9:.1f}",
            "" if share is None else f"{100 * share:.0f} %", f"{run['peak_memory_mb']:.0f}",
        ))  # fmt: skip
    lines = [*_aligned(rows), ""]
    lines += _aligned(
        [("step", "ms/utterance", "times"), *((f["rung"], str(f["ms_an_utterance"]),
         str(f["times"] or "")) for f in told["factors"])]
    )  # fmt: skip
    lines += ["", *(f"{name} over plain: {ratio}" for name, ratio in told["ratios"].items())]
    for name, one in content["measured"].items():
        if "error" in one or "skipped" in one:
            lines.append(f"{name}: {one.get('error') or one['skipped']}")
    if speed := content["measured"].get("swift", {}).get("train_utterances_per_second"):
        lines.append(f"swift: {speed:.2f} train utt/s (steps alone)")
    return "\n".join(lines)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
