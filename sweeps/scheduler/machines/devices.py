"""What this machine has for a sweep: CPUs, GPUs and memory, the smaller of host and container.

Ray is started with these numbers, so what is planned is what Ray carries. A cgroup's limit may
stand at any level above the process: a container sees its own as the top one, a batch system's job
lies some folders below.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
RECLAIMABLE = ("inactive_file", "active_file")  # the kernel drops these pages when it needs room


@dataclass(frozen=True)
class Devices:
    """CPUs and GPUs, free memory in GB, and why GPUs that one may expect do not count ("")."""

    cpus: int
    gpus: int
    memory_gb: float
    why_no_gpu: str = ""


def here() -> Devices:
    """The devices of this machine that this process may use."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count, reason = gpus()
    free = memory(psutil.virtual_memory().available) / 1e9
    return Devices(cpus(allowed or 1), count, free, reason)


def cpus(allowed: int, *, root: Path = ROOT) -> int:
    """Whole CPUs, at least one: of `allowed` ones, what the quota of each cgroup above leaves."""
    return max(1, int(min([allowed, *_quotas(root)])))


def memory(available: float, *, root: Path = ROOT) -> float:
    """Bytes that can still be taken: of the host's `available` ones, what each cgroup leaves."""
    return max(0.0, min([available, *_remaining(root)]))


def gpus() -> tuple[int, str]:
    """GPUs that both Ray and torch count here, and why there is none ("" if none is expected).

    CUDA ends its list at the first id that does not exist; Ray takes any id for a card.
    """
    cards, named = _rays_count()
    if not cards:
        return 0, f"{named}, and no such GPU is here" if named else ""
    import torch  # seconds: only where there is a card

    if seen := min(cards, torch.cuda.device_count()):
        return seen, ""
    cause = named or f"PyTorch {torch.__version__} or the driver"
    return 0, f"PyTorch sees none of the GPUs that are here ({cause})"


def _rays_count() -> tuple[int, str]:
    """GPUs as Ray counts them, and what the variable that names the visible ones says."""
    try:
        from ray._private import accelerators

        manager = accelerators.get_accelerator_manager_for_resource("GPU")
        visible = manager.get_current_process_visible_accelerator_ids()
        count = manager.get_current_node_num_accelerators()
        variable = manager.get_visible_accelerator_ids_env_var()
    except (ImportError, AttributeError):  # another version of Ray
        import torch

        return torch.cuda.device_count(), ""
    if visible is None:
        return count, ""
    ids = [name for name in visible if name.strip() not in ("", "-1")]
    return min(count, len(ids)), f"{variable} is {','.join(visible)}" if ids else ""


def _quotas(root: Path) -> Iterator[float]:
    """CPUs by the quota of each cgroup."""
    for folder in _cgroups(root, "cpu"):
        quota = _fields(folder / "cpu.max") or (
            _fields(folder / "cpu.cfs_quota_us") + _fields(folder / "cpu.cfs_period_us")
        )
        if len(quota) == 2 and all(map(_is_count, quota)) and float(quota[1]):
            yield float(quota[0]) / float(quota[1])


def _remaining(root: Path) -> Iterator[float]:
    """Bytes that each cgroup with a limit has left, cached files not counted as used."""
    for folder in _cgroups(root, "memory"):
        new = (folder / "memory.max").exists()
        limit = _fields(folder / ("memory.max" if new else "memory.limit_in_bytes"))
        used = _fields(folder / ("memory.current" if new else "memory.usage_in_bytes"))
        if not (limit and used and _is_count(limit[0]) and _is_count(used[0])):
            continue
        counts = _fields(folder / "memory.stat")
        stat = dict(zip(counts[::2], counts[1::2], strict=False))
        cached = sum(float(stat.get(name if new else f"total_{name}", 0)) for name in RECLAIMABLE)
        yield float(limit[0]) - float(used[0]) + cached


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the cgroups of this process that exist, of both versions, from the top down."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        for mounted in (names, controller) if names else ("", "unified"):
            folder = root / "sys/fs/cgroup" / mounted
            for part in ("", *path.split("/")):
                if part != "..":  # above what this container sees
                    folder = folder / part
                if folder.is_dir():  # one may come twice: it limits no less
                    yield folder


def _fields(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _is_count(text: str) -> bool:
    """Whether it is a number and no "max" or -1, which set no limit."""
    return text.isdecimal()
