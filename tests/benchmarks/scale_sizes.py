"""How large what a sweep of the 7B model stores and sends is, and how many requests a bucket gets.

For bench_scale.py. The adapter has the shapes of Qwen2-Audio-7B (shapes.py): r 16 on q, k, v and o
of 32 layers, and the projector. Requests are counted by a bucket in this process.
"""

from __future__ import annotations

import collections
import os
import pickle
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scale_crowd
import torch
from shapes import SHAPES

from ermgap.config import MELD_LABELS
from ermgap.records import Storage
from ermgap.training import checkpoint
from sweeps.scheduler.broker import Broker

RANK = 16


def measure() -> dict:
    """Bytes by what they are, seconds, requests."""
    state = checkpoint_state()
    with tempfile.TemporaryDirectory() as place:
        local = Storage(Path(place) / "local")
        checkpoint.save(local, "t0000", 1, state)
        saved = (local.folder / checkpoint.name_of("t0000", 1)).stat().st_size
        predictions = Path(place) / "predictions.parquet"
        predicted().to_parquet(predictions)
        told = {
            "adapter_parameters": sum(p.numel() for p in state["parameters"].values()),
            "adapter_bytes": sum(p.nbytes for p in state["parameters"].values()),
            "checkpoint_bytes": saved,
            "predictions_bytes": predictions.stat().st_size,
        }
        return told | setup(Path(place)) | {"requests": requests(Path(place), state)}


def checkpoint_state() -> dict:
    """What `TrialState.state_dict` holds after a step."""
    text, audio = SHAPES["7b"].text, SHAPES["7b"].audio
    wide, made = text["hidden_size"], {}
    for layer in range(text["num_hidden_layers"]):
        for name in "qkvo":
            made[f"layers.{layer}.{name}_proj.lora_A"] = torch.rand(RANK, wide)
            made[f"layers.{layer}.{name}_proj.lora_B"] = torch.rand(wide, RANK)
    made["projector.weight"] = torch.rand(wide, audio["d_model"])
    made["projector.bias"] = torch.rand(wide)
    parameters = [torch.nn.Parameter(value) for value in made.values()]
    optimizer = torch.optim.AdamW(parameters, fused=True)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    named = {name: p.detach() for name, p in zip(made, parameters, strict=True)}
    return {"parameters": named, "optimizer": optimizer.state_dict(), "epoch": 1, "step": 1}


def predicted() -> pd.DataFrame:
    """Dev predictions of both modalities, as ermgap/training/evaluation.py makes them."""
    rng, dev = np.random.default_rng(0), scale_crowd.table().query("split == 'dev'")
    columns = ["utterance_id", "corpus", "language", "gender", "speaker", "group", "split"]
    both = pd.concat([dev[columns].assign(modality=m) for m in scale_crowd.MODALITIES])
    both["label"] = rng.choice(MELD_LABELS, len(both))
    both["prediction"] = rng.choice(MELD_LABELS, len(both))
    for label in MELD_LABELS:
        both[f"logp_{label}"] = rng.normal(-2, 1, len(both))
    return both


def setup(place: Path) -> dict:
    """What each worker group is sent at its start, through Ray's object store."""
    import asyncio

    records = scale_crowd.create(place / "sweep", scale_crowd.settings())
    broker = Broker(str(records.directory))
    asyncio.run(broker.setup("slot-0"))
    start = time.process_time()
    found = asyncio.run(broker.setup("slot-1"))
    seconds = time.process_time() - start
    size = len(pickle.dumps(found, protocol=5))
    asyncio.run(broker.close())
    return {"material_bytes": size, "material_cpu_seconds": round(seconds, 3)}


def requests(place: Path, state: dict) -> dict:
    """Requests by method of the third checkpoint of a trial, and of forgetting its checkpoints."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    counts: collections.Counter = collections.Counter()
    inner = DomainDispatcherApplication(create_backend_app)

    def app(environ, start_response):
        counts[environ["REQUEST_METHOD"]] += 1
        return inner(environ, start_response)

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
    given |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    os.environ.update(given)
    import urllib.request

    put = urllib.request.Request(f"{given['AWS_ENDPOINT_URL']}/bucket", method="PUT")
    urllib.request.urlopen(put).close()
    store, found = Storage("s3://bucket/sweeps/demo", folder=place / "bucket"), {}
    for epoch in (1, 2, 3):
        counts.clear()
        checkpoint.save(store, "t0000", epoch, state)
        found["a checkpoint"] = dict(counts)
    counts.clear()
    store.write("predictions/t0000.parquet", lambda path: predicted().to_parquet(path))
    found["predictions"] = dict(counts)
    counts.clear()
    store.remove("checkpoints/t0000")
    found["forgetting a trial's checkpoints"] = dict(counts)
    server.shutdown()
    return found
