"""The random backbone and a corpus of tones: what tests of the model and of the loop run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

WINDOW_S = 2
LABELS = ("anger", "joy", "bored")  # the last has several tokens: it is no word of random-tiny
PITCH_HZ = {"anger": 300.0, "joy": 520.0, "bored": 900.0}


def tones(folder: Path, *, train: int = 3, dev: int = 2, seed: int = 0) -> pd.DataFrame:
    """A table with so many noisy tones per language, gender and label; the label sets the pitch."""
    import soundfile

    random, rows = np.random.default_rng(seed), []
    for language in ("de", "en"):
        for gender in ("female", "male"):
            for label in LABELS:
                for i in range(train + dev):
                    split = "train" if i < train else "dev"
                    rows.append((language, gender, label, split, len(rows)))
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for language, gender, label, split, number in rows:
        length = random.uniform(0.2, 1.2)
        path = folder / f"{number:03d}.wav"
        time = np.arange(int(16000 * length)) / 16000
        pitch = PITCH_HZ[label] * (1.2 if gender == "female" else 1.0)
        noise = random.normal(size=len(time)) * (0.3 if gender == "female" else 0.02)
        soundfile.write(path, 0.2 * np.sin(2 * np.pi * pitch * time) + 0.1 * noise, 16000)
        made.append(
            {
                "utterance_id": f"tones/{number:03d}",
                "corpus": "tones",
                "language": language,
                "gender": gender,
                "emotion": label,
                "speaker": f"{language}-{gender}-{split}",
                "group": f"{language}-{gender}-{split}",
                "split": split,
                "path": str(path),
                "start_s": 0.0,
                "end_s": len(time) / 16000,
                "transcript": "",
                "synthetic": True,
            }
        )
    return pd.DataFrame(made)


def speech(dtype: str = "float32", *, labels=LABELS, name: str = "random-tiny", **changes):
    """The backbone on the CPU, without an adapter."""
    import torch

    from ermgap import config
    from ermgap.backbone import qwen2_audio

    settings = config.Backbone(name=name, window_s=WINDOW_S, dtype=dtype, **changes)
    return qwen2_audio.load(settings, labels=labels, device=torch.device("cpu"))


def splits(table: pd.DataFrame, model, *, cache: Path):
    """`Examples` of train and dev, and their cells, with features extracted into `cache`."""
    from ermgap.backbone import features
    from ermgap.examples import Examples, cells_of

    store = features.ensure(
        table,
        model.model,
        model.extractor,
        revision="tests",
        window_s=WINDOW_S,
        dtype=str(model.dtype).removeprefix("torch."),
        device="cpu",
        cache=cache,
    )
    cells = cells_of(table, ["speech"])
    made = [
        Examples(
            table[table["split"] == split],
            store=store,
            prompt=model.prompt,
            labels=LABELS,
            cells=cells,
        )
        for split in ("train", "dev")
    ]
    return *made, cells


def in_processes(work, size: int, *arguments) -> None:
    """Run `work(rank, size, *arguments)` in `size` processes; raises what one of them raises.

    They are forked from a server that has imported everything: six workers take seconds otherwise.
    """
    from torch import multiprocessing

    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["pandas", "peft", "pytest", "transformers.models.qwen2_audio.modeling_qwen2_audio"]
    )
    multiprocessing.start_processes(
        work, (size, *arguments), nprocs=size, start_method="forkserver"
    )
