"""A chat endpoint on loopback that misbehaves as it is told to, for the tests of endpoints.

    with Misbehaving([status(429, {"Retry-After": "1"}), says("joy")]) as server:
        ...ask server.base...
        assert len(server.requests) == 2

A behaviour is a function of the request's handler. They are taken in turn and the last one is
repeated; a function of the request given instead of a list chooses one by what was asked.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 2,
    "prompt_tokens_details": {"audio_tokens": 80},
}


@dataclass(frozen=True)
class Request:
    """What arrived: seconds of a monotonic clock, the path, headers (lower case), the JSON."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict

    @property
    def audio(self) -> str:
        """The clip, base64."""
        return self.body["messages"][0]["content"][0]["input_audio"]["data"]

    @property
    def text(self) -> str:
        """The prompt."""
        return self.body["messages"][0]["content"][1]["text"]


Behaviour = Callable[["_Handler"], None]


class Misbehaving:
    """The server while its `with` lasts; `requests` in order of arrival, `answered` sent whole."""

    def __init__(self, behave: Sequence[Behaviour] | Callable[[Request], Behaviour]) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        self.answered = self.busy = self.busiest = 0
        self.lock = Lock()
        self.closing = Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._server.handle_error = lambda *_: None  # clients that leave are the subject here
        self.base = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Misbehaving:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def arrived(self, request: Request) -> Behaviour:
        """Note the request; returns what to do with it."""
        with self.lock:
            self.requests.append(request)
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            if callable(self.behave):
                return self.behave(request)
            return self.behave[min(len(self.requests), len(self.behave)) - 1]

    def left(self) -> None:
        """The request is over."""
        with self.lock:
            self.busy -= 1


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(time.monotonic(), self.path, headers, json.loads(content))
        behaviour = self.server.owner.arrived(request)
        try:
            behaviour(self)
        finally:
            self.server.owner.left()

    def send(self, status: int, content: bytes, headers: dict[str, str], *, cut: int = 0) -> None:
        """A response whose last `cut` bytes are promised and never sent."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def status(number: int, headers: dict[str, str] | None = None, **error: object) -> Behaviour:
    """A failure, with an OpenAI-like error body."""
    content = json.dumps({"error": error or {"message": f"status {number}"}}).encode()
    return lambda handler: handler.send(number, content, headers or {})


def completion(message: dict, **choice: object) -> dict:
    """The JSON of an answer."""
    whole = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    return {"model": "served-model", "choices": [whole | choice], "usage": USAGE}


def document(content: object, *, after_s: float = 0.0) -> Behaviour:
    """A success with this JSON, after a while."""

    def behave(handler: _Handler) -> None:
        handler.server.owner.closing.wait(after_s)
        handler.send(200, json.dumps(content).encode(), {})
        with handler.server.owner.lock:
            handler.server.owner.answered += 1

    return behave


def says(text: str, *, after_s: float = 0.0) -> Behaviour:
    """A sound answer."""
    return document(completion({"content": text}), after_s=after_s)


def page(code: int = 200) -> Behaviour:
    """A web page instead of JSON."""
    content = b"<!DOCTYPE html><html><body>Sign in</body></html>"
    return lambda handler: handler.send(code, content, {"Content-Type": "text/html"})


def raw(content: bytes) -> Behaviour:
    """A success with these bytes."""
    return lambda handler: handler.send(200, content, {})


def cut_json() -> Behaviour:
    """Half of an answer, whose length is right."""
    return raw(json.dumps(completion({"content": "joy"})).encode()[:40])


def cut_body() -> Behaviour:
    """An answer whose connection closes before its end."""
    content = json.dumps(completion({"content": "joy"})).encode()
    return lambda handler: handler.send(200, content, {}, cut=20)


def reset() -> Behaviour:
    """A connection that is torn down without a response."""

    def behave(handler: _Handler) -> None:
        at_once = struct.pack("ii", 1, 0)  # unsent data is thrown away, the peer gets a reset
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        handler.close_connection = True

    return behave


def hang() -> Behaviour:
    """No response at all for as long as the server lives."""
    return lambda handler: handler.server.owner.closing.wait(30) and None


def drip(every_s: float = 0.05) -> Behaviour:
    """A body that comes a byte at a time, so that no single read takes long."""

    def behave(handler: _Handler) -> None:
        handler.send(200, b" " * 10_000, {}, cut=10_000)
        with contextlib.suppress(OSError):
            while not handler.server.owner.closing.wait(every_s):
                handler.wfile.write(b" ")

    return behave
