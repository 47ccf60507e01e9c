"""Predicts the emotions of your own audio with an adapter that a sweep trained.

    python -m ermgap.predict --adapter results/small/adapters/t0004 clip.wav folder/ \\
        [--transcripts FILE.csv] [--out FILE.csv|FILE.jsonl] [--backbone PATH] [--language de] \\
        [--dial 0.7]

Any format that libsndfile reads, at any rate; folders are searched, without hidden files. The table
of transcripts has the columns `path` and `transcript`. A file that cannot be used is named on a
line of its own, the others are done, and the exit status is 1. The cache of features is not used.
With `--dial` the adapter is the upper end of a line (sweeps/dial.py), and a position on it answers.

    table = predict("results/small/adapters/t0004", ["clip.wav"])     # one row a file
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ermgap import config
from ermgap.adapters import config_of, load_adapter, load_line, lower_end, position_of, require_line
from ermgap.config import SPEECH
from ermgap.corpora import audio, own_audio
from ermgap.errors import UserError, command_line, printable
from ermgap.records import write_atomically

OUT = (".csv", ".jsonl")


def predict(
    folder: Path | str,
    files: Sequence[Path | str],
    *,
    transcripts: Path | str | None = None,
    backbone: Path | str | None = None,
    language: str = "",
    batch: int = 64,
    dial: float | None = None,
) -> pd.DataFrame:
    """Probabilities of the labels for every file, in the order given.

    Args:
        folder: an adapter's folder (ermgap.training.model_card).
        files: audio files, and folders that are searched for them.
        transcripts: a CSV with `path` (relative to its folder, or to here) and `transcript`.
        backbone: folder of the backbone instead of the configured one.
        language: of the speech (ISO 639-1), where the prompt has a text of its own for it.
        batch: clips in a pass.
        dial: position on the line that ends in this adapter, instead of the adapter itself.

    Returns one row a file: file, prediction, `p_<label>` (fractions, summing to 1), modality, note
    (clips that were cut), problem. Where a file cannot be used, problem says why and the others
    are empty. Raises UserError for an adapter, a backbone or transcripts that cannot be used.
    """
    settings, folders = config_of(folder, backbone=backbone), [folder]
    if dial is not None:
        dial, folders = position_of(dial), [lower_end(folder), folder]
        require_line(*folders)
    table = own_audio.table(files, settings, transcripts=transcripts, language=language)
    usable = table[table["problem"] == ""]
    scores = np.zeros((0, len(settings.data.labels)))
    if len(usable):
        scores = _probabilities(usable, settings, folders, dial, batch=batch)
    return _with_answers(table, scores, labels=settings.data.labels)


# Answers ------------------------------------------------------------------------------------------


def _probabilities(
    table: pd.DataFrame,
    settings: config.Config,
    folders: Sequence[Path | str],
    dial: float | None,
    *,
    batch: int,
) -> np.ndarray:
    """Probabilities [rows, labels] of usable clips, by an adapter or at a position between two."""
    from ermgap.distributed import World
    from ermgap.model.batches import IndexedUtterances
    from ermgap.model.features import store as features
    from ermgap.training.evaluation import label_log_probabilities

    _require_prompt(settings.backbone.prompt, table)
    world = World.current()
    speech = _load(settings, device=world.device)
    if dial is None:
        load_adapter(speech, *folders)
    else:
        load_line(speech, *folders, [dial])
    with tempfile.TemporaryDirectory(prefix="ermgap-") as cache:
        store = features.ensure(
            table,
            speech.model,
            speech.extractor,
            revision="predict",
            window_s=settings.backbone.window_s,
            dtype=str(speech.dtype).removeprefix("torch."),
            device=world.device,
            cache=Path(cache),
        )
        scores = np.zeros((len(table), len(settings.data.labels)))
        for modality in table["modality"].unique():
            rows = np.flatnonzero(table["modality"] == modality)
            examples = IndexedUtterances(
                table.iloc[rows].drop(columns="modality"),
                store=store,
                prompt=speech.prompt,
                labels=settings.data.labels,
                cells=[(table["language"].iloc[0], modality)],
            )
            logp = label_log_probabilities(speech, examples, world=world, batch=batch)[0]
            scores[rows] = np.exp(logp)
    return scores


def _require_prompt(prompt: str, table: pd.DataFrame) -> None:
    """Raise UserError unless the prompt has a text for the language and modalities of the table."""
    from ermgap.model import prompts

    language, texts = table["language"].iloc[0], prompts.PROMPTS[prompt]
    for modality in table["modality"].unique():
        by_language = texts.get(modality, {})
        if not {language, ""} & set(by_language):
            raise UserError(
                f"the prompt has no text for {modality} in this language; give --language with one "
                f"of {', '.join(by_language) or 'none'}."
            )


def _load(settings: config.Config, *, device):
    """The backbone without an adapter."""
    from ermgap.model import qwen2_audio
    from ermgap.model.cached_folder import quiet

    with quiet():
        return qwen2_audio.load(settings.backbone, labels=settings.data.labels, device=device)


def _with_answers(
    table: pd.DataFrame, scores: np.ndarray, *, labels: Sequence[str]
) -> pd.DataFrame:
    done = (table["problem"] == "").to_numpy()
    probabilities = np.full((len(table), len(labels)), np.nan)
    probabilities[done] = scores
    answers = pd.DataFrame({"file": table["path"], "prediction": None})
    answers.loc[done, "prediction"] = np.asarray(labels)[scores.argmax(1)]
    answers[[f"p_{label}" for label in labels]] = probabilities
    answers["modality"] = table["modality"].where(done, "")
    return answers.assign(note=table["note"].where(done, ""), problem=table["problem"])


# The command --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 if a file could not be used, UserError for other mistakes."""
    options = _parser().parse_args(arguments)
    if options.batch < 1:
        raise UserError(f"--batch {options.batch} is not possible: it is at least 1.")
    if options.out is not None and options.out.suffix not in OUT:
        raise UserError(f"--out {options.out} is neither .csv nor .jsonl; end it in one of them.")
    table = predict(
        options.adapter,
        options.files,
        transcripts=options.transcripts,
        backbone=options.backbone,
        language=options.language,
        batch=options.batch,
        dial=options.dial,
    )
    print(text(table), end="")
    for row in table[table["problem"] != ""].itertuples():
        print(printable(f"not done: {row.file} is {row.problem}"), file=sys.stderr)
    if options.out is not None:
        save(table, options.out)
    return int((table["problem"] != "").any())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ermgap.predict",
        description=__doc__.splitlines()[0],
        epilog="Audio: what libsndfile reads (WAV, FLAC, Ogg, Opus, MP3, AIFF), at any rate, up "
        f"to {audio.LONGEST_S:.0f} s. Exit status: 0 all files done, 1 some could not be used and "
        "are named, 2 another mistake.",
    )
    parser.error = _fail  # type: ignore[method-assign]

    def add(name: str, metavar: str, text: str, **more) -> None:
        parser.add_argument(name, metavar=metavar, help=text, **more)

    add("files", "FILES", "audio files, or folders that hold them", nargs="+", type=_path)
    example = "results/demo/adapters/t0003"
    add("--adapter", "DIR", f"an adapter's folder: {example}", required=True, type=_path)
    add("--transcripts", "FILE", "CSV with the columns path and transcript", type=_path)
    add("--out", "FILE", "also write the table: FILE.csv or FILE.jsonl", type=_path)
    add("--backbone", "DIR", "folder of the backbone it was trained on", type=_path)
    add("--language", "CODE", "of the speech (de), if the prompt depends on it", default="")
    add("--dial", "POSITION", "answer at this position of the line that ends in the adapter")
    add("--batch", "N", "clips in a pass (default: 64)", type=int, default=64)
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _fail(message: str):
    raise UserError(f"{message}; see --help.")


def text(table: pd.DataFrame) -> str:
    """The predictions as aligned columns; probabilities with three decimals."""
    done = table[table["problem"] == ""].drop(columns="problem")
    if done.empty:
        return ""
    plain = [name for name in ("modality", "note") if done[name].isin([SPEECH, ""]).all()]
    shown = done.drop(columns=plain).rename(columns=lambda name: name.removeprefix("p_"))
    shown["file"] = shown["file"].map(printable)
    return shown.to_string(index=False, float_format="{:.3f}".format) + "\n"


def save(table: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV or JSON lines; UserError if it cannot be written."""
    if path.suffix == ".csv":
        content = table.to_csv(index=False)
    else:
        content = table.to_json(
            orient="records", lines=True, double_precision=15, force_ascii=False
        )
    try:
        write_atomically(path, lambda p: p.write_text(content, encoding="utf-8"))
    except OSError as problem:
        raise UserError(
            f"{path} cannot be written ({problem.strerror or problem}); name another with --out."
        ) from problem


if __name__ == "__main__":
    command_line(main)
