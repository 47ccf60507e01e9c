"""What a sweep does about the machine below it."""

from __future__ import annotations

import os
import socket
import threading
import time
import types

import pytest
import ray

from sweeps.scheduler.machines import machine


@pytest.fixture
def head(monkeypatch):
    """A head that answers, and the list of the statuses that the process would have ended with."""
    ended, alive = [], threading.Event()
    alive.set()
    server = socket.create_server(("127.0.0.1", 0))
    told = types.SimpleNamespace(gcs_address=f"127.0.0.1:{server.getsockname()[1]}")

    def end(status: int) -> None:
        ended.append(status)
        alive.clear()

    monkeypatch.setattr(ray, "get_runtime_context", lambda: told)
    monkeypatch.setattr(ray, "is_initialized", alive.is_set)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(machine, "LOOK_S", 0.02)
    yield server, ended
    alive.clear()
    server.close()


def test_a_head_that_does_not_answer_any_more_ends_the_driver_with_a_sentence(head, capsys):
    server, ended = head
    machine.watch_head("the head is gone; continue with --resume out.", silent=0.2)
    time.sleep(0.5)
    assert ended == []
    server.close()
    end = time.monotonic() + 20
    while not ended and time.monotonic() < end:
        time.sleep(0.02)
    assert ended == [2]
    assert "error: the head is gone; continue with --resume out." in capsys.readouterr().err
