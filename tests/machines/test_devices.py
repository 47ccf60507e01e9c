"""Devices of a machine: the smaller of host and container, and GPUs that Ray and torch both see."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from ermgap.errors import UserError
from sweeps.scheduler import slots
from sweeps.scheduler.machines import devices

GB = 1 << 30


def cgroups(root: Path, *, listed: str, files: dict[str, object]) -> Path:
    """A made-up /proc/self/cgroup and the files of cgroups below it."""
    for name, content in {"proc/self/cgroup": listed, **files}.items():
        path = root / name if name.startswith("proc") else root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def stat(cached: float, prefix: str = "") -> str:
    return f"anon 1\n{prefix}inactive_file {int(cached / 2)}\n{prefix}active_file {int(cached / 2)}"


def test_a_container_of_version_2_has_two_of_64_cores_and_3_of_24_gb(tmp_path):
    root = cgroups(
        tmp_path,
        listed="0::/",
        files={
            "cpu.max": "200000 100000",
            "memory.max": 4 * GB,
            "memory.current": 2 * GB,
            "memory.stat": stat(GB),
        },
    )
    assert devices.cpus(64, root=root) == 2
    assert devices.memory(24 * GB, root=root) == pytest.approx(3 * GB, rel=1e-6)


def test_a_container_of_version_1_sees_its_limits_at_the_top(tmp_path):
    root = cgroups(
        tmp_path,
        listed="4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc",
        files={
            "cpu,cpuacct/cpu.cfs_quota_us": 150000,
            "cpu,cpuacct/cpu.cfs_period_us": 100000,
            "memory/memory.limit_in_bytes": 4 * GB,
            "memory/memory.usage_in_bytes": 2 * GB,
            "memory/memory.stat": stat(GB, "total_"),
        },
    )
    assert devices.cpus(64, root=root) == 1
    assert devices.memory(24 * GB, root=root) == pytest.approx(3 * GB, rel=1e-6)


def test_the_job_of_a_batch_system_is_limited_by_any_level_above_it(tmp_path):
    job = "system.slice/slurmstepd.scope/job_7"
    root = cgroups(
        tmp_path,
        listed=f"0::/{job}/step_0/user",
        files={
            f"{job}/cpu.max": "400000 100000",
            f"{job}/step_0/cpu.max": "max 100000",
            f"{job}/memory.max": 8 * GB,
            f"{job}/memory.current": GB,
            f"{job}/step_0/memory.max": "max",
            f"{job}/step_0/memory.current": GB,
        },
    )
    assert devices.cpus(64, root=root) == 4
    assert devices.memory(64 * GB, root=root) == 7 * GB


@pytest.mark.parametrize(
    ("listed", "files"),
    [
        ("", {}),
        ("0::/", {"cpu.max": "max 100000", "memory.max": "max", "memory.current": 5}),
        ("nonsense", {"cpu.max": "1", "memory.max": ""}),
        ("0::/", {"cpu.max": "", "memory.max": "7", "memory.current": "much"}),
        (
            "1:cpu:/\n2:memory:/",
            {
                "cpu/cpu.cfs_quota_us": -1,
                "cpu/cpu.cfs_period_us": 100000,
                "memory/memory.limit_in_bytes": (1 << 63) - 4096,
                "memory/memory.usage_in_bytes": GB,
            },
        ),
    ],
)
def test_what_sets_no_limit_leaves_the_hosts(tmp_path, listed, files):
    root = cgroups(tmp_path, listed=listed, files=files)
    assert devices.cpus(8, root=root) == 8
    assert devices.memory(24 * GB, root=root) == 24 * GB


def test_half_a_cpu_is_one_and_a_full_container_has_no_memory_left(tmp_path):
    files = {"cpu.max": "50000 100000", "memory.max": GB, "memory.current": 2 * GB}
    root = cgroups(tmp_path, listed="0::/", files=files)
    assert devices.cpus(64, root=root) == 1
    assert devices.memory(24 * GB, root=root) == 0


def test_the_affinity_of_the_process_counts_too():
    assert 1 <= devices.here().cpus


# -- GPUs ------------------------------------------------------------------------------------------


@pytest.fixture
def cards(monkeypatch):
    """A machine with so many cards, of which torch sees so many."""
    from ray._private.accelerators import NvidiaGPUAcceleratorManager as Nvidia

    def made(there: int, torchs: int) -> None:
        torch = types.SimpleNamespace(
            cuda=types.SimpleNamespace(device_count=lambda: torchs), __version__="2.13.0"
        )
        monkeypatch.setattr(Nvidia, "get_current_node_num_accelerators", lambda: there)
        monkeypatch.setitem(sys.modules, "torch", torch)

    return made


@pytest.mark.parametrize(
    ("visible", "there", "torchs", "expected", "why"),
    [
        (None, 0, 0, 0, ""),
        (None, 4, 4, 4, ""),
        (None, 2, 0, 0, "PyTorch 2.13.0"),  # a build without CUDA, or no driver
        ("0", 0, 0, 0, "CUDA_VISIBLE_DEVICES is 0, and no such GPU"),
        ("0,1,2", 0, 0, 0, "0,1,2"),
        ("NoDevFiles", 0, 0, 0, ""),
        ("NoDevFiles", 2, 0, 0, ""),
        ("", 2, 0, 0, ""),
        ("-1", 2, 0, 0, ""),
        ("0,1,2,3", 2, 2, 2, ""),  # more ids than cards
        ("0,9", 2, 1, 1, ""),  # CUDA ends its list at the first id that is none
        ("9,0", 2, 0, 0, "CUDA_VISIBLE_DEVICES is 9,0"),
        ("GPU-9f", 0, 0, 0, "GPU-9f"),
    ],
)
def test_gpus_are_those_that_ray_and_torch_both_see(
    cards, monkeypatch, visible, there, torchs, expected, why
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards(there, torchs)
    count, reason = devices.gpus()
    assert count == expected
    assert why in reason and bool(why) == bool(reason)


# -- What a sweep makes of them --------------------------------------------------------------------


def plan(*nodes: dict, **more) -> slots.Layout:
    asked = {"device": "auto", "memory_gb": 64, "trials": 9, "slots": None, "workers": 1}
    return slots.plan_layout(nodes, **asked | more)


def test_auto_takes_gpus_where_a_node_has_one_and_else_the_cpus():
    assert plan({"CPU": 2, "GPU": 0}) == slots.Layout(2, 1, 1, gpu=False)
    assert plan({"CPU": 8, "GPU": 2}) == slots.Layout(2, 1, 4, gpu=True)
    assert plan({"CPU": 8, "GPU": 2}, device="cpu").gpu is False
    assert plan({"CPU": 8, "GPU": 2}, memory_gb=3, device="cpu").slots == 1


def test_a_gpu_that_is_not_there_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"no GPU is here \(CUDA_VISIBLE_DEVICES is 0\); set it"):
        plan({"CPU": 2}, device="gpu", why_no_gpu="CUDA_VISIBLE_DEVICES is 0")


@pytest.mark.parametrize(
    "nodes",
    [
        [{"CPU": 2, "GPU": 4}],  # a worker takes a CPU, too
        [{"CPU": 64}, {"GPU": 4}],  # of the same node
        [{"CPU": 8, "GPU": 3}, {"CPU": 0.5, "GPU": 1}],
    ],
)
def test_a_group_that_no_nodes_carry_is_refused_instead_of_waited_for(nodes):
    with pytest.raises(UserError, match=r"4 worker\(s\) do not fit on 4 GPU\(s\) and"):
        plan(*nodes, workers=4, device="gpu")


def test_a_group_may_lie_on_several_nodes():
    assert plan({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}, workers=4).slots == 1
