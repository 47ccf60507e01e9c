"""How the workers of a group that spans machines find each other."""

from __future__ import annotations

import os

import psutil
import ray
from ray.train.torch import TorchConfig


class Connected(TorchConfig):
    """A TorchConfig whose workers talk over the network that Ray talks over.

    gloo listens where the machine's own name resolves to. Debian and Ubuntu write 127.0.1.1 for it
    into /etc/hosts, and then the workers of other machines are refused ("Gloo connectFullMesh
    failed"). NCCL finds its network by itself.
    """

    @property
    def backend_cls(self) -> type:
        """Ray's backend, with one step before it."""
        return _Backend


class _Backend(TorchConfig().backend_cls):
    def on_start(self, worker_group, backend_config) -> None:
        if len(set(worker_group.execute(ray.util.get_node_ip_address))) > 1:
            worker_group.execute(use_rays_network)
        super().on_start(worker_group, backend_config)


def use_rays_network() -> None:
    """Name to gloo the interface with this node's address in Ray, unless the user named one."""
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if address in (entry.address for entry in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
