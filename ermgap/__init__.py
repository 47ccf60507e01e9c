"""ERM-GAP: fine-tune speech-emotion models under `ERM + lambda * (largest gender gap)^p`."""

from __future__ import annotations

import os
from pathlib import Path

__version__ = "0.1.0"


def cache_dir() -> Path:
    """Where backbones and frozen features are kept: $ERMGAP_CACHE, or ~/.cache/ermgap."""
    return Path(os.environ.get("ERMGAP_CACHE") or Path.home() / ".cache" / "ermgap").absolute()
