"""The client of an OpenAI-compatible endpoint: sends a request until it is answered or given up.

A failure that may pass is retried (exponential backoff with full jitter, see
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), one that a user has to
fix ends the run at once, and one that a single clip causes concerns that clip alone.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from threading import Event, Lock

import httpx2

from ermgap.baselines.endpoint import replies
from ermgap.baselines.endpoint.replies import Reply, Transient
from ermgap.baselines.endpoint.spec import Target
from ermgap.config import one_line
from ermgap.errors import UserError

# Its debug log shows the headers of responses, in which a server may send the key back.
logging.getLogger("httpcore2").setLevel(logging.INFO)
CONNECT_S = 10.0
LONGEST_BODY = 1 << 16  # bytes; the response with an answer of one word has about a thousand


class Stopped(Exception):
    """The run ended while this request waited for its turn."""


class Unanswered(Exception):
    """No answer to this request: the server refused it (`refused`), or every attempt failed."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class RateLimiter:
    """Spaces the starts of requests over all threads; `pause` lets none start for a while."""

    def __init__(self, per_minute: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._next = clock()
        self._lock = Lock()

    def wait(self, stop: Event) -> None:
        """Return when a request may start; raises Stopped once `stop` is set."""
        while not stop.is_set():
            with self._lock:
                remaining = self._next - self._clock()
                if remaining <= 0:
                    self._next = self._clock() + self._interval
                    return
            stop.wait(remaining)
        raise Stopped

    def pause(self, seconds: float) -> None:
        """Let no request start for `seconds` from now: a server's limit is for every thread."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)


class Client:
    """A client of one endpoint; `ask` may be called from many threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.rate_limiter = RateLimiter(target.per_minute)
        self.retries = 0
        self._lock = Lock()

    def ask(self, body: bytes, stop: Event) -> Reply:
        """The reply to a chat completion request (JSON).

        Raises Unanswered when it is given up, Stopped once `stop` is set, and UserError where
        asking on is useless: an invalid key, an unknown model, a spent quota.
        """
        target, reason, wait_s = self.target, "", 0.0
        for attempt in range(target.attempts):
            if attempt:
                with self._lock:
                    self.retries += 1
                longest = min(target.longest_delay_s, target.first_delay_s * 2 ** (attempt - 1))
                stop.wait(wait_s + random.uniform(0, longest))
            self.rate_limiter.wait(stop)
            try:
                return self._attempt(body)
            except Transient as problem:
                reason, wait_s = str(problem), problem.wait_s
            if wait_s > target.longest_wait_s:
                raise UserError(
                    f"{target.base} asks to wait {wait_s / 60:.0f} minutes; run again after that."
                )
            self.rate_limiter.pause(wait_s)
        raise Unanswered(f"{reason} ({target.attempts} attempts)")

    def clean(self, text: str) -> str:
        """A server's text without the key, and valid UTF-8 so that it can be written to a file."""
        return self.target.key.without_key(text).encode("utf-8", "replace").decode("utf-8")

    def _attempt(self, body: bytes) -> Reply:
        try:
            status, headers, text = self._exchange(body)
        except httpx2.TimeoutException as problem:
            raise Transient(f"no answer in {self.target.timeout_s:g} s") from problem
        except httpx2.RequestError as problem:
            if "CERTIFICATE_VERIFY_FAILED" in str(problem):
                raise UserError(
                    f"the certificate of {self.target.base} cannot be verified; "
                    "name your authority's file in SSL_CERT_FILE."
                ) from None  # its frames hold the headers
            # Only its kind: the text of these names proxies and addresses.
            reason = f"the connection failed or was cut ({type(problem).__name__})"
            raise Transient(reason) from problem
        if status == 200:
            return replies.read_reply(text, clean=self.clean)
        raise self._problem(status, headers, text)

    def _exchange(self, body: bytes) -> tuple[int, Mapping[str, str], str]:
        timeout = self.target.timeout_s
        deadline = time.monotonic() + timeout
        headers = {"Content-Type": "application/json", "User-Agent": "ermgap"}
        if key := self.target.key.value():
            headers["Authorization"] = f"Bearer {key}"
        with httpx2.stream(
            "POST",
            f"{self.target.base}/chat/completions",
            content=body,
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=min(CONNECT_S, timeout)),
            trust_env=not self.target.local,  # no proxy between us and this machine
        ) as response:
            text = self.target.key.without_key(_body(response, deadline))
            return response.status_code, response.headers, text

    def _problem(self, status: int, headers: Mapping[str, str], text: str) -> Exception:
        """The exception to raise for a status other than 200."""
        message, code = replies.error(text)
        message = one_line(self.clean(message))
        failure = f"{status}: {message}" if message else f"{status}"
        where, key = self.target.base, self.target.key
        if status in (401, 403):
            sent = f"refuses the key in {key.variable}" if key.value() else "asks for a key"
            return UserError(f"{where} {sent} ({failure}); set {key.variable} to a valid one.")
        if status == 404:
            return UserError(
                f"{where} has no model {self.target.model!r} or is no such endpoint ({failure}); "
                "correct the model or the address."
            )
        if 300 <= status < 400:
            return UserError(f"{where} redirects elsewhere ({status}); write the final address.")
        if code == "insufficient_quota":
            return UserError(f"the quota at {where} is spent ({failure}); add to it.")
        if status in replies.RETRIED or status >= 500:
            return Transient(failure, wait_s=replies.retry_after(headers.get("Retry-After")))
        return Unanswered(failure, refused=True)


def _body(response: httpx2.Response, deadline: float) -> str:
    """The body as text; raises Timeout at the deadline, however slowly bytes arrive."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if time.monotonic() > deadline:
            raise httpx2.ReadTimeout("the whole answer")
        if len(content) > LONGEST_BODY:
            raise Transient(f"it sent more than {LONGEST_BODY >> 10} KiB")
    return content.decode("utf-8", "replace")
