"""Names a user can write, and what they stand for.

Everything that can be extended (corpora, backbones, losses, weights, hyperparameters) is a
`Registry`: adding one is one file and one line, from this package or from a module that the
configuration names under `plugins`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ermgap.errors import UserError


class Registry(dict):
    """A dict from name to object whose `find` refuses an unknown name in the user's words.

    >>> LOSSES = Registry("loss")
    >>> LOSSES["erm"] = object
    >>> LOSSES.find("erm") is object
    True
    """

    every: list[Registry] = []

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.plugin_of: dict[str, str] = {}  # names that plugins registered
        self.every.append(self)

    def find(self, name: str):
        """The object called `name`; raises UserError with the nearest names otherwise."""
        if name in self:
            return self[name]
        near = difflib.get_close_matches(str(name), list(self), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(self))}."
        raise UserError(f"there is no {self.kind} called {name!r}; {hint}")


def load_plugins(plugins: Sequence[str]) -> None:
    """Import each plugin, a module name or the path of a .py file, so that it can register names.

    Called by the driver and by every worker, since a registry lives in one process. Files of one
    name in two folders are two plugins; a file that is named twice is imported once.

    A plugin may replace what this package registers, but not what another plugin does: that would
    depend on their order. Raises UserError for that, and for a plugin that does not exist or does
    not import.
    """
    for plugin in plugins:
        try:
            if plugin.endswith(".py"):
                _import_file(Path(plugin))
            else:
                _keeping_names(plugin, lambda name=plugin: importlib.import_module(name))
        except (ImportError, OSError, SyntaxError, ValueError) as problem:
            raise UserError(
                f"the plugin {plugin!r} cannot be imported ({problem}); "
                "name a module on PYTHONPATH or the path of a .py file."
            ) from problem


def _keeping_names(plugin: str, load: Callable[[], object]) -> None:
    """`load`; where that fails, or takes another plugin's name, every registry is as before."""
    before = [(registry, dict(registry)) for registry in Registry.every]
    try:
        load()
        changed = [
            (registry, name)
            for registry, names in before
            for name in registry
            if registry[name] is not names.get(name)
        ]
        for registry, name in changed:
            if registry.plugin_of.get(name, plugin) != plugin:
                raise UserError(
                    f"the plugins {registry.plugin_of[name]!r} and {plugin!r} both register "
                    f"the {registry.kind} {name!r}; rename it in one of them."
                )
    except BaseException:
        for registry, names in before:
            registry.clear()
            registry.update(names)
        raise
    for registry, name in changed:
        registry.plugin_of[name] = plugin


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    path = path.resolve()
    # The stem is for tracebacks; plugins of two people may have the same one.
    name = f"ermgap_plugin_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:12]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        _keeping_names(str(path), lambda: spec.loader.exec_module(module))
    except BaseException:
        del sys.modules[name]  # the next attempt must not take it for loaded
        raise
