"""Build or fetch a backbone beforehand, so that the first sweep need not.

python -m ermgap.backbone name=small window_s=2
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import yaml

from ermgap import config
from ermgap.errors import UserError, command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: `key=value` of the configuration's section `backbone`."""
    import sys

    changes = {}
    for setting in sys.argv[1:] if arguments is None else arguments:
        key, separator, text = setting.partition("=")
        if not separator:
            raise UserError(f"{setting} is not of the form key=value; write it so.")
        changes[f"backbone.{key}"] = yaml.safe_load(text)
    settings = config.Config().replace(changes).backbone
    import torch

    from ermgap.backbone import BACKBONES, qwen2_audio

    dtype = qwen2_audio.resolve_dtype(settings.dtype, torch.device("cpu"))
    settings = dataclasses.replace(settings, dtype=str(dtype).removeprefix("torch."))
    print(f"backbone: {BACKBONES.find(settings.name)(settings)}")
    return 0


if __name__ == "__main__":
    command_line(main)
