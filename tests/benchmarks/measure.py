"""The measurements of bench_step.py: what each is, its data, and how a child process does it."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path

LADDER = {"small": (16, 4), "7b": (8, 6), "tiny": (4, 3)}  # batch and steps a rung
TOWER_BATCH = 16


def plan(given) -> dict[str, dict]:
    """Name -> request of every measurement, in order."""
    base = {name: getattr(given, name) for name in ("shape", "device", "epochs", "batch")}
    base |= {"eval_batch": given.eval_batch, "threads": given.threads}
    dtype = "bfloat16" if given.device == "cuda" else "float32"
    peak = base | {"kind": "peak", "dtypes": ["float32", "bfloat16"], "what": "matrix peak"}
    plain = base | {"kind": "plain", "dtype": dtype, "window_s": 30, "within_s": given.peer_seconds}
    plain["what"] = f"the plain path: Trainer + peft, {dtype}, 30-s window"
    made = {"peak": peak, "plain": plain}
    kinds = [("ours", "answer", 30, dtype), ("ours-labels", "labels", 30, dtype)]
    if given.shape == "small":
        kinds += [("ours-4s", "labels", 4, dtype), ("ours-4s-auto", "labels", 4, "auto")]
    for name, over, window_s, kept in kinds:
        what = f"ours: loss over {over}, {kept}, {window_s}-s window"
        ours = base | {"kind": "ours", "dtype": kept, "loss_over": over, "window_s": window_s}
        made[name] = ours | {"what": what}
    made["ladder"] = plain | {"kind": "ladder", "what": "the plain path's step by single changes"}
    return made


def prepare_data(given, work: Path) -> str:
    """Write the utterances that every measurement shares; returns what they are."""
    import shapes

    if given.shape == "small":
        table, what = shapes.speech_table(train=given.train, dev=given.dev)
        from ermgap.model.backbones import BACKBONES

        for window_s in (30, 4):  # built beforehand: it is not part of any run
            BACKBONES.find("small")(settings({"shape": "small", "window_s": window_s}).backbone)
    else:
        table = shapes.random_table(given.train, given.dev)
        what = "random features; lengths lognormal, mean 3.6 s, 95 % under 9 s, as MELD's"
    table.to_parquet(work / "table.parquet")
    length = (table["end_s"] - table["start_s"])[table["split"] == "train"]
    return f"{what}; train clips {length.mean():.2f} s on average, {length.max():.1f} s at most"


def empty_cache(work: Path) -> Path:
    """A cache without features, whose backbones are the user's."""
    import tempfile

    from ermgap import cache_dir

    cache = Path(tempfile.mkdtemp(dir=work))
    (cache_dir() / "backbones").mkdir(parents=True, exist_ok=True)
    (cache / "backbones").symlink_to(cache_dir() / "backbones")
    return cache


def swift_clips(given, folder: Path) -> Path:
    """What peer_swift.py reads: the model's folder and the clips of two epochs' worth of steps."""
    import shapes

    from ermgap.model.backbones import BACKBONES

    table, _ = shapes.speech_table(train=given.train, dev=given.dev)
    train = table[table["split"] == "train"]
    model = BACKBONES.find("small")(settings({"shape": "small", "window_s": 30}).backbone)
    clips = train[["path", "emotion"]].to_dict("records")
    (folder / "clips.json").write_text(json.dumps({"model": str(model), "clips": clips}))
    return folder


def settings(spec: dict):
    """The configuration of a run; both sides take adapter and optimiser from it."""
    from ermgap import config

    changes = {
        "backbone.name": "small" if spec["shape"] == "small" else "qwen2-audio-7b",
        "backbone.window_s": spec["window_s"],
        "backbone.dtype": spec.get("dtype", "float32"),
        "adapter.r": 8 if spec["shape"] == "small" else 16,
        "objective.loss_over": spec.get("loss_over", "answer"),
        "data.min_support": 1,
        "train.select": "last",
    }
    names = ("epochs", "batch", "eval_batch")
    changes |= {f"train.{name}": spec[name] for name in names if name in spec}
    if spec["shape"] != "small":
        changes["train.lr"] = 5e-5
    return config.Config().replace(changes)


def child(path: Path) -> int:
    """Carry out one request and write its result."""
    spec = json.loads(path.read_text())
    import torch

    torch.set_num_threads(spec["threads"])
    try:
        found = KINDS[spec["kind"]](spec)
    except Exception as problem:  # a record of what went wrong is worth more than the others' loss
        traceback.print_exc()
        found = {"error": f"{type(problem).__name__}: {problem}"}
    Path(spec["result"]).write_text(json.dumps(found))
    return int("error" in found)


def peak(spec: dict) -> dict:
    """FLOP/s of large products by dtype."""
    from machine import matrix_peak

    short = {"enough_s": 0.2, "products": [(512, 512, 512)]} if spec["shape"] == "tiny" else {}
    return {dtype: matrix_peak(spec["device"], dtype, **short) for dtype in spec["dtypes"]}


def plain(spec: dict) -> dict:
    """The plain path's run."""
    import flops
    import peer_trainer

    given, table = settings(spec), _table(spec)
    started = time.perf_counter()
    model, train, dev = _peer(spec, given, table)
    model = peer_trainer.adapted(model, given.adapter)
    loaded = time.perf_counter() - started
    found = peer_trainer.run(
        model, train, dev, given.train,
        device=spec["device"], epochs=spec["epochs"], within_s=spec["within_s"],
    )  # fmt: skip
    batches = found.pop("batches")[:]
    sizes = flops.Sizes.of(model.get_base_model().config)
    made = flops.plain(sizes, batches, rank=given.adapter.r, targets=given.adapter.targets)
    padded, count = sum(b * t for b, t in batches), sum(b for b, _ in batches)
    if spec["shape"] == "small":  # making random weights is no part of a run
        found["load_seconds"] = loaded
    found |= {"flop": made, "utterances": len(train), "dev": len(dev)}
    found |= {"padded_tokens": padded / count, "flop_utterances": count}
    before = time.perf_counter()
    train.train(list(range(min(16, len(train)))))
    found["collate_seconds"] = (time.perf_counter() - before) / min(16, len(train))
    return found


def rungs(spec: dict) -> dict:
    """A training step from the plain path on, by single changes."""
    import ladder
    import peer_trainer

    given = settings(spec)
    model, train, _ = _peer(spec, given, _table(spec))
    model = peer_trainer.adapted(model, given.adapter)
    batch, steps = LADDER[spec["shape"]]
    made = ladder.climb(model, train, batch=batch, steps=steps, device=spec["device"])
    return {"rungs": made, "batch": batch}


def _peer(spec: dict, given, table):
    """The plain path's frozen model and its data: (model, train, dev)."""
    import peer_data
    import peer_trainer
    import shapes

    parts = [table[table["split"] == split] for split in ("train", "dev")]
    if spec["shape"] != "small":
        shape = shapes.SHAPES[spec["shape"]]
        model = shapes.random_model(shape, device=spec["device"], dtype=spec["dtype"])
        made = [
            peer_data.RandomData(
                part["frames"].to_numpy(),
                part["emotion"].map(shapes.LABELS.index).to_numpy(),
                prompt=shape.prompt(),
                mel=shape.audio["num_mel_bins"],
                window=2 * shape.audio["max_source_positions"],
            )
            for part in parts
        ]
        return model, *made
    from transformers import Qwen2AudioProcessor

    from ermgap.model import prompts
    from ermgap.model.backbones import BACKBONES

    folder = BACKBONES.find("small")(given.backbone)
    processor = Qwen2AudioProcessor.from_pretrained(folder, local_files_only=True)
    template = prompts.find(given.backbone.prompt)["speech"][""]
    made = [
        peer_data.SpeechData(
            part, processor, template=template, labels=given.data.labels,
            window_s=given.backbone.window_s,
        )
        for part in parts
    ]  # fmt: skip
    model = peer_trainer.loaded(folder, device=spec["device"], dtype=spec["dtype"])
    return model, *made


def ours(spec: dict) -> dict:
    """Our run, with what its training steps need in FLOP."""
    import flops
    import ours as path
    import shapes

    given, table = settings(spec), _table(spec)
    if spec["shape"] == "small":
        import tempfile

        from transformers import AutoConfig, AutoTokenizer

        from ermgap.model import prompts
        from ermgap.model.backbones import BACKBONES

        with tempfile.TemporaryDirectory() as folder:
            found = path.on_speech(given, table, device=spec["device"], storage=Path(folder))
        model = BACKBONES.find("small")(given.backbone)
        words = AutoTokenizer.from_pretrained(model)
        prompt = prompts.build(words, prompts.find(given.backbone.prompt), given.data.labels)
        configuration = AutoConfig.from_pretrained(model)
    else:
        shape = shapes.SHAPES[spec["shape"]]
        prompt, configuration = shape.prompt(), shape.config()
        found = _ours_random(spec, given, table, shape)
    answers = spec["loss_over"] == "answer"
    work = flops.Work.of(prompt, found.pop("audio"), found.pop("label"), answers=answers)
    sizes = flops.Sizes.of(configuration)
    head = sizes.vocab if answers else len(prompt.answers)
    made = flops.needed(sizes, work, rank=given.adapter.r, targets=given.adapter.targets, head=head)
    counts = table["split"].value_counts()
    found |= {"flop": made, "flop_utterances": len(work.tokens)}
    found |= {"tokens": sum(work.tokens) / len(work.tokens), "tower_flop": flops.tower(sizes, 1)}
    return found | {"utterances": int(counts["train"]), "dev": int(counts["dev"])}


def _ours_random(spec: dict, given, table, shape) -> dict:
    import ours as path
    import shapes
    import torch
    from transformers import WhisperFeatureExtractor

    model = shapes.random_model(shape, device=spec["device"], dtype=spec["dtype"])
    mel, window = shape.audio["num_mel_bins"], 2 * shape.audio["max_source_positions"]
    tokens = shapes.audio_tokens(table["frames"].to_numpy()).tolist()
    lengths = dict(zip(table["utterance_id"], tokens, strict=True))
    store = shapes.RandomStore(lengths, dim=shape.audio["d_model"], dtype=spec["dtype"])
    extractor = WhisperFeatureExtractor(feature_size=mel, chunk_length=30)
    found = path.on_random(
        given, model, extractor, table, store, shape.prompt(), device=spec["device"]
    )
    heard = torch.randn(TOWER_BATCH, mel, window)
    mask = torch.arange(window) < torch.tensor(table["frames"][:TOWER_BATCH].tolist())[:, None]
    found["tower_seconds"] = path.tower_seconds(
        model, mel=heard, mask=mask.long(), device=spec["device"]
    )
    return found


def _table(spec: dict):
    import pandas as pd

    return pd.read_parquet(Path(spec["work"]) / "table.parquet")


KINDS = {"peak": peak, "plain": plain, "ladder": rungs, "ours": ours}
