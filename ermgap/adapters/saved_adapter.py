"""An adapter that a run saved, for use: what its answers depend on, and its tensors.

    settings = settings_of("results/small/adapters/t0004")      # a Config; UserError if damaged
    speech = qwen2_audio.load(settings.backbone, labels=settings.data.labels, device=device)
    load_adapter(speech, "results/small/adapters/t0004")

Its card (`ermgap.training.model_card`) tells the settings, `adapter_model.safetensors` holds the
tensors. torch is imported when tensors are loaded.
"""

from __future__ import annotations

from pathlib import Path

from ermgap import config
from ermgap.errors import UserError, first_line
from ermgap.training import model_card


def settings_of(folder: Path | str, *, backbone: Path | str | None = None) -> config.Config:
    """The part of a run's configuration that its answers depend on: data, backbone, adapter.

    Its prompt is the text that the adapter was trained with, registered under a name of its own.
    `backbone` is a folder that is used instead of the named one. Raises UserError as `card.read`.
    """
    from ermgap.model import prompts

    told = model_card.read(folder)
    name = f"{told['prompt']['name']}@{told['prompt']['version']}"
    prompts.PROMPTS[name] = told["prompt"]["texts"]
    kept = ("labels", "modalities", "min_support", "cell_support")
    data = {key: told["data"].get(key) for key in kept}
    held = told["backbone"] | {"path": None, "prompt": name}
    if backbone is not None:
        # The paper's backbone is the one whose loader takes any folder that holds a Qwen2-Audio.
        held |= {"name": "qwen2-audio-7b", "path": str(backbone)}
    values = {"data": data, "backbone": held, "adapter": told["adapter"]}
    path = Path(folder) / model_card.NAME
    try:
        return config.from_dict(values, where=str(path))
    except UserError as problem:
        raise UserError(f"{path} is damaged or not of this version: {problem}") from problem


def load_adapter(speech, folder: Path | str) -> None:
    """Replace the adapters of a `SpeechLLM` by the one of a folder; UserError if it does not fit.

    `ermgap.json` tells its settings, `adapter_model.safetensors` holds its tensors by peft's names.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / "adapter_model.safetensors"
    told = model_card.read(folder)
    speech.reset_adapter(config.from_dict({"adapter": told["adapter"]}).adapter, seed=0)
    try:
        found = {k.removeprefix("base_model.model."): v for k, v in load_file(path).items()}
    except (OSError, SafetensorError) as problem:
        raise UserError(f"{path} cannot be read ({first_line(problem)}); restore it.") from problem
    parameters = speech.adapters[0].parameters
    wanted = {name: tuple(value.shape) for name, value in parameters.items()}
    if wrong := [name for name in {**wanted, **found} if wanted.get(name) != _shape(found, name)]:
        raise UserError(
            f"the adapter in {folder} was trained on another backbone: {wrong[0]} is "
            f"{_shape(found, wrong[0])} there and {wanted.get(wrong[0])} in this one; give the "
            f"backbone {told['backbone']['name']!r} that it was trained on with --backbone PATH."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(found[name])


def _shape(tensors: dict, name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
