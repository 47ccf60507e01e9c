"""Loading an adapter that a run saved: its configuration and its tensors.

    config = config_of("results/small/adapters/t0004")      # UserError if damaged
    speech = qwen2_audio.load(config.backbone, labels=config.data.labels, device=device)
    load_adapter(speech, "results/small/adapters/t0004")

The folder's `ermgap.json` (`ermgap.training.model_card`) holds the configuration,
`adapter_model.safetensors` the tensors. torch is imported when tensors are loaded.
"""

from __future__ import annotations

from pathlib import Path

from ermgap import config
from ermgap.errors import UserError, first_line
from ermgap.records import file_names
from ermgap.training import model_card


def config_of(folder: Path | str, *, backbone: Path | str | None = None) -> config.Config:
    """The part of the run's configuration that answers depend on: data, backbone, adapter.

    The prompt is the text that the adapter was trained with, registered under a name of its own.
    `backbone` is a folder to use instead of the named one. Raises UserError as `model_card.read`.
    """
    from ermgap.model import prompts

    metadata = model_card.read(folder)
    name = f"{metadata['prompt']['name']}@{metadata['prompt']['version']}"
    prompts.PROMPTS[name] = metadata["prompt"]["texts"]
    keys = ("labels", "modalities", "min_support", "cell_support")
    values = {
        "data": {key: metadata["data"].get(key) for key in keys},
        "backbone": metadata["backbone"] | {"path": None, "prompt": name},
        "adapter": metadata["adapter"],
    }
    if backbone is not None:
        # The paper's backbone is the one whose loader takes any folder that holds a Qwen2-Audio.
        values["backbone"] |= {"name": "qwen2-audio-7b", "path": str(backbone)}
    path = Path(folder) / file_names.ADAPTER_SETTINGS
    try:
        return config.from_dict(values, where=str(path))
    except UserError as problem:
        raise UserError(f"{path} is damaged or not of this version: {problem}") from problem


def load_adapter(speech, folder: Path | str) -> None:
    """Replace the adapter of a `SpeechLLM` by the one of a folder; UserError if it does not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / file_names.ADAPTER_WEIGHTS
    metadata = model_card.read(folder)
    speech.reset_adapter(config.from_dict({"adapter": metadata["adapter"]}).adapter, seed=0)
    try:
        tensors = {k.removeprefix("base_model.model."): v for k, v in load_file(path).items()}
    except (OSError, SafetensorError) as problem:
        raise UserError(f"{path} cannot be read ({first_line(problem)}); restore it.") from problem
    parameters = speech.adapters[0].parameters
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    expected = {name: tuple(value.shape) for name, value in parameters.items()}
    if wrong := [name for name in expected | shapes if expected.get(name) != shapes.get(name)]:
        raise UserError(
            f"the adapter in {folder} was trained on another backbone: {wrong[0]} is "
            f"{shapes.get(wrong[0])} there and {expected.get(wrong[0])} in this one; give the "
            f"backbone {metadata['backbone']['name']!r} that it was trained on with --backbone "
            "PATH."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
