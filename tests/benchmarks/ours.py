"""Our path as a sweep runs it: `context.prepare` and `trainer.train`, every file written.

A run of the real thing rather than of its inner step, so that nothing is left out: features into an
empty store, batches, steps, evaluation, predictions, adapter, checkpoint.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

import torch
from machine import peak_memory_mb, synchronise

from ermgap import config, keep_freed_memory
from ermgap.distributed import World
from ermgap.model import qwen2_audio
from ermgap.model.batches import IndexedUtterances, cells_of
from ermgap.model.features.audio_tower import tower_output
from ermgap.records import Storage
from ermgap.training import trainer
from ermgap.training.context import TrainingContext, prepare

MICRO = (None, 32, 16, 8)


def on_speech(settings: config.Config, table, *, device: str, storage: Path) -> dict:
    """A run on real clips; extraction goes to $ERMGAP_CACHE, which the caller has emptied."""
    world = World(device=torch.device(device))
    given = {"config": settings.to_dict(), "table": table, "storage": str(storage)}
    started = time.perf_counter()
    speech, context = prepare(given, world, lambda line: None)
    prepared = time.perf_counter() - started
    rows = train(settings, speech, context, world)
    seconds = time.perf_counter() - started
    peak = peak_memory_mb(device)
    # Loading and indexing alone: the same again, with the features in place.
    again = time.perf_counter()
    prepare(given, world, lambda line: None)
    warm = time.perf_counter() - again
    return _result(rows, speech, context) | {
        "seconds": seconds,
        "prepare_seconds": prepared,
        "extraction_seconds": prepared - warm,
        "peak_memory_mb": peak,
    }


def on_random(settings: config.Config, model, extractor, table, store, prompt, *, device) -> dict:
    """A run of a random model over random features; on a GPU the largest micro-batch that fits."""
    speech = qwen2_audio.SpeechLLM(model, None, extractor, prompt, settings.backbone)
    cells = cells_of(table, settings.data.modalities)
    splits = [
        IndexedUtterances(
            table[table["split"] == split],
            store=store,
            prompt=prompt,
            labels=settings.data.labels,
            cells=cells,
        )
        for split in ("train", "dev")
    ]
    world = World(device=torch.device(device))
    for micro in MICRO if device == "cuda" else MICRO[:1]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                context = TrainingContext(*splits, cells, Storage(folder))
                chosen = settings.replace({"train.micro_batch": micro})
                rows = train(chosen, speech, context, world)
            return _result(rows, speech, context) | {
                "micro_batch": micro or settings.train.batch,
                "peak_memory_mb": peak_memory_mb(device),
            }
        except torch.OutOfMemoryError:
            print(f"ours: out of memory at micro_batch {micro}", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    raise RuntimeError(f"ours does not fit with {MICRO[-1]} utterances")


def train(settings: config.Config, speech, context: TrainingContext, world: World) -> list[dict]:
    """The epoch rows of one configuration."""
    rows: list[dict] = []

    def report(row: dict) -> bool:
        rows.append(row)
        return True

    def failed(job, reason: str) -> None:
        raise RuntimeError(reason)

    keep_freed_memory()
    job = trainer.TrialSpec("t0000", settings)
    trainer.train(job, speech=speech, context=context, world=world, report=report, failed=failed)
    return rows


def _result(rows: list[dict], speech, context: TrainingContext) -> dict:
    return {
        "train_seconds": [row["train_seconds"] for row in rows],
        "eval_seconds": [row["eval_seconds"] for row in rows],
        "epoch_seconds": [row["seconds"] for row in rows],
        "accuracy": [row["dev"]["acc"] for row in rows],
        "dtype": str(speech.dtype).removeprefix("torch."),
        "audio": context.train.audio_length.tolist(),
        "label": context.train.label.tolist(),
    }


@torch.no_grad()
def tower_seconds(model, *, mel: torch.Tensor, mask: torch.Tensor, device: str) -> float:
    """Seconds a clip of the tower alone over a batch that is repeated: the best of five."""
    tower, best = model.model.audio_tower, float("inf")
    mel, mask = mel.to(device), mask.to(device)
    for _ in range(5):
        synchronise(device)
        before = time.perf_counter()
        tower_output(tower, mel, mask)
        synchronise(device)
        best = min(best, (time.perf_counter() - before) / len(mel))
    return best
