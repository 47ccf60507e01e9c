"""What all trials of a sweep share: the backbone, the features, the indexed splits.

A worker prepares it once and trains one trial after another on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ermgap import attributes, config
from ermgap.distributed import World
from ermgap.metrics import minimum_per_side
from ermgap.model import qwen2_audio
from ermgap.model.batches import IndexedUtterances, cells_of
from ermgap.model.features import store as features
from ermgap.records import Storage
from ermgap.registry import load_plugins


@dataclass(frozen=True)
class TrainingContext:
    """The indexed splits, their cells, and where files go: the same for all trials of a sweep."""

    train: IndexedUtterances
    dev: IndexedUtterances
    cells: list[tuple[str, str]]
    storage: Storage
    base: str = ""  # name or folder of the backbone, for the adapters that are written


def prepare(setup: dict, world: World, note) -> tuple[qwen2_audio.SpeechLLM, TrainingContext]:
    """Load the backbone, make sure of the features, and index the splits.

    Args:
        setup: `config` (nested dict), `table` (all utterances), `storage` (folder or URI),
            `features` (folder of the feature store instead of the user's cache, or None).
        world: this process among the workers.
        note: called with one line of progress.

    Raises:
        UserError: whatever the user can fix (weights, labels, plugins, audio).
    """
    settings = config.from_dict(setup["config"])
    load_plugins(settings.plugins)
    note("loading the backbone")
    speech = qwen2_audio.load(
        settings.backbone,
        labels=settings.data.labels,
        device=world.device,
        shards=world if settings.train.parallel == "fsdp" and world.size > 1 else None,
    )
    table = setup["table"]
    note("audio features")
    cache = Path(setup["features"]) if setup.get("features") else None
    store = features_of(speech, table, cache=cache, note=note)
    attribute = settings.objective.attribute
    cells = cells_of(table, settings.data.modalities, attribute)
    sides = attributes.sides(table, attribute)  # of the whole table, whichever a split lacks
    splits = {
        split: IndexedUtterances(
            table[table["split"] == split],
            store=store,
            prompt=speech.prompt,
            labels=settings.data.labels,
            cells=cells,
            attribute=attribute,
            sides=sides,
        )
        for split in ("train", "dev")
    }
    data = settings.data
    splits["train"].forget_rare_sides(
        utterances=minimum_per_side(min_support=data.min_support, cell_support=data.cell_support),
        speakers=data.speaker_support,
    )
    note("ready")
    return speech, TrainingContext(
        splits["train"],
        splits["dev"],
        cells,
        Storage(setup["storage"]),
        speech.model.name_or_path,
    )


def features_of(
    speech: qwen2_audio.SpeechLLM, table, *, cache: Path | None = None, note=lambda text: None
) -> features.FeatureStore:
    """The audio tower's outputs for a table's clips, computed where they are not kept yet.

    Args:
        cache: folder of the store instead of the user's cache.
        note: called with one line of progress.
    """
    return features.ensure(
        table,
        speech.model,
        speech.extractor,
        revision=features.tower_revision(speech.model),
        window_s=speech.settings.window_s,
        dtype=str(speech.dtype).removeprefix("torch."),
        device=speech.device,
        cache=cache,
        progress=lambda done, of: (
            note(f"audio features {done}/{of}") if done % 16 == 0 or done == of else None
        ),
    )
