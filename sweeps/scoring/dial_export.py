"""One position of a dial as an adapter of its own, which needs neither end any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ermgap.adapters import load_line
from ermgap.config import Config, old_forms
from ermgap.errors import UserError
from ermgap.records import Records, dial_id
from sweeps.scoring.dial import Line, folders_of


def require(lines: Sequence[Line], out: Path) -> None:
    """UserError where there is more than one line, or something lies where it would be written."""
    if len(lines) > 1:
        named = "; ".join(" ".join(line) for line in lines)
        raise UserError(f"--export is of one line; name it with --ends, one of: {named}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} holds something already; name a new folder.")


def write(records: Records, config: Config, line: Line, position: float, out: Path) -> None:
    """Write the adapter at a position whose row is there, in peft's format, with its card.

    Raises:
        UserError: the folder cannot be written, or as the backbone and the adapters.
    """
    import torch

    from ermgap.baselines import Context
    from ermgap.baselines.arguments import adapter_config
    from ermgap.model import qwen2_audio
    from ermgap.model.cached_folder import quiet
    from ermgap.training import model_card

    lower, upper = folders_of(records, line)
    name = dial_id(*line, position)
    row = next(row for row in records.dial() if row["id"] == name)
    context = Context(config.data.labels, config, "cpu", records.directory)
    backbone = adapter_config(str(upper), context).backbone
    with quiet():
        speech = qwen2_audio.load(backbone, labels=config.data.labels, device=torch.device("cpu"))
    load_line(speech, lower, upper, [position])
    [adapter] = speech.adapters
    ending, table = old_forms.current_config(model_card.read(upper)), records.table()
    facts = model_card.CardFacts(
        trial_id=name,
        config=config.replace(
            {
                **{f"adapter.{key}": value for key, value in vars(adapter.settings).items()},
                **{f"objective.{key}": value for key, value in ending["objective"].items()},
            }
        ),
        utterances=table[table["split"].isin(("train", "dev"))],
        dev=row["dev"],
        epoch=ending["epoch"],
        base=speech.model.name_or_path,
        prompt=ending["prompt"]["texts"],
        line=(*line, position),
    )
    try:
        model_card.save(out, adapter, facts=facts)
    except OSError as problem:
        raise UserError(
            f"--out {out} cannot be written ({problem.strerror or problem}); name another folder."
        ) from problem
