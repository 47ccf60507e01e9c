"""Adapters on the line between two saved ones: `lower` at position 0, `upper` at position 1.

    require_line("adapters/t0000", "adapters/t0007")     # UserError where they do not go together
    load_line(speech, "adapters/t0000", "adapters/t0007", [0.0, 0.5, 1.0])     # three in one pass

At position a the update of every module is (1 - a) dW_lower + a dW_upper, exactly: the factors of
both lie side by side, in an adapter of rank r_lower + r_upper. (Means of A and of B would not be
it: their product has cross terms.) A projector, which is trained whole, is interpolated value by
value; of an end that trained none it is the pretrained one. torch is imported when tensors are.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from ermgap.adapters.saved_adapter import load_adapter
from ermgap.errors import UserError
from ermgap.records import file_names
from ermgap.training import model_card

LAST = 1.5  # position: further beyond the upper end nothing was tried


def position_of(text: str | float) -> float:
    """A position on a line, from 0 to LAST; UserError for anything else."""
    try:
        position = float(text)
    except ValueError:
        position = math.nan
    if not 0 <= position <= LAST:
        raise UserError(
            f"the dial's position {text} is not possible: it is a number from 0 (the lower end) "
            f"over 1 (the upper end) to {LAST}."
        )
    return position


def require_line(lower: Path | str, upper: Path | str) -> None:
    """UserError unless two adapters' folders can be the ends of a line; no tensor is read."""
    ends = [_comparable(model_card.read(folder)) for folder in (lower, upper)]
    for what, value in ends[0].items():
        if value != ends[1][what]:
            raise UserError(
                f"there is no line from {lower} to {upper}: they differ in their {what}; name two "
                "trials of one sweep."
            )


def _comparable(metadata: dict) -> dict[str, object]:
    """What both ends of a line have in common, by what a user calls it."""
    return {
        "backbone": {k: v for k, v in metadata["backbone"].items() if k not in ("path", "prompt")},
        "prompt": metadata["prompt"]["texts"],
        "labels": metadata["data"].get("labels"),
        "targets (adapter.targets)": sorted(metadata["adapter"].get("targets", ())),
    }


def load_line(speech, lower: Path | str, upper: Path | str, positions: Sequence[float]) -> None:
    """Replace the adapters of a `SpeechLLM` by those at K positions, for one pass over all.

    Raises:
        UserError: as `load_adapter` for either end.
    """
    import torch

    ends = []
    for folder in (lower, upper):
        load_adapter(speech, folder)
        ends += speech.adapters
    settings = dataclasses.replace(
        ends[1].settings,
        r=(rank := sum(end.settings.r for end in ends)),
        alpha=rank,  # a scaling of 1: each end's own is in its columns of B
        dropout=0.0,
        train_projector=any(end.settings.train_projector for end in ends),
    )
    speech.set_adapters([settings] * len(positions), seeds=[0] * len(positions))
    with torch.no_grad():
        for adapter, position in zip(speech.adapters, positions, strict=True):
            shares = (1 - position, position)
            for name, parameter in adapter.parameters.items():
                parameter.copy_(_between(name, ends, shares, speech.model))


def _between(name: str, ends: Sequence, shares: tuple[float, float], model):
    """The parameter of this name (ermgap.model.lora) that has these shares of both ends."""
    import torch

    both = list(zip(shares, ends, strict=True))
    if name.endswith("lora_A.weight"):
        return torch.cat([end.parameters[name] for end in ends])
    if name.endswith("lora_B.weight"):
        columns = [share * end.scaling * end.parameters[name] for share, end in both]
        return torch.cat(columns, dim=1)
    return sum(
        share * (end.parameters[name] if name in end.parameters else model.get_parameter(name))
        for share, end in both
    )


# Which line an adapter is the upper end of --------------------------------------------------------


def line_file(lower: str) -> str:
    """The content of `dial.json` in the upper end's folder: the lower end's folder beside it."""
    return json.dumps({"lower": f"../{lower}"}) + "\n"


def lower_end(upper: Path | str) -> Path:
    """The folder of the adapter at position 0 of the line that ends in `upper`.

    Raises:
        UserError: no dial was made for it, or the folder is not there.
    """
    path = Path(upper) / file_names.ADAPTER_DIAL
    try:
        lower = Path(upper) / json.loads(path.read_text(encoding="utf-8"))["lower"]
    except FileNotFoundError:
        raise UserError(
            f"{upper} is the upper end of no dial; make one with python sweeps/dial.py --sweep DIR "
            "--ends LOWER UPPER."
        ) from None
    except (OSError, ValueError, LookupError, TypeError) as problem:
        raise UserError(f"{path} is damaged ({type(problem).__name__}); remove it.") from problem
    if not lower.is_dir():
        raise UserError(
            f"the lower end of the dial of {upper} is not in {lower}; copy its folder there."
        )
    return lower
