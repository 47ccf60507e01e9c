"""A plugin for tests: every worker of a slot notes where it runs, and from which files.

The file `places/RANK-HOST` of $ERMGAP_TEST holds the path of the package.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import torch.distributed as dist

import ermgap

if dist.is_available() and dist.is_initialized():  # not the driver, nor the broker
    folder = Path(os.environ["ERMGAP_TEST"]) / "places"
    folder.mkdir(exist_ok=True)
    (folder / f"{dist.get_rank()}-{socket.gethostname()}").write_text(ermgap.__file__)
