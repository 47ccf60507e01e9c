"""Nodes that a sweep requests of a cluster that grows: after every check, and never at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress

from ermgap.errors import first_line


def ask(worker: Mapping[str, float], count: int) -> None:
    """Ask for nodes that carry `count` workers; each worker may lie on another node."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(worker)] * count)


def clear() -> None:
    """Ask for nothing any more, or the nodes stay and cost; prints it where that fails, twice."""
    from ray.autoscaler.sdk import request_resources

    with suppress(Exception):
        return request_resources(bundles=[])
    try:
        request_resources(bundles=[])
    except Exception as problem:
        print(
            f"the request for GPUs could not be taken back "
            f"({first_line(problem)}); end it with 'ray down', or they go on costing.",
            file=sys.stderr,
            flush=True,
        )


def grows() -> bool:
    """Whether the cluster may get nodes by itself, as far as Ray says; True where it does not.

    The first autoscaler reports the types of its nodes, `node_ID` where somebody started them by
    hand; the second one labels them.
    """
    import ray
    from ray.experimental.internal_kv import _internal_kv_get

    try:
        if status := _internal_kv_get("__autoscaling_status"):
            report = json.loads(status)["autoscaler_report"]
            types = [*(report["active_nodes"] or ()), *(report.get("idle_nodes") or ())]
            coming = report["pending_nodes"] or report["pending_launches"]
            return bool(coming) or not all(name.startswith("node_") for name in types)
        return any("ray.io/node-group" in node.get("Labels", {}) for node in ray.nodes())
    except Exception:  # another version of Ray, or a head that is busy
        return True
