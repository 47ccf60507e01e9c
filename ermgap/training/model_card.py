"""The files beside an adapter: a model card for people, `ermgap.json` for `ermgap.predict`.

    model_card.write(storage / "adapters" / trial, facts=model_card.CardFacts(...))
    metadata = model_card.read("results/small/adapters/t0004")  # a dict; UserError if damaged

Neither holds a path of the machine that trained it: corpora, plugins and prompts appear by their
names, and the backbone by its name on the hub. The page itself is in `card_page`. Neither torch nor
Ray is imported here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from ermgap import __version__
from ermgap.config import Config, tuples_to_lists
from ermgap.errors import UserError
from ermgap.records import file_names, plain, to_json, write_atomically
from ermgap.training.card_page import page

__all__ = [
    "CardFacts",
    "FORMAT",
    "contents",
    "metadata",
    "read",
    "save",
    "text_version",
    "write",
]

FORMAT = 1  # of ermgap.json; raised when an older reader would misread it
SECTIONS = ("backbone", "adapter", "objective", "data", "prompt", "dev")
SCORES = {"acc": "accuracy", "w_f1": "f1"}  # by the hub's names
COMPOSED = ["openai/whisper-tiny.en", "HuggingFaceTB/SmolLM2-135M-Instruct"]
ON_THE_HUB = {
    "small": COMPOSED,
    "small-hub": COMPOSED,
    "qwen2-audio-7b": ["Qwen/Qwen2-Audio-7B-Instruct"],
}


@dataclass(frozen=True, eq=False)
class CardFacts:
    """Everything that a card is written from.

    Attributes:
        trial_id, config: of the run.
        utterances: rows of train and dev (ermgap.corpora.table); repeated rows count once.
        dev: the metrics (ermgap.metrics.evaluate) of the selected epoch.
        epoch: the selected epoch.
        base: name or folder of the backbone; a folder is not named in the card.
        prompt: the prompt's text, by modality and language.
        raised_share: of that epoch's utterances, the share whose losses its steps pushed up.
        line: the lower and the upper trial of a dial, and the position of this adapter between
            them; objective and epoch are then the upper's.
    """

    trial_id: str
    config: Config
    utterances: pd.DataFrame
    dev: Mapping
    epoch: int
    base: str
    prompt: Mapping
    raised_share: float = 0.0
    line: tuple[str, str, float] | None = None

    @property
    def corpora(self) -> list[str]:
        """Names of the corpora, without where they were."""
        named = [name.partition("=")[0] for name in self.config.data.corpora]
        return list(dict.fromkeys([*named, *map(_last, self.utterances["corpus"].unique())]))

    @property
    def synthetic(self) -> list[str]:
        """Names of the corpora that hold synthetic speech, sorted."""
        made = self.utterances["corpus"][self.utterances["synthetic"].astype(bool)]
        return sorted(set(map(_last, made)))

    @property
    def base_models(self) -> list[str]:
        """Hub ids of what the backbone is made of; empty where nothing on the hub is meant."""
        hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", self.base) and not Path(self.base).exists()
        return ON_THE_HUB.get(self.config.backbone.name, [self.base] if hub_id else [])

    @property
    def base_name(self) -> str:
        """The one name for peft's `base_model_name_or_path`: a hub id, or the backbone's own."""
        models = self.base_models
        return models[0] if len(models) == 1 else self.config.backbone.name


def save(folder: Path, adapter, *, facts: CardFacts) -> None:
    """Write an adapter (ermgap.model.lora) with its card into a folder."""
    on_the_hub = len(facts.base_models) == 1
    revision = facts.config.backbone.revision if on_the_hub else None
    adapter.save(folder, base=facts.base_name, revision=revision)
    write(folder, facts=facts)


def write(folder: Path | str, *, facts: CardFacts) -> None:
    """Write README.md and ermgap.json into a folder, each whole or not at all."""
    # Quoted where YAML would read something else: the language "no" is Norwegian and not false.
    front = yaml.safe_dump(metadata(facts), sort_keys=False, allow_unicode=True)
    values = contents(facts)
    texts = {
        "README.md": f"---\n{front}---\n\n{page(facts, values)}",
        file_names.ADAPTER_SETTINGS: to_json(values, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        write_atomically(
            Path(folder) / name, lambda path, text=text: path.write_text(text, encoding="utf-8")
        )


def read(folder: Path | str) -> dict:
    """The content of a folder's `ermgap.json`; UserError if it is absent, damaged or too new."""
    folder = Path(folder)
    path = folder / file_names.ADAPTER_SETTINGS
    if not path.is_file():
        what = f"holds no {file_names.ADAPTER_SETTINGS}" if folder.is_dir() else "is not a folder"
        raise UserError(
            f"{folder} {what}; name an adapter's folder, such as results/demo/adapters/t0003."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version, parts = int(values["format"]), [values.get(name) for name in SECTIONS]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
        raise UserError(
            f"{path} is damaged ({type(problem).__name__}); restore it from where it was copied."
        ) from problem
    if version > FORMAT:
        raise UserError(
            f"{path} was written by ERM-GAP {values.get('ermgap')}, in format {version}, and this "
            f"version reads up to {FORMAT}; update ERM-GAP."
        )
    if not all(isinstance(part, dict) for part in parts):
        absent = [name for name, part in zip(SECTIONS, parts, strict=True) if part is None]
        raise UserError(f"{path} is damaged (no {', '.join(absent) or 'sections'}); restore it.")
    if not values["prompt"].keys() >= {"name", "version", "texts"}:
        raise UserError(f"{path} is damaged (the prompt has no text); restore it.")
    return values


# Contents of the files --------------------------------------------------------------------------


def contents(facts: CardFacts) -> dict:
    """The content of ermgap.json."""
    settings, data = facts.config, facts.config.data
    backbone = dataclasses.asdict(settings.backbone) | {"path": None}
    backbone["prompt"] = _last(backbone["prompt"])
    texts = {modality: dict(texts) for modality, texts in facts.prompt.items()}
    return {
        "format": FORMAT,
        "ermgap": __version__,
        "trial_id": facts.trial_id,
        "epoch": facts.epoch,
        "select": settings.train.select,
        "backbone": backbone,
        "adapter": dataclasses.asdict(settings.adapter),
        "objective": dataclasses.asdict(settings.objective),
        "data": {
            "corpora": facts.corpora,
            "labels": data.labels,
            "modalities": data.modalities,
            "provenance": data.provenance,
            **data.support,
            "fold": data.fold,
            "folds": data.folds,
        },
        "prompt": {"name": backbone["prompt"], "version": text_version(texts), "texts": texts},
        "plugins": [_last(name) for name in settings.plugins],
        "dev": facts.dev,
        **({"line": list(facts.line)} if facts.line else {}),
    }


def text_version(texts: Mapping) -> str:
    """Twelve hex digits of the prompt's texts: equal texts, equal version."""
    whole = json.dumps(tuples_to_lists(dict(texts)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def metadata(facts: CardFacts) -> dict:
    """The card's metadata as the Hugging Face hub reads it."""
    base, dev = facts.base_models, plain(facts.dev, finite=True)
    kinds = SCORES | {"max_gap": f"max_{'_'.join(facts.config.objective.attribute)}_gap"}
    scores = [
        {"type": kind, "name": f"dev {name}", "value": round(float(dev[name]), 4)}
        for name, kind in kinds.items()
        if dev.get(name) is not None
    ]
    corpora = ", ".join(facts.corpora)
    result = {
        "task": {"type": "audio-classification", "name": "Speech emotion recognition"},
        "dataset": {"type": facts.corpora[0], "name": f"{corpora} (dev)", "split": "dev"},
        "metrics": scores,
    }
    return {
        **({"base_model": base[0] if len(base) == 1 else base} if base else {}),
        "library_name": "peft",
        "pipeline_tag": "audio-classification",
        "language": sorted(map(str, facts.utterances["language"].unique())),
        "tags": ["lora", "speech-emotion-recognition", "fairness", "ermgap"],
        **({"model-index": [{"name": facts.trial_id, "results": [result]}]} if scores else {}),
    }


def _last(name: str) -> str:
    return re.split(r"[/\\]", str(name).rstrip("/\\"))[-1]
