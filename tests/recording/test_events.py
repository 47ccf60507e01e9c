"""TensorBoard events of a sweep: what the broker writes is there to be read, and hurts nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from broker_story import ERM, FAIR, SOON, create, on, row, take

from sweeps.recording.events import Events
from sweeps.scheduler.broker import Broker


@pytest.fixture
def folder(tmp_path) -> Path:
    return create(tmp_path / "sweep")


def test_events_hold_every_epoch_the_front_and_the_objectives_of_each_trial(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
    (objective,) = read("t0000").Scalars("objective/acc")
    assert (objective.step, round(objective.value, 6)) == (3, 0.5)


def test_tensorboard_lists_each_trial_once_with_its_hyperparameters(tmp_path):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    async def story(broker: Broker) -> None:
        for number, config in enumerate((ERM, FAIR)):
            await broker.offer(f"t{number:04d}", config)
            job = await take(broker, "slot-0")
            await broker.report("slot-0", row(job, 1))
            await broker.report("slot-0", row(job, 2, last=True, acc=0.5 + number / 10))
        await broker.close()

    space = {
        "loss": {"choices": ["erm", "minmaxgap"]},
        "lambda_max": {"low": 0.01, "high": 1.0, "log": True},
        "relative": {"choices": [False, True]},
    }
    folder = create(tmp_path / "sweep", ranges=space)
    on(folder, story)
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder / "tb")).Reload()
    provider, context = MultiplexerDataProvider(runs, str(folder / "tb")), RequestContext()
    names = {run.run_name for run in provider.list_runs(context, experiment_id="")}
    assert names == {"t0000", "t0001", "sweep"}
    hparams = backend_context.Context(TBContext(data_provider=provider))
    metadata = hparams.hparams_metadata(context, "")
    experiment = hparams.experiment_from_metadata(
        context, "", True, metadata, hparams.hparams_from_data_provider(context, "", None)
    )
    kinds = {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos}
    assert kinds["loss"] == "DATA_TYPE_STRING" and kinds["lambda_max"] == "DATA_TYPE_FLOAT64"
    assert kinds["relative"] == "DATA_TYPE_BOOL"
    assert [metric.name.tag for metric in experiment.metric_infos] == [
        "objective/acc", "objective/max_gap"]  # fmt: skip
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[api_pb2.ColParams(metric=m.name) for m in experiment.metric_infos],
    )
    groups = list_session_groups.Handler(context, hparams, "", request).run().session_groups
    shown = {
        group.sessions[0].name: (
            group.hparams["loss"].string_value,
            round(group.metric_values[0].value, 6),
        )
        for group in groups
    }
    assert shown == {"t0000": ("erm", 0.5), "t0001": ("minmaxgap", 0.6)}


def test_events_are_written_while_another_thread_imports_torch(tmp_path):
    """A writer that hides torch from the process makes the import fail."""
    code = """
import sys, threading
import sweeps.recording.events
from sweeps.recording.eventfile import EventFile, experiment, hparams, image, scalars
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
    file.add(scalars({"a/b": 1.0}), *hparams({"p": 2, "on": True, "loss": "erm"}))
    file.add(experiment({"p": [2], "on": [True, False]}, ["a/b"]))
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
