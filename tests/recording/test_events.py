"""TensorBoard events of a sweep: what the broker writes is there to be read, and hurts nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from broker_story import ERM, SOON, create, on, row, take

from sweeps.recording.events import Events
from sweeps.scheduler.broker import Broker


@pytest.fixture
def folder(tmp_path) -> Path:
    return create(tmp_path / "sweep")


def test_events_hold_every_epoch_the_front_and_the_objectives_of_each_trial(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot-0")
        for epoch in (1, 2, 3):
            await broker.report("slot-0", row(job, epoch, last=epoch == 3, acc=0.2 + epoch / 10))
        await broker.close()

    on(folder, story)

    def read(run: str) -> EventAccumulator:
        return EventAccumulator(str(folder / "tb" / run)).Reload()

    accuracy = [(e.step, round(e.value, 6)) for e in read("t0000").Scalars("dev/acc")]
    assert accuracy == [(1, 0.3), (2, 0.4), (3, 0.5)]
    assert [e.step for e in read("sweep").Scalars("sweep/hypervolume")] == [1]
    assert read("sweep").Images("sweep/front")[0].width > 100
    (objective,) = read("t0000/hparams").Scalars("objective/acc")
    assert round(objective.value, 6) == 0.5
    tensors = read("t0000/hparams").SummaryMetadata("_hparams_/session_start_info")
    started = metadata.parse_session_start_info_plugin_data(tensors.plugin_data.content)
    assert {name: value.string_value for name, value in started.hparams.items()}["loss"] == "erm"


def test_events_are_written_while_another_thread_imports_torch(tmp_path):
    """A writer that hides torch from the process makes the import fail."""
    code = """
import sys, threading
import sweeps.recording.events
from sweeps.recording.eventfile import EventFile, hparams, image, scalars
import numpy as np, pathlib
assert "torch" not in sys.modules and "tensorflow" not in sys.modules
outcome = []
def load():
    try:
        import torch
        outcome.append(torch.ones(1).item())
    except ImportError as problem:
        outcome.append(problem)
thread = threading.Thread(target=load)
thread.start()
file = EventFile(pathlib.Path(sys.argv[1]))
while thread.is_alive():
    file.add(scalars({"a/b": 1.0}), *hparams({"p": 2, "on": True, "loss": "erm"}, {"a/b": 1.0}))
    file.add(image("c", np.zeros((4, 5, 3), np.uint8)))
thread.join()
assert outcome == [1.0], outcome
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "tb")], env=environment, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()


@pytest.mark.parametrize("method", ["_epoch", "_ended"])
def test_events_that_cannot_be_written_hurt_no_trial(folder, monkeypatch, method):
    def fail(*_) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Events, method, fail)

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot-0")
        assert await broker.report("slot-0", row(job, 1)) is True
        assert await broker.report("slot-0", row(job, 2, last=True)) is False
        assert (await broker.outcome("t0000", SOON))["status"] == "finished"
        await broker.close()

    on(folder, story)
