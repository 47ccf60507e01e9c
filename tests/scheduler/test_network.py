"""Workers of a group on several machines meet on Ray's network, not where their names point."""

from __future__ import annotations

import os

import psutil
import pytest
import ray

from sweeps.scheduler.machines import network


class Group:
    """A worker group of Ray Train as far as a backend's first step needs one."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses, self.asked = addresses, []

    def execute(self, function, **given) -> list:
        self.asked.append(function.__name__)
        return self.addresses


@pytest.fixture
def no_interface(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # so that it is as before afterwards
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")


def steps(addresses: list[str], monkeypatch) -> list[str]:
    """What the backend asks of the workers before Ray's own part."""
    backend = network.Connected().backend_cls()
    monkeypatch.setattr(type(backend).__mro__[1], "on_start", lambda *given: None)
    group = Group(addresses)
    backend.on_start(group, network.Connected())
    return group.asked


def test_workers_of_one_machine_are_left_as_they_are(monkeypatch):
    assert steps(["10.0.0.1", "10.0.0.1"], monkeypatch) == ["get_node_ip_address"]


def test_workers_of_two_machines_name_their_interface(monkeypatch):
    assert steps(["10.0.0.1", "10.0.0.2"], monkeypatch)[1:] == ["use_rays_network"]


def test_the_interface_is_the_one_that_holds_rays_address(monkeypatch, no_interface):
    name, held = next(iter(psutil.net_if_addrs().items()))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: held[0].address)
    network.use_rays_network()
    assert os.environ["GLOO_SOCKET_IFNAME"] == name


def test_an_interface_that_the_user_named_is_kept(monkeypatch, no_interface):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    network.use_rays_network()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"
