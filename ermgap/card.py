"""What stands beside an adapter: a model card for people, and `ermgap.json` for `ermgap.predict`.

    card.write(storage / "adapters" / trial, told=card.Told(...))
    told = card.read("results/small/adapters/t0004")        # plain values; UserError if damaged

Neither holds a path of the machine that trained it: corpora, plugins and prompts appear by their
names, and the backbone by its name on the hub. Neither torch nor Ray is imported here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from ermgap import __version__
from ermgap.config import Backbone, Config
from ermgap.errors import UserError
from ermgap.parsing import untuple
from ermgap.records import write_atomically

FORMAT = 1  # of ermgap.json; raised when an older reader would misread it
NAME = "ermgap.json"
SECTIONS = ("backbone", "adapter", "objective", "data", "prompt", "dev")
SCORES = {"acc": "accuracy", "w_f1": "f1", "max_gap": "max_gender_gap"}  # by the hub's names
COMPOSED = ["openai/whisper-tiny.en", "HuggingFaceTB/SmolLM2-135M-Instruct"]
ON_THE_HUB = {
    "small": COMPOSED,
    "small-hub": COMPOSED,
    "qwen2-audio-7b": ["Qwen/Qwen2-Audio-7B-Instruct"],
}
LOSSES = {
    "erm": "L, the mean loss over utterances (empirical risk minimisation)",
    "minmaxgap": "L + λ · R, R = (the largest difference, over cells of a language and a modality, "
    "between the mean loss of female and of male utterances) to the power p",
    "vrex": "L + λ · the variance of the groups' mean losses",
    "groupdro": "the groups' mean losses, weighted by q, which grows where the loss is large",
    "reweight": "the mean loss, each utterance weighted inversely to its group's size in training",
}
ESTIMATORS = {
    "batch": "R is taken from the batch as it is",
    "ema": "which cell is worst, and by how much, comes from running means of the groups",
    "unbiased": "the squared difference less the sampling variance of both means; the worst cell "
    "is chosen by running means",
}
WEIGHTS = {
    "constant": "λ is lambda_max throughout",
    "linear": "λ is 0 until the share `start` of training, then rises in a straight line to "
    "lambda_max over the share `ramp`",
    "cosine": "λ rises to lambda_max along half a cosine, from `start` over `ramp`",
    "exponential": "λ rises to lambda_max exponentially, from `start` over `ramp`",
    "step": "λ is 0 until the share `start` of training, then lambda_max",
    "adaptive": "after an evaluation λ grows by eta · (dev gap - epsilon), between 0 and "
    "lambda_max, from lambda_0",
}
PREDICT = "python -m ermgap.predict --adapter DIR FILES..."
LOAD = """```python
from peft import PeftModel
from transformers import Qwen2AudioForConditionalGeneration

model = Qwen2AudioForConditionalGeneration.from_pretrained({base})
model = PeftModel.from_pretrained(model, "DIR")
```"""


@dataclass(frozen=True, eq=False)
class Told:
    """What a card is written from.

    Attributes:
        trial_id, config: of the run.
        utterances: rows of train and dev (ermgap.corpora.table); repeated rows count once.
        dev: the metrics (ermgap.metrics.evaluate) of the selected epoch.
        epoch: the selected epoch.
        base: name or folder of the backbone; a folder is not told.
        prompt: the prompt's text, by modality and language.
    """

    trial_id: str
    config: Config
    utterances: pd.DataFrame
    dev: Mapping
    epoch: int
    base: str
    prompt: Mapping

    @property
    def corpora(self) -> list[str]:
        """Names of the corpora, without where they were."""
        named = [name.partition("=")[0] for name in self.config.data.corpora]
        return list(dict.fromkeys([*named, *map(_last, self.utterances["corpus"].unique())]))


def write(folder: Path | str, *, told: Told) -> None:
    """Write README.md and ermgap.json into a folder, each whole or not at all."""
    folder = Path(folder)
    values = _json(contents(told))
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    page = f"---\n{_yaml(metadata(told))}---\n\n{_page(told, values)}"
    write_atomically(folder / "README.md", lambda path: path.write_text(page, encoding="utf-8"))
    write_atomically(folder / NAME, lambda path: path.write_text(text, encoding="utf-8"))


def read(folder: Path | str) -> dict:
    """What `ermgap.json` of a folder holds; UserError if it is absent, damaged or too new."""
    folder = Path(folder)
    path = folder / NAME
    if not path.is_file():
        what = f"holds no {NAME}" if folder.is_dir() else "is not a folder"
        raise UserError(
            f"{folder} {what}; name an adapter's folder, such as results/demo/adapters/t0003."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version, parts = int(values["format"]), [values.get(name) for name in SECTIONS]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
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


def base_models(backbone: Backbone, base: str) -> list[str]:
    """Hub ids of what the backbone is made of; empty where nothing on the hub is meant."""
    hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists()
    return ON_THE_HUB.get(backbone.name, [base] if hub_id else [])


def base_name(backbone: Backbone, base: str) -> str:
    """The one name for `base_model_name_or_path` of peft: a hub id, or the backbone's own name."""
    models = base_models(backbone, base)
    return models[0] if len(models) == 1 else backbone.name


# What is told -------------------------------------------------------------------------------------


def contents(told: Told) -> dict:
    """What ermgap.json holds."""
    settings, data = told.config, told.config.data
    backbone = dataclasses.asdict(settings.backbone) | {"path": None}
    backbone["prompt"] = _last(backbone["prompt"])
    texts = {modality: dict(texts) for modality, texts in told.prompt.items()}
    return {
        "format": FORMAT,
        "ermgap": __version__,
        "trial_id": told.trial_id,
        "epoch": told.epoch,
        "select": settings.train.select,
        "backbone": backbone,
        "adapter": dataclasses.asdict(settings.adapter),
        "objective": dataclasses.asdict(settings.objective),
        "data": {
            "corpora": told.corpora,
            "labels": data.labels,
            "modalities": data.modalities,
            "min_support": data.min_support,
            "fold": data.fold,
            "folds": data.folds,
        },
        "prompt": {"name": backbone["prompt"], "version": text_version(texts), "texts": texts},
        "plugins": [_last(name) for name in settings.plugins],
        "dev": told.dev,
    }


def text_version(texts: Mapping) -> str:
    """Twelve hex digits of the prompt's texts: equal texts, equal version."""
    whole = json.dumps(untuple(dict(texts)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def metadata(told: Told) -> dict:
    """The card's metadata as the Hugging Face hub reads it."""
    base = base_models(told.config.backbone, told.base)
    scores = [
        {"type": SCORES[name], "name": f"dev {name}", "value": round(float(told.dev[name]), 4)}
        for name in SCORES
        if _known(told.dev.get(name))
    ]
    corpora = ", ".join(told.corpora)
    result = {
        "task": {"type": "audio-classification", "name": "Speech emotion recognition"},
        "dataset": {"type": told.corpora[0], "name": f"{corpora} (dev)", "split": "dev"},
        "metrics": scores,
    }
    return {
        **({"base_model": base[0] if len(base) == 1 else base} if base else {}),
        "library_name": "peft",
        "pipeline_tag": "audio-classification",
        "language": sorted(map(str, told.utterances["language"].unique())),
        "tags": ["lora", "speech-emotion-recognition", "fairness", "ermgap"],
        **({"model-index": [{"name": told.trial_id, "results": [result]}]} if scores else {}),
    }


def _yaml(values: Mapping) -> str:
    # Quoted where YAML would read something else: the language "no" is Norwegian and not false.
    return yaml.safe_dump(_json(values), sort_keys=False, allow_unicode=True)


def _last(name: str) -> str:
    return re.split(r"[/\\]", str(name).rstrip("/\\"))[-1]


def _known(value) -> bool:
    return value is not None and math.isfinite(value)


def _json(value):
    """Plain values as JSON holds them; NaN and infinities become null."""
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


# The page -----------------------------------------------------------------------------------------


def _page(told: Told, values: Mapping) -> str:
    """The card below its metadata, in Markdown."""
    prompt, backbone = values["prompt"], told.config.backbone
    parts = {
        f"# {told.trial_id}: speech emotion recognition": _what(told),
        "## Data": [*_data(told), _counts(told)],
        "## Objective": [*_objective(told), _listed(values["objective"])],
        "## Prompt and window": [
            f"Prompt `{prompt['name']}`, text version `{prompt['version']}` (the text is in "
            f"`{NAME}`). At most the first {backbone.window_s} seconds of a clip are heard.",
        ],
        "## Metrics on dev": [*_metrics(told), _gaps(told.dev)],
        "## What you cannot conclude": ["\n".join(f"- {line}" for line in caveats(told))],
        "## Use": _use(told),
    }
    return "\n\n".join([line for title, body in parts.items() for line in (title, *body)]) + "\n"


def _what(told: Told) -> list[str]:
    data, adapter = told.config.data, told.config.adapter
    what = "LoRA adapter and projector" if adapter.train_projector else "LoRA adapter"
    models = " and ".join(base_models(told.config.backbone, told.base))
    of = f" ({models})" if models else ""
    return [
        f"{what} (r {adapter.r}) of the backbone `{told.config.backbone.name}`{of}, trained by "
        f"ERM-GAP {__version__}. It answers a clip with one of {', '.join(data.labels)}. "
        f"Input: {', '.join(data.modalities)}."
    ]


def _data(told: Told) -> list[str]:
    table = told.utterances
    made = sorted({_last(name) for name in table["corpus"][table["synthetic"].astype(bool)]})
    heard = [set(table["speaker"][table["split"] == split]) for split in ("train", "dev")]
    both = len(set.intersection(*heard))
    shared = f"{both} speakers are" if both else "No speaker is"
    lines = [f"Corpora: {', '.join(told.corpora)}. {shared} in both train and dev."]
    if made:
        lines.append(f"**Synthetic, not human speech:** {', '.join(made)}.")
    if told.config.data.genders is not None:
        lines.append("Genders come from a file of the user's own.")
    elif "meld_st" in told.corpora:
        lines.append("Genders of MELD are inferred from the characters, not self-reported.")
    return lines


def _counts(told: Told) -> str:
    table = told.utterances.drop_duplicates("utterance_id")
    keys = ["split", "language", "gender"]
    rows = [
        [*names, len(part), part["speaker"].nunique()]
        for names, part in table.groupby(keys, sort=True)
    ]
    return _table([*keys, "utterances", "speakers"], rows)


def _objective(told: Told) -> list[str]:
    settings = told.config.objective
    lines = [f"`{settings.loss}`: {LOSSES.get(settings.loss, 'a loss of a plugin')}."]
    if settings.loss == "minmaxgap":
        lines.append(f"Estimator `{settings.estimator}`: {ESTIMATORS[settings.estimator]}.")
    if settings.loss not in ("erm", "groupdro", "reweight"):
        words = WEIGHTS.get(settings.weight, "a schedule of a plugin")
        lines.append(f"Weight `{settings.weight}`: {words}.")
    return lines


def _metrics(told: Told) -> list[str]:
    dev, select = told.dev, told.config.train.select
    chosen = "the last one" if select == "last" else f"the one with the best dev {select}"
    return [
        f"Epoch {told.epoch}, {chosen}: the numbers are of the utterances that chose it, so they "
        "are optimistic. Percent; gaps are percentage points between the genders.",
        f"Accuracy {_percent(dev['acc'])} (always the commonest label: "
        f"{_percent(dev['majority_rate'])}), W-F1 {_percent(dev['w_f1'])}, "
        f"n {dev['n']}. Largest gap {_percent(dev['max_gap'])} in {dev['worst_cell'] or '–'}; "
        f"worst group {dev['worst_group'] or '–'} with W-F1 {_percent(dev['worst_group_w_f1'])}.",
    ]


def _gaps(dev: Mapping) -> str:
    names = {"tpr": "TPR", "fpr": "FPR", "w_f1": "W-F1", "acc": "ACC", "avg": "AVG"}
    rows = [
        [cell, gaps["n_female"], gaps["n_male"], *(_percent(gaps[name]) for name in names)]
        for cell, gaps in dev["gaps"].items()
    ]
    return _table(["cell", "n female", "n male", *(f"{name} gap" for name in names.values())], rows)


def caveats(told: Told) -> list[str]:
    """What the numbers do not show, one sentence or two each."""
    found = [
        "A gap measured on few speakers is mostly about those speakers: with 500 utterances per "
        "gender and language a perfectly fair model is expected to show a largest W-F1 gap of 4.3 "
        "points over three languages (6.1 with 250, 3.0 with 1,000).",
        "Chosen on dev among many configurations, a small gap there may be luck; confirm it on "
        "speakers who chose nothing.",
        "A gap that is undefined (–) is not a gap of zero. Only two genders are compared.",
    ]
    if acted := [name for name in told.corpora if name in ("emodb", "ravdess", "jvnv")]:
        found.append(f"Speech of {', '.join(acted)} is acted, and tells little of other speech.")
    if told.utterances["synthetic"].astype(bool).any():
        found.append("Synthetic voices are no people: no claim about people follows from them.")
    if _known(told.dev["acc"]) and told.dev["acc"] <= told.dev["majority_rate"]:
        found.append("It is no better than always giving one label, so its gaps mean nothing.")
    found.append("The licences of backbone and corpora bind whoever uses this adapter.")
    return found


def _use(told: Told) -> list[str]:
    backbone, models = told.config.backbone, base_models(told.config.backbone, told.base)
    base, made = f'"{models[0]}"' if len(models) == 1 else '"BACKBONE"', []
    if len(models) != 1:
        settings = f"name={backbone.name} layers={backbone.layers} window_s={backbone.window_s}"
        made = [f"`python -m ermgap.backbone {settings}` prints the folder BACKBONE."]
    spoken = f"```bash\n{PREDICT}\n```"
    return [
        "Emotions of your own audio files:",
        spoken,
        "With peft:",
        LOAD.format(base=base),
        *made,
    ]


def _listed(values: Mapping) -> str:
    return _table(["setting", "value"], [[f"`{key}`", value] for key, value in values.items()])


def _table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _percent(value) -> str:
    return f"{100 * value:.1f}" if _known(value) else "–"
