"""Registries: the names that a user can write for a loss, a corpus, a backbone and so on.

Everything that can be extended is a `Registry`: an addition is one file and one line, in this
package or in a module that the configuration names under `plugins`.
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
    """A dict from name to object whose `find` raises a UserError for an unknown name.

    >>> LOSSES = Registry("loss")
    >>> LOSSES["erm"] = object
    >>> LOSSES.find("erm") is object
    True
    """

    all: list[Registry] = []

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.plugin_of: dict[str, str] = {}  # names that plugins registered
        self.all.append(self)

    def find(self, name: str):
        """The object called `name`; raises UserError with the nearest name otherwise."""
        if name in self:
            return self[name]
        near = difflib.get_close_matches(str(name), list(self), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(self))}."
        raise UserError(f"there is no {self.kind} called {name!r}; {hint}")


def load_plugins(plugins: Sequence[str]) -> None:
    """Import each plugin, a module name or the path of a .py file, so that it can register names.

    Called by the driver and by every worker, since each process has its own registries. Files of
    the same name in two folders are two plugins; a file that is named twice is imported once.

    A plugin may replace what this package registers, but not what another plugin registers: that
    would depend on their order. UserError for that, and for a plugin that cannot be imported.
    """
    for plugin in plugins:
        try:
            if plugin.endswith(".py"):
                _import_file(Path(plugin))
            else:
                _register(plugin, lambda name=plugin: importlib.import_module(name))
        except (ImportError, OSError, SyntaxError, ValueError) as problem:
            raise UserError(
                f"the plugin {plugin!r} cannot be imported ({problem}); "
                "name a module on PYTHONPATH or the path of a .py file."
            ) from problem


def _register(plugin: str, load: Callable[[], object]) -> None:
    """Call `load`, which imports a plugin; undo what it registered where that is a mistake."""
    before = [(registry, dict(registry), dict(registry.plugin_of)) for registry in Registry.all]
    try:
        load()
        for registry, names, _ in before:
            for name in [name for name in registry if registry[name] is not names.get(name)]:
                if (owner := registry.plugin_of.setdefault(name, plugin)) != plugin:
                    raise UserError(
                        f"the plugins {owner!r} and {plugin!r} both register "
                        f"the {registry.kind} {name!r}; rename it in one of them."
                    )
    except BaseException:
        for registry, names, plugin_of in before:
            registry.clear()
            registry.update(names)
            registry.plugin_of = plugin_of
        raise


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
        _register(str(path), lambda: spec.loader.exec_module(module))
    except BaseException:
        del sys.modules[name]  # the next attempt must not take it for loaded
        raise
