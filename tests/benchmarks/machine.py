"""What the numbers were measured on, without a host name, and the device's matrix peak."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import time
from pathlib import Path

PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pandas")
# Rows, inner size, columns. On a CPU no single shape is the fastest in every dtype.
PRODUCTS = {
    "cpu": [(side, side, side) for side in (512, 1024, 2048, 4096)] + [(8192, 576, 1536)],
    "cuda": [(side, side, side) for side in (4096, 8192, 16384)],
}
ENOUGH_S = 2.0


def cpu_model() -> str:
    """The processor's name, as Linux tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def cpu_flags() -> list[str]:
    """The instruction sets that matter to matrix products."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    found = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
    return [flag for flag in known if found and flag in found.group(1).split()]


def slug(name: str) -> str:
    """`Intel(R) Xeon(R) Processor` -> `intel-xeon-processor`."""
    plain = re.sub(r"\((r|tm)\)", "", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def name_of(device: str) -> str:
    """Of the results file: the GPU's or the CPU's name."""
    import torch

    return slug(torch.cuda.get_device_name() if device == "cuda" else cpu_model())


def describe(device: str, *, threads: int) -> dict:
    """Processor, cores, memory, versions and threads."""
    import torch

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = {
        "processor": cpu_model(),
        "instructions": cpu_flags(),
        "cores": cores,
        "threads": threads,
        "memory_gb": round(pages / 1e9, 1),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        told |= {
            "gpu": torch.cuda.get_device_name(),
            "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
        }
    return told


def synchronise(device: str) -> None:
    """Wait for the GPU; nothing on a CPU."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory_mb(device: str) -> float:
    """High-water mark of this process: on a GPU of torch's allocations, else of resident memory."""
    import torch

    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    try:
        # getrusage would tell the parent's where that is larger: it outlives exec on Linux.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return round(int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1.024e-3, 1)
    except (OSError, AttributeError):
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)


def matrix_peak(device: str, dtype: str, *, enough_s: float = ENOUGH_S, products=None) -> float:
    """FLOP/s of the best of repeated products of matrices of this dtype."""
    import torch

    best = 0.0
    for rows, inner, columns in products or PRODUCTS[device]:
        a = torch.randn(rows, inner, device=device).to(getattr(torch, dtype))
        b = torch.randn(inner, columns, device=device).to(a.dtype)
        a @ b
        started = time.perf_counter()
        while time.perf_counter() - started < enough_s:
            synchronise(device)
            before = time.perf_counter()
            a @ b
            synchronise(device)
            seconds = time.perf_counter() - before
            best = max(best, 2 * rows * inner * columns / seconds)
    return best
