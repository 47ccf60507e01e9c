"""Appends to a TensorBoard event file without a thread, a queue or an open file of its own.

The usual writers have two threads and three file descriptors a run, and wait for the disk with
every flush, which a copy of the records need not do. Here each addition opens the file, appends
whole records and closes it; all scalars of an epoch are one event. The message types are
tensorboard's own, which import neither torch nor TensorFlow.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

FIELDS = {"BOOL": "bool_value", "FLOAT64": "number_value", "STRING": "string_value"}


class EventFile:
    """The file of one run's events from now on; an earlier process's are in a file beside it.

    Args:
        folder: of the run; created with the first event.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{os.getpid()}"

    def add(self, *summaries, step: int | None = None, when: float | None = None) -> None:
        """Append an event for each summary; `when` is in s since 1970, None: now."""
        when = time.time() if when is None else when
        events = [Event(wall_time=when, step=step, summary=summary) for summary in summaries]
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            events.insert(0, Event(wall_time=when, file_version="brain.Event:2"))
        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        with open(self.path, "ab") as file:
            file.write(records.getvalue())


def scalars(values: Mapping[str, float]) -> Summary:
    """One summary of all values by tag."""
    tagged = [Summary.Value(tag=_tag(name), simple_value=v) for name, v in values.items()]
    return Summary(value=tagged)


def image(name: str, pixels: np.ndarray) -> Summary:
    """A summary of one picture, uint8 [height, width, 3 or 4]."""
    from matplotlib.image import imsave  # slow, but imported already where a picture was drawn

    encoded = io.BytesIO()
    imsave(encoded, pixels, format="png")
    shape = dict(zip(("height", "width", "colorspace"), pixels.shape, strict=True))
    picture = Summary.Image(encoded_image_string=encoded.getvalue(), **shape)
    return Summary(value=[Summary.Value(tag=_tag(name), image=picture)])


def experiment(values: Mapping[str, Sequence], metrics: Sequence[str]) -> Summary:
    """What columns TensorBoard's page of hyperparameters has; it reads one summary of a sweep.

    Args:
        values: some or all values of each hyperparameter, for its type.
        metrics: tags of the scalars beside them.
    """
    described = api_pb2.Experiment()
    for name, known in values.items():
        kinds = {_kind(value) for value in known if value is not None}
        if kinds:
            kind = kinds.pop() if len(kinds) == 1 else "STRING"
            described.hparam_infos.add(name=name, type=api_pb2.DataType.Value(f"DATA_TYPE_{kind}"))
    for name in metrics:
        described.metric_infos.add(name=api_pb2.MetricName(tag=name))
    return _hparams_summary(metadata.EXPERIMENT_TAG, experiment=described)


def hparams(values: Mapping) -> list[Summary]:
    """A trial's row of the page of hyperparameters: two summaries, for the run of its scalars.

    Args:
        values: hyperparameters by name: numbers, truth values and text; None is omitted.
    """
    start = plugin_data_pb2.SessionStartInfo()
    for name, value in values.items():
        if value is not None:
            kind = _kind(value)
            setattr(start.hparams[name], FIELDS[kind], str(value) if kind == "STRING" else value)
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value("STATUS_SUCCESS"))
    return [
        _hparams_summary(metadata.SESSION_START_INFO_TAG, session_start_info=start),
        _hparams_summary(metadata.SESSION_END_INFO_TAG, session_end_info=end),
    ]


def _hparams_summary(tag: str, **content) -> Summary:
    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    value = Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])


def _kind(value) -> str:
    if isinstance(value, bool):
        return "BOOL"
    return "FLOAT64" if isinstance(value, (int, float)) else "STRING"


def _tag(name: str) -> str:
    """The name without the characters that TensorBoard does not accept."""
    return re.sub(r"[^-/\w.]", "_", name).lstrip("/")
