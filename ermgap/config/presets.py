"""The configuration of a run or a sweep, read from a preset (YAML) and `--set section.key=value`.

config = load(Path("sweeps/presets/demo.yaml"), ["train.epochs=3"])
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ermgap.config import safe_yaml
from ermgap.config.parsing import build, put, tuples_to_lists
from ermgap.config.safe_yaml import one_line
from ermgap.config.schema import Adapter, Backbone, Data, Objective, Sweep, Train
from ermgap.config.user_paths import make_absolute
from ermgap.errors import UserError


@dataclass(frozen=True)
class Config:
    """Everything that defines a run or a sweep."""

    data: Data = field(default_factory=Data)
    backbone: Backbone = field(default_factory=Backbone)
    adapter: Adapter = field(default_factory=Adapter)
    objective: Objective = field(default_factory=Objective)
    train: Train = field(default_factory=Train)
    sweep: Sweep = field(default_factory=Sweep)
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        train, workers = self.train, self.sweep.workers
        if train.parallel != "fsdp":
            return
        remedy = "it shards over the workers of a slot, so set sweep.workers to 2 or more"
        train.refuse(workers < 2, "parallel", remedy)
        # Workers that share weights make equally many passes, each of them over something.
        remedy = "fsdp needs two utterances a worker in every batch"
        train.refuse(train.batch < 2 * workers, "batch", remedy)
        remedy = "fsdp needs micro-batches of 2 or more"
        train.refuse(train.micro_batch == 1, "micro_batch", remedy)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that are read: those of the report and that of the objective."""
        return tuple(dict.fromkeys((*self.data.attributes, *self.objective.attribute)))

    @property
    def compared(self) -> dict[str, object]:
        """Whose gaps are measured and what that needs, as `ermgap.metrics.evaluate` takes it."""
        return {"attribute": self.objective.attribute} | self.data.support

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs after which early stopping compares trials: `stop_after` * `stop_factor`^k."""
        rungs, epoch = [], self.sweep.stop_after or self.train.epochs
        while epoch < self.train.epochs:
            rungs.append(epoch)
            epoch *= self.sweep.stop_factor
        return tuple(rungs)

    def to_dict(self) -> dict:
        """Nested dict of plain values, as YAML holds it."""
        return tuples_to_lists(dataclasses.asdict(self))

    def replace(self, changes: Mapping[str, object]) -> Config:
        """A copy with dotted keys changed, such as `{"train.lr": 1e-3}`; UserError as above."""
        values = self.to_dict()
        for key, value in changes.items():
            put(values, key, value)
        return from_dict(values)


def from_dict(values: Mapping, *, where: str = "the configuration") -> Config:
    """Build a Config from nested plain values; UserError names an unknown key or a wrong type."""
    return build(Config, values, "", where)


def load(path: Path, settings: Sequence[str] = ()) -> Config:
    """Read a YAML preset and apply `key=value` settings; UserError names the file and the key.

    `extends: [a, b]` in it takes the presets a and b of the same folder first; later ones and the
    file itself win, key by key. A relative path in the preset is relative to the preset, one in a
    setting to the working directory; both are absolute from here on.
    """
    values = _read(Path(path))
    make_absolute(values, base=Path(path).parent)
    apply_settings(values, settings)
    make_absolute(values, base=Path.cwd())
    return from_dict(values, where=str(path))


def _read(path: Path, *, within: tuple[Path, ...] = ()) -> dict:
    try:
        with open(path, encoding="utf-8") as file:
            values = safe_yaml.read(file.read(safe_yaml.LONGEST + 1)) or {}
    except (OSError, ValueError) as problem:  # ValueError: no UTF-8, or a NUL in the name
        raise UserError(
            f"the preset {path} cannot be read ({problem}); check its name."
        ) from problem
    except yaml.YAMLError as problem:
        line = one_line(str(problem))
        raise UserError(f"the preset {path} is not valid YAML ({line}); fix it.") from problem
    if not isinstance(values, dict):
        raise UserError(f"the preset {path} holds no sections; write 'train:' and so on in it.")
    names = values.pop("extends", None) or []
    names = [names] if isinstance(names, str) else names
    if path in within or not _are_presets(names):
        raise UserError(f"{path} extends itself or no preset's name; write extends: [small].")
    whole: dict = {}
    for name in names:
        _merge(whole, _read(path.with_name(f"{name}.yaml"), within=(*within, path)))
    _merge(whole, values)
    return whole


def _are_presets(names) -> bool:
    """Whether it is a list of names, each once, that stay in the preset's folder."""
    return (
        isinstance(names, (list, dict))
        and all(isinstance(name, str) and re.fullmatch(r"\w[\w .-]*", name) for name in names)
        and len(set(names)) == len(names)
    )


def _merge(into: dict, values: Mapping) -> None:
    """Put values into nested values, key by key, in place."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def apply_settings(values: dict, settings: Sequence[str], *, option: str = "--set ") -> None:
    """Put `section.key=value` settings into nested values; UserError quotes a malformed one."""
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise UserError(
                f"{option}{one_line(setting)} is not of the form section.key=value; write it so."
            )
        try:
            put(values, key.strip(), safe_yaml.read(text))
        except yaml.YAMLError as problem:
            raise UserError(
                f"{option}{one_line(setting)} has a value that is not YAML; quote it."
            ) from problem
