"""Emotions of your own audio, by an adapter that a sweep trained.

    python -m ermgap.predict --adapter results/small/adapters/t0004 clip.wav folder/ \\
        [--transcripts FILE.csv] [--out FILE.csv|FILE.jsonl] [--backbone PATH] [--language de]

Any format that libsndfile reads, at any rate; folders are searched. The table of transcripts has
the columns `path` and `transcript`. A file that cannot be used is named on a line of its own, the
others are done, and the exit status is 1. Nothing stays in the cache of features.

    table = predict("results/small/adapters/t0004", ["clip.wav"])     # one row a file
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ermgap import card, config
from ermgap.corpora import audio
from ermgap.corpora.table import frame
from ermgap.errors import UserError, command_line
from ermgap.records import write_atomically

SUFFIXES = tuple(".wav .flac .ogg .oga .opus .mp3 .aiff .aif .aifc .au .caf .w64 .rf64".split())
SPEECH, BOTH = "speech", "speech+text"
OUT = (".csv", ".jsonl")


def predict(
    folder: Path | str,
    files: Sequence[Path | str],
    *,
    transcripts: Path | str | None = None,
    backbone: Path | str | None = None,
    language: str = "",
    batch: int = 64,
) -> pd.DataFrame:
    """Probabilities of the labels for every file, in the order given.

    Args:
        folder: an adapter's folder (ermgap.card).
        files: audio files, and folders that are searched for them.
        transcripts: a CSV with `path` (relative to its folder, or to here) and `transcript`.
        backbone: folder of the backbone instead of the configured one.
        language: of the speech (ISO 639-1), where the prompt has a text of its own for it.
        batch: clips in a pass.

    Returns one row a file: file, prediction, `p_<label>` (fractions, summing to 1), modality, note
    (clips that were cut), problem. Where a file cannot be used, problem says why and the others
    are empty. Raises UserError for an adapter, a backbone or transcripts that cannot be used.
    """
    settings = settings_of(folder, backbone=backbone)
    known = settings.data.modalities
    given = {} if transcripts is None else read_transcripts(Path(transcripts))
    _require_modality(known, asked=transcripts is not None)
    table = _table(files, settings, language)
    table["transcript"] = [given.get(path, "") for path in table["path"].map(os.path.realpath)]
    if given and not table["transcript"].any():
        raise UserError(f"{transcripts} names none of the files; its paths are relative to it.")
    table["modality"] = np.where((table["transcript"] != "") & (BOTH in known), BOTH, SPEECH)
    lacking = (table["problem"] == "") & ~table["modality"].isin(known)
    table.loc[lacking, "problem"] = "without a transcript, which this adapter needs"
    usable = table[table["problem"] == ""]
    if len(usable):
        scores = _heard(usable, settings, folder, batch=batch)
    else:
        scores = np.zeros((0, len(settings.data.labels)))
    return _answers(table, scores, labels=settings.data.labels)


def settings_of(folder: Path | str, *, backbone: Path | str | None = None) -> config.Config:
    """The part of a run's configuration that its answers depend on: data, backbone, adapter.

    Its prompt is the text that the adapter was trained with, registered under a name of its own.
    `backbone` is a folder that is used instead of the named one. Raises UserError as `card.read`.
    """
    from ermgap.backbone import prompts

    told = card.read(folder)
    name = f"{told['prompt']['name']}@{told['prompt']['version']}"
    prompts.PROMPTS[name] = told["prompt"]["texts"]
    data = {key: told["data"].get(key) for key in ("labels", "modalities", "min_support")}
    held = told["backbone"] | {"path": None, "prompt": name}
    if backbone is not None:
        # The paper's backbone is the one whose loader takes any folder that holds a Qwen2-Audio.
        held |= {"name": "qwen2-audio-7b", "path": str(backbone)}
    values = {"data": data, "backbone": held, "adapter": told["adapter"]}
    return config.from_dict(values, where=str(Path(folder) / card.NAME))


def load_adapter(speech, folder: Path | str) -> None:
    """Replace the adapters of a `SpeechLLM` by the one of a folder; UserError if it does not fit.

    `ermgap.json` tells its settings, `adapter_model.safetensors` holds its tensors by peft's names.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / "adapter_model.safetensors"
    told = card.read(folder)
    speech.reset_adapter(config.from_dict({"adapter": told["adapter"]}).adapter, seed=0)
    try:
        found = {k.removeprefix("base_model.model."): v for k, v in load_file(path).items()}
    except (OSError, SafetensorError) as problem:
        line = str(problem).splitlines()[0]
        raise UserError(f"{path} cannot be read ({line}); restore it.") from problem
    parameters = speech.adapters[0].parameters
    wanted = {name: tuple(value.shape) for name, value in parameters.items()}
    if wrong := [name for name in {**wanted, **found} if wanted.get(name) != _shape(found, name)]:
        raise UserError(
            f"the adapter in {folder} was trained on another backbone: {wrong[0]} is "
            f"{_shape(found, wrong[0])} there and {wanted.get(wrong[0])} in this one; give the "
            f"backbone {told['backbone']['name']!r} that it was trained on with --backbone PATH."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(found[name])


def _shape(tensors: dict, name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


# What is asked ------------------------------------------------------------------------------------


def _require_modality(known: Sequence[str], *, asked: bool) -> None:
    if asked and BOTH not in known:
        raise UserError("this adapter was trained on speech alone; leave out --transcripts.")
    if not asked and SPEECH not in known:
        raise UserError(
            "this adapter was trained on speech with its transcript; give --transcripts FILE.csv "
            "with the columns path and transcript."
        )


def read_transcripts(file: Path) -> dict[str, str]:
    """Transcript by the real path of its clip; UserError for a CSV that cannot be read."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UserError(f"the transcripts {file} cannot be read ({problem}).") from problem
    found = {}
    for row in rows:
        if row.get("path") is None or row.get("transcript") is None:
            raise UserError(f"{file} must have the columns path and transcript in every row.")
        near = file.parent / row["path"]
        path = near if near.exists() else Path(row["path"])
        found[os.path.realpath(path)] = row["transcript"].strip()
    return found


def _table(files: Sequence[Path | str], settings: config.Config, language: str) -> pd.DataFrame:
    """The utterances asked for, with their notes and problems; gender and emotion are fillers."""
    rows, window = [], settings.backbone.window_s
    for path, problem in _found(files):
        rows.append({"path": path, "problem": problem, "utterance_id": f"own/{len(rows):06d}"})
    filler = {"corpus": "own", "language": language, "gender": "female", "speaker": "own"}
    table = frame([row | filler | {"emotion": settings.data.labels[0]} for row in rows])
    table["problem"] = [row["problem"] for row in rows]
    kept, left_out = audio.inspect(table[table["problem"] == ""])
    reasons = dict(zip(left_out["path"], left_out["reason"], strict=True))
    bad = table["path"].isin(reasons) & (table["problem"] == "")
    table.loc[bad, "problem"] = table["path"][bad].map(reasons)
    ends = table["utterance_id"].map(kept.set_index("utterance_id")["end_s"])
    cut = f"cut to its first {window} s"
    return table.assign(end_s=ends, note=np.where(ends > window + 1e-3, cut, ""))


def _found(files: Sequence[Path | str]) -> list[tuple[str, str]]:
    """(path, problem or "") of every file asked for, those of a folder in order."""
    found = []
    for name in map(Path, files):
        if not name.is_dir():
            found.append((str(name), ""))
            continue
        inside = sorted(p for p in name.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        found += [(str(path), "") for path in inside] or [(str(name), "a folder without audio")]
    return found


# Answers ------------------------------------------------------------------------------------------


def _heard(
    table: pd.DataFrame, settings: config.Config, folder: Path | str, *, batch: int
) -> np.ndarray:
    """Probabilities [rows, labels] of usable clips, by backbone and adapter."""
    from ermgap.backbone import features
    from ermgap.distributed import World
    from ermgap.evaluation import label_log_probabilities
    from ermgap.examples import Examples

    _require_wording(settings.backbone.prompt, table)
    world = World.current()
    speech = _speech(settings, folder, device=world.device)
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
            examples = Examples(
                table.iloc[rows].drop(columns="modality"),
                store=store,
                prompt=speech.prompt,
                labels=settings.data.labels,
                cells=[(table["language"].iloc[0], modality)],
            )
            logp = label_log_probabilities(speech, examples, world=world, batch=batch)[0]
            scores[rows] = np.exp(logp)
    return scores


def _require_wording(prompt: str, table: pd.DataFrame) -> None:
    from ermgap.backbone import prompts

    language, texts = table["language"].iloc[0], prompts.PROMPTS[prompt]
    for modality in table["modality"].unique():
        held = texts.get(modality, {})
        if not {language, ""} & set(held):
            raise UserError(
                f"the prompt has no text for {modality} in this language; give --language with one "
                f"of {', '.join(held) or 'none'}."
            )


def _speech(settings: config.Config, folder: Path | str, *, device):
    from ermgap.backbone import qwen2_audio
    from ermgap.backbone.built import quiet

    with quiet():
        speech = qwen2_audio.load(settings.backbone, labels=settings.data.labels, device=device)
    load_adapter(speech, folder)
    return speech


def _answers(table: pd.DataFrame, scores: np.ndarray, *, labels: Sequence[str]) -> pd.DataFrame:
    done = (table["problem"] == "").to_numpy()
    whole = np.full((len(table), len(labels)), np.nan)
    whole[done] = scores
    answers = pd.DataFrame({"file": table["path"], "prediction": None})
    answers.loc[done, "prediction"] = np.asarray(labels)[scores.argmax(1)]
    answers[[f"p_{label}" for label in labels]] = whole
    answers["modality"] = table["modality"].where(done, "")
    return answers.assign(note=table["note"].where(done, ""), problem=table["problem"])


# The command --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 if a file could not be used, UserError for other mistakes."""
    parser = argparse.ArgumentParser(
        prog="python -m ermgap.predict", description=__doc__.splitlines()[0]
    )
    parser.add_argument("files", nargs="+", help="audio files, or folders that hold them")
    parser.add_argument("--adapter", required=True, help="an adapter's folder")
    parser.add_argument("--transcripts", help="CSV with the columns path and transcript")
    parser.add_argument("--out", type=Path, help="also write the table: FILE.csv or FILE.jsonl")
    parser.add_argument("--backbone", help="folder of the backbone it was trained on")
    parser.add_argument("--language", default="", help="of the speech, if the prompt depends on it")
    parser.add_argument("--batch", type=int, default=64, help="clips in a pass")
    given = parser.parse_args(arguments)
    if given.batch < 1:
        raise UserError(f"--batch {given.batch} is refused: it is at least 1.")
    if given.out is not None and given.out.suffix not in OUT:
        raise UserError(f"--out {given.out} is neither .csv nor .jsonl; end it in one of them.")
    table = predict(
        given.adapter,
        given.files,
        transcripts=given.transcripts,
        backbone=given.backbone,
        language=given.language,
        batch=given.batch,
    )
    print(text(table), end="")
    for row in table[table["problem"] != ""].itertuples():
        print(f"not done: {row.file} is {row.problem}", file=sys.stderr)
    if given.out is not None:
        save(table, given.out)
    return int((table["problem"] != "").any())


def text(table: pd.DataFrame) -> str:
    """What was predicted, as aligned columns; probabilities with three decimals."""
    done = table[table["problem"] == ""].drop(columns="problem")
    if done.empty:
        return ""
    plain = [name for name in ("modality", "note") if done[name].isin([SPEECH, ""]).all()]
    shown = done.drop(columns=plain).rename(columns=lambda name: name.removeprefix("p_"))
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
        raise UserError(f"{path} cannot be written ({problem.strerror or problem}).") from problem


if __name__ == "__main__":
    command_line(main)
