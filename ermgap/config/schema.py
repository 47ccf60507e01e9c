"""The sections of a configuration: their keys, defaults and permitted values.

`paper` in a comment marks the value of arXiv 2603.21050. A section checks itself when it is made
and raises UserError, which names the dotted key, the value and the remedy.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from ermgap.config import old_forms
from ermgap.config.losses import SIDES
from ermgap.config.metrics_table import METRICS
from ermgap.config.safe_yaml import one_line, quoted
from ermgap.config.vocabulary import (
    GENDER,
    MELD_LABELS,
    MODALITIES,
    NO_ATTRIBUTES,
    PROVENANCES,
)
from ermgap.errors import UserError

WINDOWS = (2, 4, 6, 10, 30)


_OF_THE_KEY = object()


class Section:
    """Checks of a section's values; its name in a preset is that of its class."""

    def refuse(self, wrong: bool, key: str, remedy: str, value=_OF_THE_KEY) -> None:
        """Raise UserError if `wrong` holds; `value` where only a part of the key's is wrong."""
        if wrong:
            value = getattr(self, key) if value is _OF_THE_KEY else value
            name = f"{type(self).__name__.lower()}.{one_line(key)}"
            raise UserError(f"{name} = {quoted(value)} is not possible: {remedy}.")

    def at_least(self, least: int, *keys: str) -> None:
        """Refuse those of `keys` that are less; None passes."""
        for key in keys:
            value = getattr(self, key)
            self.refuse(value is not None and value < least, key, f"it is {least} or more")

    def above_zero(self, *keys: str) -> None:
        """Refuse those of `keys` that are 0 or less."""
        for key in keys:
            self.refuse(getattr(self, key) <= 0, key, "it is above 0")

    def one_of(self, key: str, choices: tuple) -> None:
        """Refuse `key` if its value is none of the choices."""
        remedy = f"choose one of {', '.join(map(str, choices))}"
        self.refuse(getattr(self, key) not in choices, key, remedy)


def _refuse_attributes(section: Section, key: str) -> None:
    """Refuse names of attributes that no column may have."""
    names = getattr(section, key)
    section.refuse(not names, key, "name at least one, such as gender")
    section.refuse(len(set(names)) < len(names), key, "each is named once")
    for name in names:
        remedy = "that column holds something else; rename yours, such as to speaker_age"
        section.refuse(name in NO_ATTRIBUTES or name.startswith("logp_"), key, remedy, value=name)
        remedy = "a name has letters, digits, blanks, dots, hyphens or underscores"
        section.refuse(not re.fullmatch(r"\w[\w .-]*", name), key, remedy, value=name)


@dataclass(frozen=True)
class Data(Section):
    """Which utterances, and how they are split."""

    corpora: tuple[str, ...] = ("demo",)
    labels: tuple[str, ...] = MELD_LABELS
    emotions: dict = field(default_factory=dict)  # a corpus's emotion -> its label, null: excluded
    modalities: tuple[str, ...] = ("speech",)
    attributes: tuple[str, ...] = (GENDER,)  # columns of groups of people, for the report
    provenance: dict = field(default_factory=dict)  # an attribute -> one of PROVENANCES
    unknown: str = "keep"  # drop: exclude utterances whose `objective.attribute` is not known
    genders: str | None = None  # a CSV of speakers and genders instead of the corpus's own
    strict: bool = False
    outside: bool = False  # whether a manifest may name clips that are not below its folder
    folds: int = 4
    fold: int = 0
    test: bool = False  # whether another fold is test, of corpora without a split of their own
    split_seed: int = 0
    min_support: int = 5  # utterances of a side that a class needs for TPR and FPR gaps
    cell_support: int | None = None  # and a side, to be compared in a cell; None: twice min_support
    speaker_support: int = 1  # speakers of a side that it needs to be compared in a cell
    limit: int | None = None  # clips at most, for --smoke-test

    def __post_init__(self) -> None:
        self.refuse(not self.corpora, "corpora", "name at least one corpus")
        self.refuse(len(set(self.labels)) < 2, "labels", "two labels or more are needed")
        self.refuse(len(set(self.labels)) < len(self.labels), "labels", "each is named once")
        for label in self.labels:  # it stands in the prompt, where markup would be a token
            marked = bool(set("<>{}|") & set(label)) or not label.strip()
            self.refuse(marked, "labels", "a label is a word, without any of < > { } |", label)
        for emotion, label in self.emotions.items():
            key, names = f"emotions.{emotion}", ", ".join(self.labels)
            self.refuse(not isinstance(emotion, str), key, "write the word between quotes", label)
            wrong = label is not None and label not in self.labels
            self.refuse(wrong, key, f"choose one of data.labels ({names}), or null", label)
        self.refuse(self.folds < 2, "folds", "two folds or more are needed")
        self.refuse(self.test and self.folds < 3, "folds", "with data.test there are three or more")
        self.refuse(not 0 <= self.fold < self.folds, "fold", "it counts from 0 to folds - 1")
        self.at_least(1, "min_support", "cell_support", "speaker_support", "limit")
        _refuse_attributes(self, "attributes")
        for name, where in self.provenance.items():
            remedy = f"choose one of {', '.join(PROVENANCES)}"
            self.refuse(where not in PROVENANCES, f"provenance.{name}", remedy, value=where)
        self.one_of("unknown", ("keep", "drop"))
        self.at_least(0, "split_seed")
        repeated = len(set(self.modalities)) < len(self.modalities)
        remedy = "name each once, such as [speech, speech+text]"
        self.refuse(not self.modalities or repeated, "modalities", remedy)
        for name in self.modalities:
            remedy = f"choose from {MODALITIES}"
            self.refuse(name not in MODALITIES, "modalities", remedy, value=name)

    @property
    def support(self) -> dict[str, int | None]:
        """What a side needs to be compared, as `ermgap.metrics` takes it."""
        names = ("min_support", "cell_support", "speaker_support")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Backbone(Section):
    """The pretrained speech language model; the audio tower stays frozen."""

    name: str = "small"
    layers: int = 2  # decoder layers kept (small); ignored by qwen2-audio-7b
    window_s: int = 4
    dtype: str = "auto"  # bfloat16 on a GPU that has it and a CPU with AMX, else float32
    path: str | None = None
    revision: str | None = None
    prompt: str = "short"

    def __post_init__(self) -> None:
        self.at_least(1, "layers")
        self.one_of("window_s", WINDOWS)
        self.one_of("dtype", ("auto", "float32", "bfloat16", "float64"))


@dataclass(frozen=True)
class Adapter(Section):
    """LoRA on the decoder, and the projector."""

    r: int = 16  # paper
    alpha: int | None = None  # None: 2 r, the paper's ratio (32 at r = 16)
    dropout: float = 0.05  # paper
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    train_projector: bool = True

    def __post_init__(self) -> None:
        self.at_least(1, "r", "alpha")
        self.refuse(not 0 <= self.dropout < 1, "dropout", "it is at least 0 and below 1")
        self.refuse(not self.targets, "targets", "name at least one module")


@dataclass(frozen=True)
class Objective(Section):
    """`ERM + lambda * penalty`; see ermgap/objective for the formulas."""

    loss: str = "erm"
    attribute: tuple[str, ...] = (GENDER,)  # whose gaps are reduced; several: crossed
    p: float = 2.0  # paper
    estimator: str = "batch"  # paper; of the largest gap, from a batch
    sides: str = "both"  # paper; worse: the penalty moves the worse side of a gap alone
    relative: bool = False  # the penalty in units of the mean loss
    ema: float = 0.9  # share of the running group sums that a step keeps
    dro_eta: float = 0.01  # step size of GroupDRO's group weights
    dro_c: float = 0.0  # GroupDRO's C, in C / sqrt(n)
    schedule: str = "constant"  # of the fairness weight
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
        _refuse_attributes(self, "attribute")
        self.at_least(1, "p", "every")
        self.at_least(0, "dro_c", "lambda_max", "epsilon")
        self.above_zero("dro_eta", "eta")
        unbiased = self.estimator == "unbiased"
        remedy = "the unbiased estimator is of the squared gap, so write p: 2"
        self.refuse(unbiased and self.p != 2, "p", remedy)
        self.one_of("sides", tuple(SIDES))
        remedy = "the unbiased estimator has a gradient on both sides, so choose the estimator "
        self.refuse(unbiased and self.sides == "worse", "sides", f"{remedy}batch or ema")
        self.refuse(not 0 <= self.ema < 1, "ema", "it is at least 0 and below 1")
        within = 0 <= self.lambda_0 <= self.lambda_max
        self.refuse(not within, "lambda_0", "it lies between 0 and lambda_max")
        self.refuse(not 0 <= self.start <= 1, "start", "it is a share of training, 0 to 1")
        self.refuse(not 0 < self.ramp <= 1, "ramp", "it is a share of training above 0, up to 1")
        self.one_of("gap", ("max_gap", "loss"))
        self.one_of("loss_over", ("labels", "answer"))


@dataclass(frozen=True)
class Train(Section):
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
    keep_epochs: bool = False  # dev predictions of every epoch, not of the rungs alone
    seed: int = 0

    def __post_init__(self) -> None:
        self.at_least(1, "epochs", "batch", "eval_batch", "patience", "micro_batch")
        self.at_least(0, "weight_decay", "seed")
        self.above_zero("lr", "clip_norm")
        self.one_of("parallel", ("ddp", "fsdp"))
        self.refuse(not 0 <= self.warmup < 1, "warmup", "it is a share of training below 1")
        rising = [name for name, metric in METRICS.items() if metric.direction == "max"]
        self.one_of("select", (*rising, "last"))


@dataclass(frozen=True)
class Sweep(Section):
    """How the space is searched, and on what."""

    trials: int = 10
    objectives: tuple[str, ...] = ("acc", "max_gap")
    sampler: str = "front"
    seed: int = 0
    cell: str | None = None  # language/modality that the sweep is about, named before it
    floor: float | None = None  # dev W-F1 under which a trial is degenerate; None: half of ERM's
    constraints: dict = field(default_factory=dict)  # metric -> its least value, a gap's largest
    erm_share: float = 0.2  # of the trials that are ERM, tuned like the rest
    stop_after: int | None = None  # epochs to the first rung of early stopping; None: no stopping
    stop_factor: int = 3  # rungs at stop_after * factor^k, where one in `factor` goes on at least
    stop_margin: float = 0.02  # behind the front, in each objective's unit, that still goes on
    trunks: int = 0  # ERM trials that fairness trials branch from; 0: each trains all its epochs
    attempts: int = 2
    deterministic: bool = False  # the same trials for the same seed with several slots, too
    slots: int | None = None  # worker groups; None: as many as the machine carries
    workers: int = 1  # workers in a group
    device: str = "auto"  # gpu: ask a cluster for GPUs, even if none has started yet
    space: dict = field(default_factory=dict)  # hyperparameter -> its range, instead of the default
    third_trial: dict = field(
        default_factory=dict
    )  # its hyperparameters, after ERM and the paper's
    dial: bool = False  # evaluate adapters between ERM and fair trials when all have ended
    points: dict = field(default_factory=dict)  # name -> hyperparameters: these alone, no search

    def __post_init__(self) -> None:
        names, floor = self.objectives, self.floor
        self.at_least(1, "trials", "attempts", "workers", "slots", "stop_after")
        self.at_least(2, "stop_factor")
        self.at_least(0, "seed", "stop_margin", "trunks")
        self.refuse(not 2 <= len(names) <= 3, "objectives", "name two or three objectives")
        self.refuse(len(set(names)) < len(names), "objectives", "each is named once")
        for name in names:
            remedy = f"choose from {', '.join(METRICS)}"
            self.refuse(name not in METRICS, "objectives", remedy, value=name)
        if self.cell is not None:
            language, _, modality = self.cell.partition("/")
            remedy = f"write language/modality, such as de/speech; modalities are {MODALITIES}"
            self.refuse(not language or modality not in MODALITIES, "cell", remedy)
        for name, limit in self.constraints.items():
            key, remedy = f"constraints.{name}", f"choose from {', '.join(METRICS)}"
            self.refuse(name not in METRICS, key, remedy, value=limit)
            number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
            remedy = "write a number such as 0.5; gaps and accuracies are fractions"
            self.refuse(not number or not abs(limit) < math.inf, key, remedy, value=limit)
        self.refuse(not 0 <= self.erm_share <= 1, "erm_share", "it is a share, 0 to 1")
        wrong = floor is not None and not 0 <= floor <= 1
        self.refuse(wrong, "floor", "it is a W-F1 between 0 and 1")
        for name, point in self.points.items():
            remedy = "write its hyperparameters, such as {loss: minmaxgap, lambda_max: 1}"
            self.refuse(not isinstance(point, dict), f"points.{name}", remedy, value=point)
        for name in old_forms.HYPERPARAMETERS:
            remedy = f"it is called {old_forms.HYPERPARAMETERS[name]} now"
            self.refuse(name in self.space, f"space.{name}", remedy, self.space.get(name))
            for key, point in self.points.items():
                self.refuse(name in point, f"points.{key}.{name}", remedy, point.get(name))
        self.one_of("device", ("auto", "cpu", "gpu"))
