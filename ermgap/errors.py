"""The two ways in which a run can end that are not bugs.

`UserError` is a mistake that a user can fix: one sentence that says what is wrong, where, and what
to do. Command lines print it as `error: ...`, without a traceback, and exit with status 2.
`RunFailed` is an outcome of training on which all workers agree (a non-finite loss, no cell with a
defined gap): the trial is recorded as failed and the worker group goes on to the next one.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(10), *range(11, 32), *range(127, 160))}


class UserError(Exception):
    """A mistake that the user can fix; the message is one sentence: what, where, what to do."""


class RunFailed(Exception):
    """A trial that cannot be trained further; the message is the recorded reason."""


def missing_extra(extra: str, problem: ImportError) -> UserError:
    """The error for a package that is absent, to be installed with an extra of pyproject.toml."""
    return UserError(
        f"the package {problem.name} is not installed; run pip install 'ermgap[{extra}]'."
    )


def first_line(problem: Exception) -> str:
    """The first line of an exception's message, or its type where it has none."""
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__


@contextmanager
def as_user_error(fault: str, remedy: str) -> Iterator[None]:
    """Turns an `OSError` of the block into a `UserError`: the fault, its reason, the remedy."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or first_line(problem)
        raise UserError(f"{fault} ({reason}); {remedy}.") from problem


def printable(text: str) -> str:
    """`text` with control characters escaped: a file's name must not control the terminal."""
    return text.translate(_CONTROLS)


def in_shell(value: object) -> str:
    """`value` quoted for a shell, so that a printed command can be pasted."""
    return shlex.quote(str(value))


def command_line(main: Callable[[], int | None]) -> None:
    """Run `main` and exit with its status; a `UserError` is one line on stderr and status 2.

    A character that the terminal's encoding lacks is printed escaped (`\\u60b2`), not raised.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main()
    except UserError as mistake:
        print(f"error: {printable(str(mistake))}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.exit(status or 0)
