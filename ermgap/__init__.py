"""ERM-GAP: fine-tune speech-emotion models under `ERM + lambda * (largest gender gap)^p`."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__version__ = "0.1.0"


def cache_dir() -> Path:
    """The folder of backbones and audio features: $ERMGAP_CACHE, or ~/.cache/ermgap."""
    return Path(os.environ.get("ERMGAP_CACHE") or Path.home() / ".cache" / "ermgap").absolute()


def let_idle_threads_sleep() -> None:
    """Make idle OpenMP threads sleep, not spin; to be called before torch is imported.

    On two cores, threads that spin starve Ray's own processes: six empty trials took 130 s beside a
    trainer whose threads spun, 59 s beside one whose threads slept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def keep_freed_memory() -> None:
    """Make this process keep freed memory for its next allocation (glibc only).

    Each training step allocates the same megabytes. By default they go back to the kernel and come
    anew, page by page: 4,500 page faults and a tenth of a step's time on a CPU.
    """
    trim, top, mapped = -1, -2, -3  # malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return
    for option, size in ((mapped, 1 << 30), (trim, (1 << 31) - 1), (top, 1 << 26)):
        mallopt(option, size)
