"""Build or download a backbone before the first sweep needs it.

python -m ermgap.model.backbones name=small window_s=2
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ermgap import config
from ermgap.errors import command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: `key=value` of the configuration's section `backbone`."""
    arguments, values = sys.argv[1:] if arguments is None else arguments, {}
    config.apply_settings(values, [f"backbone.{setting}" for setting in arguments], option="")
    settings = config.from_dict(values).backbone
    import torch

    from ermgap.model import qwen2_audio
    from ermgap.model.backbones import BACKBONES

    settings = qwen2_audio.resolved(settings, torch.device("cpu"))
    print(f"backbone: {BACKBONES.find(settings.name)(settings)}")
    return 0


if __name__ == "__main__":
    command_line(main)
