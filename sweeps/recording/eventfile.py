"""A TensorBoard events file without a thread, a queue or an open file of its own.

The usual writers have two threads and three descriptors a run, and wait for the disk with every
flush, which a copy of the records need not do. Here each addition opens the file, appends whole
records and closes it; all scalars of an epoch are one event. The messages are tensorboard's own,
which import neither torch nor TensorFlow.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """The events of one run, from now on; an earlier session's lie in a file beside it.

    Args:
        folder: of the run; made when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{os.getpid()}"

    def add(self, *summaries, step: int | None = None, when: float | None = None) -> None:
        """An event for each of the summaries; `when` in seconds since 1970, or now."""
        when = time.time() if when is None else when
        events = [
            event_pb2.Event(wall_time=when, step=step, summary=summary) for summary in summaries
        ]
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            events.insert(0, event_pb2.Event(wall_time=when, file_version="brain.Event:2"))
        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        with open(self.path, "ab") as file:
            file.write(records.getvalue())


def scalars(values: Mapping[str, float]) -> summary_pb2.Summary:
    """One summary of all values, by tag."""
    summary = summary_pb2.Summary()
    for name, value in values.items():
        summary.value.add(tag=_tag(name), simple_value=value)
    return summary


def image(name: str, pixels: np.ndarray) -> summary_pb2.Summary:
    """A picture: uint8 [height, width, 3 or 4]."""
    from matplotlib.image import imsave  # slow to import, and here where a picture was drawn

    encoded = io.BytesIO()
    imsave(encoded, pixels, format="png")
    height, width, channels = pixels.shape
    summary = summary_pb2.Summary()
    picture = summary.value.add(tag=_tag(name)).image
    picture.height, picture.width, picture.colorspace = height, width, channels
    picture.encoded_image_string = encoded.getvalue()
    return summary


def hparams(values: Mapping, metrics: Mapping[str, float]) -> list[summary_pb2.Summary]:
    """What TensorBoard's page of hyperparameters reads of one trial, three summaries.

    Args:
        values: hyperparameters by name: numbers, truth values and text; None is left out.
        metrics: names under which `scalars` are written beside them.
    """
    experiment, start = api_pb2.Experiment(), plugin_data_pb2.SessionStartInfo()
    for name, value in values.items():
        if value is None:
            continue
        kind, field = _kind(value)
        setattr(start.hparams[name], field, value if kind != "STRING" else str(value))
        experiment.hparam_infos.add(name=name, type=api_pb2.DataType.Value(f"DATA_TYPE_{kind}"))
    for name in metrics:
        experiment.metric_infos.add(name=api_pb2.MetricName(tag=name))
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value("STATUS_SUCCESS"))
    contents = {
        metadata.EXPERIMENT_TAG: plugin_data_pb2.HParamsPluginData(experiment=experiment),
        metadata.SESSION_START_INFO_TAG: plugin_data_pb2.HParamsPluginData(
            session_start_info=start
        ),
        metadata.SESSION_END_INFO_TAG: plugin_data_pb2.HParamsPluginData(session_end_info=end),
    }
    summaries = []
    for tag, content in contents.items():
        summary = summary_pb2.Summary()
        described = metadata.create_summary_metadata(content)
        summary.value.add(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)
        summaries.append(summary)
    return summaries


def _kind(value) -> tuple[str, str]:
    if isinstance(value, bool):
        return "BOOL", "bool_value"
    if isinstance(value, (int, float)):
        return "FLOAT64", "number_value"
    return "STRING", "string_value"


def _tag(name: str) -> str:
    """The name without what TensorBoard takes for illegal."""
    return re.sub(r"[^-/\w.]", "_", name).lstrip("/")
