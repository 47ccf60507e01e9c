"""The responses of an endpoint, parsed: an answer, or a failure's message and code."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

RETRIED = (408, 429)  # statuses, and all from 500 on, after which the same request may succeed


class Transient(Exception):
    """An attempt that failed; another may succeed after `wait_s` seconds or more."""

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Reply:
    """An answer: its text, the refusal if the server marked one, tokens by kind, the model."""

    answer: str
    refusal: str | None
    finish_reason: str
    served: str
    usage: dict[str, int]


def read_reply(text: str, *, clean: Callable[[str], str]) -> Reply:
    """The reply in the body of a successful response; raises Transient where there is none.

    `clean` is applied to every text that the server chose.
    """
    document = _document(text)
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Transient(clean(error(text)[0]) or "it sent no choices")
    refusal = _text(message.get("refusal")) or None
    finish = _text(choice.get("finish_reason"))
    if finish == "content_filter":
        refusal = refusal or finish
    answer = _content(message) or refusal or ""
    return Reply(
        answer=clean(answer),
        refusal=refusal and clean(refusal),
        finish_reason=clean(finish),
        served=clean(_text(document.get("model"))),
        usage=_usage(document.get("usage")),
    )


def _document(text: str) -> dict:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as problem:
        page = re.match(r"\s*<(?:!doctype|html)", text, re.I)
        reason = "it sent a web page" if page else "it sent JSON that is cut or damaged"
        raise Transient(reason) from problem
    if not isinstance(document, dict):
        raise Transient("it sent JSON that is no object")
    return document


def _content(message: dict) -> str:
    """The text of a message: a string, a list of parts, or what a spoken answer says."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    spoken = message.get("audio")
    return _text(content) or _text(spoken.get("transcript") if isinstance(spoken, dict) else None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _usage(usage: object) -> dict[str, int]:
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    counts = {
        "in": usage.get("prompt_tokens"),
        "audio": details.get("audio_tokens") if isinstance(details, dict) else None,
        "out": usage.get("completion_tokens"),
    }
    return {kind: n for kind, n in counts.items() if type(n) is int and 0 <= n < 1 << 40}


def error(text: str) -> tuple[str, str]:
    """Message, and code or type (insufficient_quota), of a failed response; "" where absent."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    document = document if isinstance(document, dict) else {}
    for value in (document.get("error"), document.get("detail"), document):
        if isinstance(value, dict):
            return _text(value.get("message")), _text(value.get("code")) or _text(value.get("type"))
        if isinstance(value, str):
            return value, ""
    return "", ""


def retry_after(header: str | None) -> float:
    """Seconds to wait by a Retry-After header (seconds or a date); 0 where it cannot be read."""
    text = (header or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
