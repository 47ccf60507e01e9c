"""Names a user can write, and what they stand for.

Everything that can be extended (corpora, backbones, losses, weights, hyperparameters) is a
`Registry`: adding one is one file and one line, from this package or from a module that the
configuration names under `plugins`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from ermgap.errors import UserError


class Registry(dict):
    """A dict from name to object whose `find` refuses an unknown name in the user's words.

    >>> LOSSES = Registry("loss")
    >>> LOSSES["erm"] = object
    >>> LOSSES.find("erm") is object
    True
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def find(self, name: str):
        """The object called `name`; raises UserError with the nearest names otherwise."""
        if name in self:
            return self[name]
        near = difflib.get_close_matches(str(name), list(self), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(self))}."
        raise UserError(f"there is no {self.kind} called {name!r}; {hint}")


def load_plugins(plugins: Sequence[str]) -> None:
    """Import each plugin, a module name or the path of a .py file, so that it can register names.

    Called by the driver and by every worker, since a registry lives in one process.
    Raises UserError for a plugin that does not exist or does not import.
    """
    for plugin in plugins:
        try:
            _import_file(Path(plugin)) if plugin.endswith(".py") else importlib.import_module(
                plugin
            )
        except (ImportError, OSError, SyntaxError, ValueError) as problem:
            raise UserError(
                f"the plugin {plugin!r} cannot be imported ({problem}); "
                "name a module on PYTHONPATH or the path of a .py file."
            ) from problem


def _import_file(path: Path) -> None:
    name = f"ermgap_plugin_{path.stem}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # the next attempt must not take it for loaded
        raise
