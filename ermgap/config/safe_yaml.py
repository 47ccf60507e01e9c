"""A reader of YAML that cannot be trusted, and values as they are quoted in a message.

    values = read(text)              # None, numbers, texts, lists, dicts; yaml.YAMLError otherwise
    f"train.lr = {quoted(value)}"     # one line, however large the value is

PyYAML's safe loader builds no objects, but a file of a hundred bytes can still name one list a
billion times (aliases), nest until the interpreter's stack ends, or raise whatever `int` raises.
"""

from __future__ import annotations

import reprlib

import yaml

LONGEST = 1 << 20  # characters; a preset has 1,000 and the sweep.yaml of a sweep 3,000
DEEPEST = 30
DIGITS = 40  # `1:00:00:...` is a number too, read in time that grows with its length squared
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """The safe loader without aliases, deep nesting and endless numbers."""

    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _problem("an alias (*) is not read here, so write the value out", event)
        if self.depth == DEEPEST:
            raise _problem(f"it is nested deeper than {DEEPEST} levels", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag in _NUMBERS and len(node.value) > DIGITS:
            raise _problem(f"a number has more than {DIGITS} digits", event)
        return node


def _problem(message: str, event: yaml.Event) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, message, event.start_mark)


def read(text: str):
    """The values of a YAML text; yaml.YAMLError for whatever is wrong with it."""
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"it is longer than {LONGEST:,} characters")
    try:
        return yaml.load(text, _Loader)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
        # Of the constructors: a date such as 2020-13-45, `!!bool maybe`, `!!timestamp soon`.
        raise yaml.YAMLError(f"a value is not of its kind: {problem}") from problem


def one_line(text: str, *, longest: int = 200) -> str:
    """`text` on one line of at most `longest` characters, all of them printable."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * longest])
    line = " ".join(printable.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlist = self.maxtuple = self.maxdict = 20

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write out whole numbers of more than 4,300 digits.
        return repr(value) if abs(value) < 10**DIGITS else f"a number of {value.bit_length()} bits"


def quoted(value) -> str:
    """`repr(value)` for a sentence: on one line, long values without their middle."""
    return one_line(_Short().repr(value), longest=400)
