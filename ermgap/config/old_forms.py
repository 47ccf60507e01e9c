"""Keys of earlier versions: read in the records of a sweep, an error in a new preset or --set."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED = {"objective.weight": "objective.schedule"}
REMOVED = {
    "sweep.gang": "several trials are no longer trained in the same passes; "
    "remove it, and set sweep.slots for more trials at a time"
}
HYPERPARAMETERS = {"weight": "schedule"}  # in a space, in points and in the rows of trials


def remedy(key: str) -> str | None:
    """What to write instead of the dotted `key`, if an earlier version had it."""
    if key in RENAMED:
        return f"it is called {RENAMED[key]} now."
    return f"{REMOVED[key]}." if key in REMOVED else None


def current_hyperparameters(values: Mapping) -> dict:
    """A trial's hyperparameters under their present names, in the same order."""
    return {HYPERPARAMETERS.get(name, name): value for name, value in values.items()}


def current_config(values: Mapping) -> dict:
    """A configuration that an earlier version may have written, with the present keys."""
    renamed = {}
    for section, content in values.items():
        if isinstance(content, Mapping):
            content = {
                RENAMED.get(f"{section}.{key}", f"{section}.{key}").split(".", 1)[1]: value
                for key, value in content.items()
                if f"{section}.{key}" not in REMOVED
            }
        renamed[section] = content
    if isinstance(sweep := renamed.get("sweep"), dict):
        if isinstance(space := sweep.get("space"), Mapping):
            sweep["space"] = current_hyperparameters(space)
        if isinstance(points := sweep.get("points"), Mapping):
            sweep["points"] = {
                name: current_hyperparameters(point) if isinstance(point, Mapping) else point
                for name, point in points.items()
            }
    return renamed
