"""Nodes that go, a head that goes, a clock that jumps; each function is a row of the fault table.

The nodes are Ray nodes of their own on this machine (ray.cluster_utils); `make test-cluster` has
hosts with networks of their own.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import real_sweep
from disks import Impossible
from scene import Scene, committed, environment

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}
CLOCK = Path(__file__).parent / "jump.c"


def node_lost(scene: Scene) -> None:
    """a node is lost in the middle of an epoch; another one comes"""
    with cluster(scene) as nodes, scene.sweep(*on(nodes)) as run:
        scene.wait_for_its_moment(run)
        lose_a_node(scene, nodes)
        scene.ends(run)


def node_lost_saving(scene: Scene) -> None:
    """a node is lost while it writes a checkpoint; another one comes"""
    with cluster(scene) as nodes, scene.sweep(*on(nodes)) as run:
        scene.wait_for_its_moment(run, within=4.0)
        run.until(lambda: (scene.folder / "saving").exists())
        lose_a_node(scene, nodes)
        scene.ends(run)


def head_lost(scene: Scene) -> None:
    """the head's Ray is killed under the driver"""
    with cluster(scene) as nodes, scene.sweep(*on(nodes)) as run:
        scene.wait_for_its_moment(run)
        nodes.remove_node(nodes.head_node, allow_graceful=False)
        assert scene.ends(run, well=False) != 0, run.said
        scene.more["seconds_to_stop"] = round(time.monotonic() - scene.struck, 1)
        scene.before = committed(scene.out)
    with cluster(scene) as nodes:
        scene.resume("--address", nodes.address)


def clock_jump(scene: Scene) -> None:
    """the clock jumps an hour forward, or back"""
    compiler, library = shutil.which("cc"), scene.folder / "jump.so"
    if compiler is None:
        raise Impossible("a C compiler is needed for the clock")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, CLOCK], check=True)
    clock = scene.folder / "clock"
    clock.write_bytes(struct.pack("q", 0))
    with environment(LD_PRELOAD=str(library), ERMGAP_CLOCK=str(clock)):
        run = scene.sweep()
    with run:
        scene.wait_for_its_moment(run)
        jump = scene.chance.choice([3600, -3600])
        with open(clock, "r+b") as file:  # the page that all processes share, not another file
            file.write(struct.pack("q", jump))
        scene.more["jump"] = jump
        scene.ends(run)


@contextmanager
def cluster(scene: Scene):
    """A head and two nodes, of one CPU each: a slot on each of them."""
    from ray.cluster_utils import Cluster

    paths = f"{real_sweep.ROOT}:{real_sweep.ROOT / 'tests'}"
    with environment(ERMGAP_TEST=str(scene.folder), PYTHONPATH=paths):
        made = Cluster(
            initialize_head=True,
            head_node_args=NODE | {"object_store_memory": 200_000_000},
        )
        for number in range(2):
            made.add_node(**NODE, node_ip_address=address(number))
    try:
        yield made
    finally:
        made.shutdown()


def on(nodes) -> tuple[str, ...]:
    """Options of a sweep on the nodes."""
    return ("--address", nodes.address, "--storage", "shared", "--set", "sweep.slots=3")


def lose_a_node(scene: Scene, nodes) -> None:
    """Kill everything on one of the two nodes at once; some seconds later there is a new one."""
    scene.note()
    victim = scene.chance.choice(sorted(nodes.worker_nodes, key=lambda node: node.unique_id))
    nodes.remove_node(victim, allow_graceful=False)
    time.sleep(scene.chance.uniform(1, 10))
    with environment(ERMGAP_TEST=str(scene.folder)):
        nodes.add_node(**NODE, node_ip_address=address(2))


def address(number: int) -> str:
    """Of a node of its own: Tune's trials are pinned to the driver's node by its address."""
    return f"127.0.0.{number + 2}"
