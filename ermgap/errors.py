"""The two ways a run can end that are not bugs.

`UserError` is a mistake that a user can mend: one sentence that says what is wrong, where, and what
to do. Command lines print it as `error: ...` and exit with status 2; it never shows a traceback.
`RunFailed` is an outcome of training on which all workers agree (a non-finite loss, no cell with a
defined gap): the configuration is recorded as failed and the worker group goes on to the next one.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(10), *range(11, 32), *range(127, 160))}


class UserError(Exception):
    """A mistake in what the user gave; the message is one sentence with its remedy."""


class RunFailed(Exception):
    """A configuration that cannot be trained further; the message is the recorded reason."""


def missing_extra(extra: str, problem: ImportError) -> UserError:
    """The error for a package that is absent, to be installed with an extra of pyproject.toml."""
    return UserError(
        f"the package {problem.name} is not installed; run pip install 'ermgap[{extra}]'."
    )


def first_line(problem: Exception) -> str:
    """The first line of an exception's message, or its type where it has none."""
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__


def printable(text: str) -> str:
    """`text` without what steers a terminal, such as an escape sequence in the name of a file."""
    return text.translate(_CONTROLS)


def in_shell(value: object) -> str:
    """`value` as one word of a command that a user may paste into a shell."""
    return shlex.quote(str(value))


def command_line(main: Callable[[], int | None]) -> None:
    """Run `main` as a command: `UserError` becomes one line on stderr and exit status 2.

    What the terminal's encoding lacks is printed escaped (`\\u60b2`), and ends no run.
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
