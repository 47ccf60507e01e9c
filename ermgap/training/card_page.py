"""The page of a model card, in Markdown: what an adapter is, how it was made and where it fails.

text = page(facts, values)     # model_card.CardFacts and model_card.contents(facts)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ermgap import __version__, attributes
from ermgap.config import CHANCE_GAP, GAP_TITLES, GENDER, losses
from ermgap.metrics import side_counts, uncounted_cells
from ermgap.records import is_degenerate

if TYPE_CHECKING:
    from ermgap.training.model_card import CardFacts

PREDICT = "python -m ermgap.predict --adapter DIR FILES..."
LOAD = """```python
from peft import PeftModel
from transformers import Qwen2AudioForConditionalGeneration

model = Qwen2AudioForConditionalGeneration.from_pretrained("BACKBONE")
model = PeftModel.from_pretrained(model, "DIR")
```"""
AUTO = """```python
from peft import AutoPeftModel

model = AutoPeftModel.from_pretrained("DIR")
```"""
ANSWER = (
    "The answer is the label whose first token is the most probable after the prompt; the "
    "processor is the base model's."
)


def page(facts: CardFacts, values: Mapping) -> str:
    """The card below its metadata, in Markdown."""
    prompt, window_s = values["prompt"], facts.config.backbone.window_s
    parts = {
        f"# {facts.trial_id}: speech emotion recognition": _what(facts),
        "## Data": [*_data(facts), _counts(facts)],
        "## Objective": [*_objective(facts), _listed(values["objective"])],
        "## Prompt and window": [
            f"Prompt `{prompt['name']}`, text version `{prompt['version']}` (the text is in "
            f"`ermgap.json`). At most the first {window_s} seconds of a clip are heard.",
        ],
        "## Metrics on dev": [*_metrics(facts), _gaps(facts.dev)],
        "## What you cannot conclude": ["\n".join(f"- {line}" for line in caveats(facts))],
        "## Use": _use(facts),
    }
    return "\n\n".join([line for title, body in parts.items() for line in (title, *body)]) + "\n"


def _what(facts: CardFacts) -> list[str]:
    data, adapter = facts.config.data, facts.config.adapter
    what = "LoRA adapter and projector" if adapter.train_projector else "LoRA adapter"
    models = " and ".join(facts.base_models)
    of = f" ({models})" if models else ""
    made = "trained by ERM-GAP"
    if facts.line:
        lower, upper, position = facts.line
        made = (
            f"position {position:g} on the line from trial {lower} (0) to trial {upper} (1), both "
            "trained by ERM-GAP"
        )
    return [
        f"{what} (r {adapter.r}) of the backbone `{facts.config.backbone.name}`{of}, {made} "
        f"{__version__}. It answers a clip with one of {', '.join(data.labels)}. "
        f"Input: {', '.join(data.modalities)}."
    ]


def _data(facts: CardFacts) -> list[str]:
    table = facts.utterances
    heard = [set(table["speaker"][table["split"] == split]) for split in ("train", "dev")]
    both = len(set.intersection(*heard))
    shared = f"{both} speakers are" if both else "No speaker is"
    lines = [f"Corpora: {', '.join(facts.corpora)}. {shared} in both train and dev."]
    if facts.synthetic:
        lines.append(f"**Synthetic, not human speech:** {', '.join(facts.synthetic)}.")
    data = facts.config.data
    if GENDER in facts.config.attributes and data.genders is not None:
        lines.append("Genders come from a file of the user's own.")
    elif GENDER in facts.config.attributes and "meld_st" in facts.corpora:
        lines.append("Genders of MELD are inferred from the characters, not self-reported.")
    if sources := [f"{name} {where}" for name, where in data.provenance.items()]:
        lines.append(f"Where attributes come from: {', '.join(sources)}.")
    return lines


def _counts(facts: CardFacts) -> str:
    table = facts.utterances.drop_duplicates("utterance_id")
    attribute = facts.config.objective.attribute
    keys = [table["split"], table["language"], attributes.values(table, attribute)]
    rows = [
        [split, language, side or "unknown", len(part), part["speaker"].nunique()]
        for (split, language, side), part in table.groupby(keys, sort=True)
    ]
    header = ["split", "language", attributes.title(attribute), "utterances", "speakers"]
    return _table(header, rows)


def _objective(facts: CardFacts) -> list[str]:
    settings = facts.config.objective
    loss = losses.LOSSES.get(settings.loss)
    formula = loss.formula if loss else "a loss of a plugin"
    title = attributes.title(settings.attribute)
    lines = [f"`{settings.loss}`: {formula}. Sides are the values of {title}."]
    if loss and loss.estimates_gap:
        estimator = losses.ESTIMATORS.get(settings.estimator, "an estimator of a plugin")
        lines.append(f"Estimator `{settings.estimator}`: {estimator}.")
    if not loss or loss.has_fairness_weight:
        schedule = losses.SCHEDULES.get(settings.schedule)
        description = schedule.description if schedule else "a schedule of a plugin"
        lines.append(f"Schedule of the fairness weight, `{settings.schedule}`: {description}.")
    if loss and "sides" in loss.hyperparameters:
        lines.append(f"Sides `{settings.sides}`: {losses.SIDES[settings.sides]}.")
    if facts.raised_share > 0:
        share = f"{100 * facts.raised_share:.2g}"
        lines.append(f"In this epoch the steps pushed up the losses of {share} % of utterances.")
    return lines


def _metrics(facts: CardFacts) -> list[str]:
    dev, select = facts.dev, facts.config.train.select
    title = attributes.title(facts.config.objective.attribute)
    which = "the last one" if select == "last" else f"the one with the best dev {select}"
    adapter = f"Epoch {facts.epoch}, {which}"
    if facts.line:
        adapter = f"This position of the line, not epoch {facts.epoch} of its upper end"
    return [
        f"{adapter}: the numbers are of the utterances that chose it, so they are optimistic. "
        f"Percent; a gap is the largest difference between two sides of {title}, in percentage "
        "points.",
        f"Accuracy {_percent(dev['acc'])} (always the commonest label: "
        f"{_percent(dev['majority_rate'])}), W-F1 {_percent(dev['w_f1'])}, "
        f"n {dev['n']}. Largest gap {_percent(dev['max_gap'])} in {dev['worst_cell'] or '–'}; "
        f"worst group {dev['worst_group'] or '–'} with W-F1 {_percent(dev['worst_group_w_f1'])}.",
    ]


def _gaps(dev: Mapping) -> str:
    rows = [
        [cell, *side_counts(gaps).values(), *(_percent(gaps[name]) for name in GAP_TITLES)]
        for cell, gaps in dev["gaps"].items()
    ]
    sides = [f"n {side}" for side in side_counts(next(iter(dev["gaps"].values()), {}))]
    return _table(["cell", *sides, *(f"{name} gap" for name in GAP_TITLES.values())], rows)


def caveats(facts: CardFacts) -> list[str]:
    """What the numbers do not show, one sentence or two each."""
    title = attributes.title(facts.config.objective.attribute)
    lines = [
        f"A gap measured on few speakers is mostly about those speakers: {CHANCE_GAP}.",
        "Chosen on dev among many configurations, a small gap there may be luck; confirm it on "
        "speakers who chose nothing.",
        "A gap that is undefined (–) is not a gap of zero. Only the sides in the table above are "
        f"compared; speech of unknown {title} is in accuracy and W-F1 alone.",
    ]
    if few := uncounted_cells(facts.dev["gaps"]):
        named = "; ".join(f"{cell} ({numbers})" for cell, numbers in few.items())
        lines.append(f"The largest gap and the worst group are without the small cells: {named}.")
    if acted := [name for name in facts.corpora if name in ("emodb", "ravdess", "jvnv")]:
        lines.append(f"Speech of {', '.join(acted)} is acted, and tells little of other speech.")
    if facts.synthetic:
        lines.append("Synthetic voices are no people: no claim about people follows from them.")
    scores = {name: facts.dev[name] for name in ("acc", "w_f1", "majority_rate")}
    if is_degenerate(**scores, floor=facts.config.sweep.floor):
        lines.append(
            "It is degenerate: no better than always giving one label, or its W-F1 is under "
            "sweep.floor. So its gaps mean nothing."
        )
    lines.append("The licences of backbone and corpora bind whoever uses this adapter.")
    return lines


def _use(facts: CardFacts) -> list[str]:
    backbone, models = facts.config.backbone, facts.base_models
    spoken = f"```bash\n{PREDICT}\n```"
    ours = ["Emotions of your own audio files:", spoken]
    if len(models) == 1:
        return [*ours, "With transformers and peft alone, the base from the hub:", AUTO, ANSWER]
    settings = f"name={backbone.name} layers={backbone.layers} window_s={backbone.window_s}"
    return [
        *ours,
        "With transformers and peft (not peft's `AutoPeftModel`: the base is on no hub):",
        LOAD,
        f"`python -m ermgap.model.backbones {settings}` prints the folder BACKBONE.",
        ANSWER,
    ]


def _listed(values: Mapping) -> str:
    rows = [
        [f"`{key}`", ", ".join(value) if isinstance(value, (list, tuple)) else value]
        for key, value in values.items()
    ]
    return _table(["setting", "value"], rows)


def _table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _percent(value) -> str:
    return f"{100 * value:.1f}" if _known(value) else "–"


def _known(value) -> bool:
    return value is not None and math.isfinite(value)
