"""ERM-GAP: fine-tune speech-emotion models under `ERM + lambda * (largest gender gap)^p`."""

from __future__ import annotations

import os
from pathlib import Path

__version__ = "0.1.0"


def cache_dir() -> Path:
    """Where backbones and frozen features are kept: $ERMGAP_CACHE, or ~/.cache/ermgap."""
    return Path(os.environ.get("ERMGAP_CACHE") or Path.home() / ".cache" / "ermgap").absolute()


def be_polite() -> None:
    """Let idle OpenMP threads sleep; to be called before torch is imported.

    On two cores spinning threads starve Ray's own processes: six empty trials took 130 s beside a
    trainer whose threads spun, 59 s beside one whose threads slept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
