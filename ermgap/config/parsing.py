"""Nested plain values into frozen dataclasses; a UserError names a mistake by its dotted key."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping

from ermgap.config import old_forms
from ermgap.config.safe_yaml import DEEPEST, one_line, quoted
from ermgap.errors import UserError

LARGEST = 2**63  # an int64 column holds less


def differing_keys(old: Mapping, new: Mapping, prefix: str = "") -> list[str]:
    """Dotted keys at which two nested dicts differ, sorted."""
    keys = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping) and key not in ("space", "points"):
            keys += differing_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            keys.append(prefix + key)
    return keys


def put(values: dict, dotted: str, value) -> None:
    """Set `section.key` in nested dicts, in place; UserError if a section is a value."""
    *sections, key = dotted.split(".")
    if len(sections) > DEEPEST:
        raise UserError(f"there is no setting {quoted(dotted)}: it has {len(sections)} dots.")
    for section in sections:
        if values.get(section) is None:  # absent, or a section that a preset leaves empty
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise UserError(
                f"there is no setting {quoted(dotted)}: {quoted(section)} is a value, "
                "not a section."
            )
    values[key] = value


def build(kind, values, prefix: str, where: str):
    """A dataclass (of dataclasses) from nested values; UserError names an unknown key or a type."""
    if not isinstance(values, Mapping):
        raise UserError(
            f"{prefix.rstrip('.') or 'the content'} of {where} must be a section of keys; "
            f"it is {quoted(values)}."
        )
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise _unknown_key(key, hints, prefix, where)
    built = {}
    for key, value in values.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            built[key] = build(hint, {} if value is None else value, f"{prefix}{key}.", where)
        else:
            built[key] = _value(hint, value, f"{prefix}{key}")
    return kind(**built)


def _unknown_key(key, hints: Mapping, prefix: str, where: str) -> UserError:
    near = difflib.get_close_matches(str(key), hints, n=1)
    other = f"did you mean {prefix}{near[0]}?" if near else f"the keys are {', '.join(hints)}."
    name = key if one_line(str(key)) == key else quoted(key)
    remedy = old_forms.remedy(f"{prefix}{key}") or other
    return UserError(f"{where} has no key {prefix}{name}; {remedy}")


def _value(hint, value, key: str):
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        converted = _convert(option, value)
        if converted is not _WRONG:
            return converted
    names = " or ".join(_NAMES[option] for option in options)
    raise UserError(f"{key} = {quoted(value)} is not possible: it must be {names}.")


_WRONG = object()
_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    dict: "a section",
    tuple[str, ...]: "a list of names",
}


def _convert(option, value):
    if option is float:
        return _number(value)
    if option is dict:
        return dict(value) if isinstance(value, Mapping) else _WRONG
    if option == tuple[str, ...]:
        names = [value] if isinstance(value, str) else value
        right = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
        return tuple(names) if right else _WRONG
    if option is int:  # no bool, which is an int too
        return value if type(value) is int and abs(value) < LARGEST else _WRONG
    return value if isinstance(value, option) else _WRONG


def _number(value):
    # YAML 1.1 reads 5e-5 as text; a user who writes it means the number.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return _WRONG
    try:
        return number if math.isfinite(number := float(value)) else _WRONG
    except (ValueError, OverflowError):
        return _WRONG


def tuples_to_lists(value):
    """Tuples as lists, as YAML and JSON hold them."""
    if isinstance(value, dict):
        return {key: tuples_to_lists(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
