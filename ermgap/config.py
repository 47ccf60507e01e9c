"""One run and one sweep, as frozen dataclasses: every mistake is refused when they are made.

A preset is a YAML file of the same shape; `--set section.key=value` changes one value. `paper` in a
comment marks the value of arXiv 2603.21050.

    config = load(Path("sweeps/presets/demo.yaml"), ["train.epochs=3"])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ermgap.errors import UserError
from ermgap.parsing import build, put, untuple

MELD_LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
MODALITIES = ("speech", "speech+text")
WINDOWS = (2, 4, 6, 10, 30)
ESTIMATORS = ("batch", "ema", "unbiased")
OBJECTIVES = {
    "acc": "max",
    "w_f1": "max",
    "worst_group_w_f1": "max",
    "max_gap": "min",
    "max_loss_gap": "min",
}


def refuse(condition: bool, key: str, value, remedy: str) -> None:
    """Raise UserError naming the key and the value if `condition` holds."""
    if condition:
        raise UserError(f"{key} = {value!r} is refused: {remedy}.")


@dataclass(frozen=True)
class Data:
    """Which utterances, and how they are split."""

    corpora: tuple[str, ...] = ("demo",)
    labels: tuple[str, ...] = MELD_LABELS
    modalities: tuple[str, ...] = ("speech",)
    genders: str | None = None  # a CSV of speakers and genders instead of the corpus's own
    strict: bool = False
    folds: int = 4
    fold: int = 0
    split_seed: int = 0
    min_support: int = 5
    limit: int | None = None  # clips at most, for --smoke-test

    def __post_init__(self) -> None:
        refuse(not self.corpora, "data.corpora", self.corpora, "name at least one corpus")
        refuse(
            len(set(self.labels)) < 2, "data.labels", self.labels, "two labels or more are needed"
        )
        refuse(
            len(set(self.labels)) < len(self.labels),
            "data.labels",
            self.labels,
            "each is named once",
        )
        refuse(self.folds < 2, "data.folds", self.folds, "two folds or more are needed")
        refuse(
            not 0 <= self.fold < self.folds, "data.fold", self.fold, "it counts from 0 to folds - 1"
        )
        refuse(self.min_support < 1, "data.min_support", self.min_support, "it is at least 1")
        refuse(self.split_seed < 0, "data.split_seed", self.split_seed, "it is 0 or more")
        refuse(
            self.limit is not None and self.limit < 1, "data.limit", self.limit, "it is at least 1"
        )
        refuse(
            not self.modalities or len(set(self.modalities)) < len(self.modalities),
            "data.modalities",
            self.modalities,
            "name each once, such as [speech, speech+text]",
        )
        for name in self.modalities:
            refuse(name not in MODALITIES, "data.modalities", name, f"choose from {MODALITIES}")


@dataclass(frozen=True)
class Backbone:
    """The pretrained speech language model; the audio tower stays frozen."""

    name: str = "small"
    layers: int = 2  # decoder layers kept (small); ignored by qwen2-audio-7b
    window_s: int = 4
    dtype: str = "auto"  # bfloat16 on a GPU that has it and a CPU with AMX, else float32
    path: str | None = None
    revision: str | None = None
    prompt: str = "short"

    def __post_init__(self) -> None:
        refuse(self.layers < 1, "backbone.layers", self.layers, "at least one layer is needed")
        refuse(
            self.window_s not in WINDOWS,
            "backbone.window_s",
            self.window_s,
            f"choose one of {WINDOWS}",
        )
        kinds = ("auto", "float32", "bfloat16", "float64")
        refuse(self.dtype not in kinds, "backbone.dtype", self.dtype, f"choose one of {kinds}")


@dataclass(frozen=True)
class Adapter:
    """LoRA on the decoder, and the projector."""

    r: int = 16  # paper
    alpha: int | None = None  # None: 2 r, the paper's ratio (32 at r = 16)
    dropout: float = 0.05  # paper
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    train_projector: bool = True

    def __post_init__(self) -> None:
        refuse(self.r < 1, "adapter.r", self.r, "the rank is at least 1")
        refuse(
            self.alpha is not None and self.alpha < 1,
            "adapter.alpha",
            self.alpha,
            "it is at least 1",
        )
        refuse(
            not 0 <= self.dropout < 1,
            "adapter.dropout",
            self.dropout,
            "it is at least 0 and below 1",
        )
        refuse(not self.targets, "adapter.targets", self.targets, "name at least one module")


@dataclass(frozen=True)
class Objective:
    """`ERM + lambda * penalty`; see ermgap/objective for the formulas."""

    loss: str = "erm"
    p: float = 2.0  # paper
    estimator: str = "batch"  # paper; of the largest gap, from a batch
    relative: bool = False  # the penalty in units of the mean loss
    ema: float = 0.9  # share of the running group sums that a step keeps
    dro_eta: float = 0.01  # step size of GroupDRO's group weights
    dro_c: float = 0.0  # GroupDRO's C, in C / sqrt(n)
    weight: str = "constant"
    lambda_max: float = 10.0  # paper
    lambda_0: float = 0.0
    start: float = 0.0
    ramp: float = 1.0
    eta: float = 1.0
    epsilon: float = 0.02  # paper
    gap: str = "max_gap"
    every: int = 1  # evaluations between two updates of an adaptive weight
    loss_over: str = "labels"

    def __post_init__(self) -> None:
        refuse(self.p < 1, "objective.p", self.p, "the exponent is at least 1")
        refuse(
            self.estimator not in ESTIMATORS,
            "objective.estimator",
            self.estimator,
            f"choose one of {ESTIMATORS}",
        )
        refuse(
            self.estimator == "unbiased" and self.p != 2,
            "objective.p",
            self.p,
            "the unbiased estimator is of the squared gap, so write p: 2",
        )
        refuse(not 0 <= self.ema < 1, "objective.ema", self.ema, "it is at least 0 and below 1")
        refuse(self.dro_eta <= 0, "objective.dro_eta", self.dro_eta, "the step size is positive")
        refuse(self.dro_c < 0, "objective.dro_c", self.dro_c, "it cannot be negative")
        refuse(
            self.lambda_max < 0, "objective.lambda_max", self.lambda_max, "it cannot be negative"
        )
        refuse(
            not 0 <= self.lambda_0 <= self.lambda_max,
            "objective.lambda_0",
            self.lambda_0,
            "it lies between 0 and lambda_max",
        )
        refuse(
            not 0 <= self.start <= 1,
            "objective.start",
            self.start,
            "it is a share of training, 0 to 1",
        )
        refuse(
            not 0 < self.ramp <= 1,
            "objective.ramp",
            self.ramp,
            "it is a share of training above 0, up to 1",
        )
        refuse(self.eta <= 0, "objective.eta", self.eta, "the step size is positive")
        refuse(
            self.epsilon < 0, "objective.epsilon", self.epsilon, "a tolerated gap is not negative"
        )
        refuse(self.every < 1, "objective.every", self.every, "it is at least 1")
        refuse(
            self.gap not in ("max_gap", "loss"), "objective.gap", self.gap, "choose max_gap or loss"
        )
        refuse(
            self.loss_over not in ("labels", "answer"),
            "objective.loss_over",
            self.loss_over,
            "choose labels or answer",
        )


@dataclass(frozen=True)
class Train:
    """Optimisation of one configuration."""

    epochs: int = 6
    batch: int = 32  # utterances over all workers
    micro_batch: int | None = None  # utterances a worker holds at once; None: its whole share
    eval_batch: int = 64
    recompute: bool = False  # activations anew in the backward pass: less memory, a third slower
    parallel: str = "ddp"  # fsdp: each worker holds a share of the frozen decoder
    lr: float = 3e-3
    weight_decay: float = 0.01  # paper
    warmup: float = 0.1  # share of the steps
    clip_norm: float = 1.0
    patience: int = 5  # paper; evaluations without a better dev value of `select`
    select: str = "w_f1"
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("epochs", "batch", "eval_batch", "patience"):
            refuse(getattr(self, key) < 1, f"train.{key}", getattr(self, key), "it is at least 1")
        refuse(
            self.micro_batch is not None and self.micro_batch < 1,
            "train.micro_batch",
            self.micro_batch,
            "it is at least 1",
        )
        kinds = ("ddp", "fsdp")
        refuse(
            self.parallel not in kinds, "train.parallel", self.parallel, f"choose one of {kinds}"
        )
        refuse(self.lr <= 0, "train.lr", self.lr, "the learning rate is positive")
        refuse(
            self.weight_decay < 0, "train.weight_decay", self.weight_decay, "it cannot be negative"
        )
        refuse(
            not 0 <= self.warmup < 1,
            "train.warmup",
            self.warmup,
            "it is a share of training below 1",
        )
        refuse(self.clip_norm <= 0, "train.clip_norm", self.clip_norm, "the norm is positive")
        refuse(self.seed < 0, "train.seed", self.seed, "it is 0 or more")
        rules = ("w_f1", "acc", "worst_group_w_f1", "last")
        refuse(self.select not in rules, "train.select", self.select, f"choose one of {rules}")


@dataclass(frozen=True)
class Sweep:
    """How the space is searched, and on what."""

    trials: int = 10
    objectives: tuple[str, ...] = ("acc", "max_gap")
    sampler: str = "tpe"
    seed: int = 0
    floor: float | None = None  # dev W-F1 under which a point is degenerate; None: half of ERM's
    erm_share: float = 0.2  # of the trials that are ERM, tuned like the rest
    attempts: int = 2
    slots: int | None = None  # worker groups; None: as many as the machine carries
    workers: int = 1  # workers in a group
    gang: int = 1  # configurations that a group trains in the same passes
    device: str = "auto"  # gpu: ask a cluster for GPUs, even if none has started yet
    space: dict = field(default_factory=dict)  # hyperparameter -> its range, instead of the default
    points: dict = field(default_factory=dict)  # name -> hyperparameters: these alone, no search

    def __post_init__(self) -> None:
        refuse(self.trials < 1, "sweep.trials", self.trials, "at least one trial is needed")
        refuse(
            not 2 <= len(self.objectives) <= 3,
            "sweep.objectives",
            self.objectives,
            "name two or three objectives",
        )
        refuse(
            len(set(self.objectives)) < len(self.objectives),
            "sweep.objectives",
            self.objectives,
            "each is named once",
        )
        for name in self.objectives:
            refuse(
                name not in OBJECTIVES,
                "sweep.objectives",
                name,
                f"choose from {', '.join(OBJECTIVES)}",
            )
        refuse(
            not 0 <= self.erm_share <= 1, "sweep.erm_share", self.erm_share, "it is a share, 0 to 1"
        )
        refuse(self.seed < 0, "sweep.seed", self.seed, "it is 0 or more")
        refuse(
            self.floor is not None and not 0 <= self.floor <= 1,
            "sweep.floor",
            self.floor,
            "it is a W-F1 between 0 and 1",
        )
        for name, point in self.points.items():
            refuse(
                not isinstance(point, dict),
                f"sweep.points.{name}",
                point,
                "write its hyperparameters, such as {loss: minmaxgap, lambda_max: 1}",
            )
        kinds = ("auto", "cpu", "gpu")
        refuse(self.device not in kinds, "sweep.device", self.device, f"choose one of {kinds}")
        refuse(self.attempts < 1, "sweep.attempts", self.attempts, "it is at least 1")
        refuse(self.workers < 1, "sweep.workers", self.workers, "it is at least 1")
        refuse(self.gang < 1, "sweep.gang", self.gang, "it is at least 1")
        refuse(
            self.slots is not None and self.slots < 1, "sweep.slots", self.slots, "it is at least 1"
        )


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
        refuse(
            self.train.parallel == "fsdp" and self.sweep.workers < 2,
            "train.parallel",
            self.train.parallel,
            "it shards over the workers of a slot, so set sweep.workers to 2 or more",
        )
        # Workers that share weights make equally many passes, each of them over something.
        refuse(
            self.train.parallel == "fsdp" and self.train.batch < 2 * self.sweep.workers,
            "train.batch",
            self.train.batch,
            "fsdp needs two utterances a worker in every batch",
        )
        refuse(
            self.train.parallel == "fsdp" and self.train.micro_batch == 1,
            "train.micro_batch",
            1,
            "fsdp needs micro-batches of 2 or more",
        )

    def to_dict(self) -> dict:
        """Nested dict of plain values, as YAML holds it."""
        return untuple(dataclasses.asdict(self))

    def replace(self, changes: Mapping[str, object]) -> Config:
        """A copy with dotted keys changed, such as `{"train.lr": 1e-3}`; UserError as above."""
        values = self.to_dict()
        for key, value in changes.items():
            put(values, key, value)
        return from_dict(values)


OWN = {  # what the members of a gang may differ in; all else decides the passes that they share
    "adapter": ("r", "alpha", "dropout"),
    "objective": ("loss", "p", "estimator", "relative", "ema", "dro_eta", "dro_c", "weight")
    + ("lambda_max", "lambda_0", "start", "ramp", "eta", "epsilon", "gap", "every"),
    "train": ("lr", "weight_decay", "warmup", "clip_norm", "patience", "select"),
}


def companions(first: Config, second: Config) -> bool:
    """Whether two configurations can be trained in the same passes."""
    left, right = first.to_dict(), second.to_dict()
    for values in (left, right):
        for section, keys in OWN.items():
            for key in keys:
                values[section].pop(key, None)
    return left == right


def from_dict(values: Mapping, *, where: str = "the configuration") -> Config:
    """Build a Config from nested plain values; UserError names an unknown key or a wrong type."""
    return build(Config, values, "", where)


def load(path: Path, settings: Sequence[str] = ()) -> Config:
    """Read a YAML preset and apply `key=value` settings; UserError names the file and the key.

    `extends: [a, b]` in it takes the presets a and b of the same folder first; later ones and the
    file itself win, key by key.
    """
    values = _read(Path(path))
    assign(values, settings)
    return from_dict(values, where=str(path))


def _read(path: Path, *, within: tuple[Path, ...] = ()) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(
            f"the preset {path} cannot be read ({problem}); check its name."
        ) from problem
    except (yaml.YAMLError, ValueError) as problem:  # ValueError: a date such as 2020-13-45
        line = " ".join(str(problem).split())
        raise UserError(f"the preset {path} is not valid YAML ({line}); mend it.") from problem
    if not isinstance(values, dict):
        raise UserError(f"the preset {path} holds no sections; write 'train:' and so on in it.")
    names = values.pop("extends", None) or []
    names = [names] if isinstance(names, str) else names
    if path in within or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} extends itself or no preset's name; write extends: [small].")
    whole: dict = {}
    for name in names:
        _merge(whole, _read(path.with_name(f"{name}.yaml"), within=(*within, path)))
    _merge(whole, values)
    return whole


def _merge(into: dict, values: Mapping) -> None:
    """Put values into nested values, key by key, in place."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def assign(values: dict, settings: Sequence[str], *, option: str = "--set ") -> None:
    """Put `section.key=value` settings into nested values; UserError quotes a malformed one."""
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise UserError(f"{option}{setting} is not of the form section.key=value; write it so.")
        try:
            put(values, key.strip(), yaml.safe_load(text))
        except (yaml.YAMLError, ValueError) as problem:
            raise UserError(
                f"{option}{setting} has a value that is not YAML; quote it."
            ) from problem
