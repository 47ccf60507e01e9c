"""The plan of a sweep, before anything is launched: utterances, splits, counts, sizes."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ermgap import attributes, corpora, metrics
from ermgap.config import METRICS, NOT_STATED, SPEECH_AND_TEXT, Config, one_line
from ermgap.corpora import labels, split, table
from ermgap.errors import UserError
from ermgap.model import prompts
from sweeps.setup.cells import small_cells

PRESETS = Path(__file__).parents[1] / "presets"
PACKAGES = "ermgap ray torch transformers peft optuna datasets pandas pyarrow".split()
GAP_REFERENCE = 0.30


@dataclass(frozen=True)
class Plan:
    """The utterances of a sweep with their `split` filled, and a description to print.

    `provenance` says where the values of each attribute come from.
    """

    utterances: pd.DataFrame
    description: str
    provenance: Mapping[str, str]


def preset_path(name: str) -> Path:
    """The YAML file of a preset's name, or of a path; UserError lists the names."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise UserError(
            f"there is no preset {name!r}; choose one of {names}, or give the path of a .yaml file."
        )
    return path


def make_plan(config: Config) -> Plan:
    """Load, check and split the corpora of a configuration; UserError as the corpora raise it."""
    data, attribute = config.data, config.objective.attribute
    texts = prompts.find(config.backbone.prompt)
    if missing := [modality for modality in data.modalities if modality not in texts]:
        raise UserError(
            f"the prompt {config.backbone.prompt!r} has no text for {missing[0]}; "
            "name another under backbone.prompt, or take it out of data.modalities."
        )
    corpus = corpora.load(
        data.corpora,
        labels=data.labels,
        attributes=config.attributes,
        drop=attribute if data.unknown == "drop" else (),
        strict=data.strict,
        window_s=config.backbone.window_s,
        genders=Path(data.genders) if data.genders else None,
        outside=data.outside,
        emotions=data.emotions,
    )
    _require_two_sides(corpus.table, attribute)
    sample = corpus.table
    if data.limit is not None:
        sample = _sample(sample, data.limit, attribute)
    folds = {"fold": data.fold, "folds": data.folds, "test": data.test}
    utterances = split.assign(sample, seed=data.split_seed, attribute=attribute, **folds)
    for name in ("train", "dev"):
        if not (utterances["split"] == name).any():
            raise UserError(
                f"the split leaves no utterance for {name}; use more speakers or other folds."
            )
    labels.require_two_emotions(utterances, corpus.excluded)
    _require_texts(utterances, config, texts)
    _, moves = split.complete_groups(sample)
    notes = [*corpus.notes, *moves, *_transcripts(utterances, data.modalities)]
    notes += small_cells(config, utterances)
    description = table.describe(
        utterances, excluded=corpus.excluded, labels=data.labels, notes=notes, attribute=attribute
    )
    return Plan(utterances, description, _provenance(config, utterances, corpus.provenance))


def _require_two_sides(utterances: pd.DataFrame, attribute: Sequence[str]) -> None:
    """UserError for an attribute that divides the utterances in fewer than two sides."""
    n = (
        attributes.values(utterances, attribute)
        .value_counts()
        .drop(attributes.UNKNOWN, errors="ignore")
    )
    if len(n) > 1:
        return
    title = attributes.title(attribute)
    content = "is unknown of every utterance"
    if len(n):
        content = f"has one value only, {one_line(n.index[0])} ({n.iloc[0]} utterances)"
    raise UserError(
        f"the attribute {title} {content}, so that nothing can be compared; name another under "
        "objective.attribute, or corpora with two values of it or more."
    )


def _provenance(
    config: Config, utterances: pd.DataFrame, stated: Mapping[str, str]
) -> dict[str, str]:
    """Where each attribute's values come from; UserError if `data.provenance` names none there."""
    own, names = config.data.provenance, attributes.columns(utterances)
    for name in own:
        if name not in (*names, "language", "corpus"):
            raise UserError(
                f"data.provenance names {name!r}, which is no attribute of these corpora; write "
                f"one of {', '.join(names)}."
            )
    known = [name for name in names if (utterances[name] != attributes.UNKNOWN).any()]
    return {name: stated.get(name, NOT_STATED) for name in known} | own


def _require_texts(utterances: pd.DataFrame, config: Config, texts: Mapping) -> None:
    """UserError for a language in which the prompt has no text, its own or any language's ("")."""
    spoken = set(utterances["language"])
    for modality in config.data.modalities:
        if missing := sorted(spoken - set(texts[modality])) if "" not in texts[modality] else []:
            raise UserError(
                f"the prompt {config.backbone.prompt!r} has no text for {modality} in "
                f"{', '.join(missing)}; add one, or one for all languages, to its file."
            )


def require_named_cell(config: Config, utterances: pd.DataFrame) -> None:
    """UserError for a `sweep.cell` that is not on dev, or does not count there."""
    if (wanted := config.sweep.cell) is None:
        return
    # Which cells count depends on the true labels alone.
    judged = [
        part.assign(modality=modality, label=part["emotion"], prediction=part["emotion"])
        for modality, part in _judged(config, utterances).items()
    ]
    gaps = metrics.evaluate(pd.concat(judged), labels=config.data.labels, **config.compared)["gaps"]
    usable = [name for name, gap in gaps.items() if gap.get("counts")]
    if wanted in usable:
        return
    why = "is no cell of dev"
    if wanted in gaps:
        numbers = metrics.listed(metrics.side_counts(gaps[wanted]))
        why = f"does not count on dev with {numbers} utterances (data.cell_support)"
    raise UserError(
        f"sweep.cell = {wanted!r} {why}: name one that counts there "
        f"({', '.join(usable) or 'there is none'}), or write null."
    )


def _transcripts(utterances: pd.DataFrame, modalities: Sequence[str]) -> list[str]:
    """Notes on what speech+text omits or cuts; UserError if it can use nothing."""
    if SPEECH_AND_TEXT not in modalities:
        return []
    length = utterances["transcript"].fillna("").str.strip().str.len()
    if not (length > 0).any():
        raise UserError(
            "no utterance has a transcript, so there is no speech+text; "
            "write data.modalities: [speech]."
        )
    missing, long = int((length == 0).sum()), int((length > prompts.LONGEST).sum())
    notes = {
        f"{missing} utterances have no transcript and are left out of speech+text": missing,
        f"{long} transcripts are cut to their first {prompts.LONGEST} characters": long,
    }
    return [note for note, count in notes.items() if count]


def describe_sweep(
    config: Config,
    *,
    preset: str,
    utterances: pd.DataFrame,
    storage: str | None,
    provenance: Mapping[str, str] | None = None,
) -> dict:
    """The content of sweep.yaml; `provenance` is the plan's."""
    dev = utterances[utterances["split"] == "dev"]
    emotions = pd.concat(_judged(config, utterances))[
        "emotion"
    ]  # of each prediction: an utterance once a modality
    emotions = emotions if len(emotions) else dev["emotion"]
    majority = float(emotions.value_counts(normalize=True).iloc[0])
    reference = {
        "acc": majority,
        "w_f1": 2 * majority**2 / (1 + majority),
        "worst_group_w_f1": 0.0,
        "max_gap": GAP_REFERENCE,
        "max_loss_gap": 2.0,
    }
    synthetic = utterances.loc[utterances["synthetic"].astype(bool), "corpus"].unique()
    return {
        "preset": preset,
        "config": config.to_dict(),
        "labels": list(config.data.labels),
        "objectives": list(config.sweep.objectives),
        "directions": {name: METRICS[name].direction for name in config.sweep.objectives},
        "reference_point": {name: reference[name] for name in config.sweep.objectives},
        "majority_rate": majority,
        "space": ranges(config),
        "floor": config.sweep.floor,
        "select": config.train.select,
        "seed": config.sweep.seed,
        "trials": config.sweep.trials,
        "n_dev": len(dev),
        "dev_speakers": int(dev["speaker"].nunique()),
        "languages": sorted(dev["language"].unique()),
        "synthetic": sorted(synthetic),
        "data": list(config.data.corpora),
        "provenance": dict(provenance or {}),
        "storage": storage,
        "versions": {"python": platform.python_version(), "prompts": prompts.version()}
        | {name: _version(name) for name in PACKAGES},
    }


def _judged(config: Config, utterances: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The dev utterances that each modality is asked."""
    dev = utterances[utterances["split"] == "dev"]
    spoken = dev["transcript"].fillna("").str.strip() != ""
    return {name: dev[spoken] if name == SPEECH_AND_TEXT else dev
            for name in config.data.modalities}  # fmt: skip


def ranges(config: Config) -> dict[str, dict]:
    """The range of each searched hyperparameter: low, high and log, or choices."""
    from sweeps.search import space  # Optuna: only now

    return {
        name: {"choices": list(d.choices)}
        if hasattr(d, "choices")
        else {"low": d.low, "high": d.high, "log": d.log}
        for name, d in ({} if config.sweep.points else space.distributions(config)).items()
    }


def _sample(utterances: pd.DataFrame, limit: int, attribute: Sequence[str]) -> pd.DataFrame:
    """About `limit` rows, in turn from each split, language, side and, there, emotion."""
    keyed = utterances[["split", "language", "emotion"]].assign(
        side=attributes.values(utterances, attribute),
        draw=np.random.default_rng(0).random(len(utterances)),
    )
    group = ["split", "language", "side"]
    keyed["turn"] = keyed.groupby([*group, "emotion"]).cumcount()
    ranked = keyed.sort_values(["turn", "draw"], kind="stable")
    order = ranked.groupby(group).cumcount().sort_values(kind="stable").index
    return utterances.loc[order[:limit]].sort_index().reset_index(drop=True)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
