"""The description of an endpoint by a user, checked: `MODEL[@BASE][,OPTION=VALUE...]`.

    target = read("gpt-4o-mini-audio-preview@https://host/v1,rpm=60,concurrent=8")

The key is never written in it: it stands in the environment, and `ApiKey` holds only the variable's
name. No message here repeats the argument: a user may have written a secret there by mistake.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from ermgap.errors import UserError
from ermgap.registry import Registry

OPENAI = "https://api.openai.com/v1"
# A narrow grammar, so that no two parsers can disagree on which host gets the key.
_BASE = re.compile(r"https?://(?:\[[0-9a-f:]+\]|[\w.-]+)(?::\d{1,5})?(?:/[\w.~/-]*)?", re.I | re.A)
_SHORTEST_SECRET = 8  # "EMPTY" and the like are no secrets, and may occur in an answer


class ApiKey:
    """The environment variable of a key, read at each use: no object holds the key itself."""

    def __init__(self, variable: str) -> None:
        self.variable = variable

    def value(self) -> str:
        """The key, "" without one; raises UserError for one that no header can carry."""
        value = os.environ.get(self.variable, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]*", value):
            raise UserError(
                f"the key in {self.variable} has a space or a character that no key has; "
                "set it again."
            )
        return value

    def without_key(self, text: str) -> str:
        """`text` without the key, which a server may send back."""
        value = self.value()
        return text.replace(value, "(key)") if len(value) >= _SHORTEST_SECRET else text


@dataclass(frozen=True)
class Target:
    """An endpoint, the model asked there, and what it may be asked.

    Attributes:
        concurrent: requests at the same time.
        per_minute: requests a minute, 0 for no limit.
        timeout_s: seconds for one whole answer.
        attempts: requests for one utterance, the first included.
        first_delay_s, longest_delay_s: the n-th wait is drawn from 0 to first * 2^(n-1) seconds,
            but at most to the longest.
        longest_wait_s: a server that asks for a longer wait (Retry-After) ends the run.
        failures: utterances in a row that may fail before the run ends.
        price_per_audio_minute, price_per_million_tokens: dollars, None where not given.
    """

    model: str
    base: str
    key: ApiKey
    name: str
    concurrent: int = 4
    per_minute: float = 0.0
    timeout_s: float = 60.0
    attempts: int = 6
    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    longest_wait_s: float = 600.0
    failures: int = 5
    max_tokens: int = 64
    price_per_audio_minute: float | None = None
    price_per_million_tokens: float | None = None

    @property
    def local(self) -> bool:
        """Whether the endpoint is on this machine."""
        host = _host(self.base)
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def _number(least: float, kind: type = float) -> Callable[[str], float]:
    def read_number(text: str) -> float:
        value = kind(text)
        if not (math.isfinite(value) and value >= least):
            raise ValueError
        return value

    return read_number


OPTIONS = Registry("option of an endpoint")  # name -> (field, parser, what to write)
OPTIONS["key"] = ("key", str, "the name of an environment variable, never the key itself")
OPTIONS["name"] = ("name", str, "the row's name")
OPTIONS["concurrent"] = ("concurrent", _number(1, int), "a whole number of 1 or more")
OPTIONS["rpm"] = ("per_minute", _number(0), "requests a minute, 0 for no limit")
OPTIONS["timeout"] = ("timeout_s", _number(0.001), "seconds above 0")
OPTIONS["failures"] = ("failures", _number(1, int), "a whole number of 1 or more")
OPTIONS["max_tokens"] = ("max_tokens", _number(1, int), "a whole number of 1 or more")
OPTIONS["price_per_audio_minute"] = ("price_per_audio_minute", _number(0), "dollars")
OPTIONS["price_per_million_tokens"] = ("price_per_million_tokens", _number(0), "dollars")


def read(argument: str | None) -> Target:
    """The endpoint that `argument` names.

    Prices may stand in ERMGAP_PRICE_PER_AUDIO_MINUTE and ERMGAP_PRICE_PER_MILLION_TOKENS instead.
    Raises UserError for a mistake in it, for a key that is missing where one is needed, and for one
    that would travel unencrypted.
    """
    head, *rest = [part.strip() for part in (argument or "").split(",")]
    prices = ("price_per_audio_minute", "price_per_million_tokens")
    variables = {price: os.environ.get(f"ERMGAP_{price.upper()}", "") for price in prices}
    given = [_option(*pair) for pair in variables.items() if pair[1]]
    given += [_option(*(part.strip() for part in text.partition("=")[::2])) for text in rest]
    fields = dict(given)
    model, base = _model_and_base(head)
    key = _key(fields.pop("key", None), base)
    target = Target(**({"name": model} | fields), model=model, base=base, key=key)
    if base.lower().startswith("http:") and key.value() and not target.local:
        raise UserError(
            f"the key in {key.variable} would travel unencrypted to {_host(base)}; "
            "write https:// or unset it."
        )
    return target


def _option(name: str, text: str) -> tuple[str, object]:
    if not re.fullmatch("[a-z_]+", name):
        raise UserError("an endpoint's options are written OPTION=VALUE, with commas between.")
    field, parser, expected = OPTIONS.find(name)
    try:
        value = parser(text)
    except ValueError:
        value = ""
    if value == "":
        raise UserError(f"the option {name} of the endpoint cannot be read; write {expected}.")
    return field, value


def _model_and_base(head: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+?)@(https?:.*)", head, re.I)
    model, base = match.groups() if match else (head, os.environ.get("OPENAI_BASE_URL") or OPENAI)
    if not model or (not match and ("@" in model[1:] or "://" in model)):
        raise UserError(
            "an endpoint is written openai=MODEL or openai=MODEL@https://HOST/v1; "
            "name the model, and begin the address with https://."
        )
    base = re.sub(r"(/chat/completions)?/*$", "", base)
    if not _BASE.fullmatch(base):
        raise UserError(
            "the endpoint's address is not like https://HOST/v1; write it without user, "
            "password, query or spaces."
        )
    return model, base


def _key(variable: str | None, base: str) -> ApiKey:
    """The key for this host: OPENAI_API_KEY is sent elsewhere only if a user names it."""
    if variable is not None:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", variable):
            raise UserError(f"the option key takes {OPTIONS['key'][2]}; write key=OPENAI_API_KEY.")
        if not ApiKey(variable).value():
            raise UserError(f"the option key names {variable}, which is not set; set it.")
        return ApiKey(variable)
    if ApiKey("ERMGAP_API_KEY").value() or not _is_openais(base):
        return ApiKey("ERMGAP_API_KEY")
    if not ApiKey("OPENAI_API_KEY").value():
        raise UserError(f"{_host(base)} asks for a key; set OPENAI_API_KEY in the environment.")
    return ApiKey("OPENAI_API_KEY")


def _is_openais(base: str) -> bool:
    trusted = [OPENAI, os.environ.get("OPENAI_BASE_URL", "")]
    return _host(base) in [_host(url) for url in trusted if _BASE.fullmatch(url)]


def _host(base: str) -> str:
    return urlsplit(base).hostname or ""
