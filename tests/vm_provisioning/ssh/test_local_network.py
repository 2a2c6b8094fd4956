"""A Mac of 15 or later that keeps us from its own network, as Apple's TN3179 and its users describe it."""

from __future__ import annotations

import os
import platform
import socket
import time
from typing import Any

import pytest

from symcache.errors import RemoteError
from symcache_provisioning import HostKeyTrust, MachineDefinition, Outcome, SshSession, SshTarget, check_machine
from symcache_provisioning.drivers import Endpoint
from symcache_provisioning.drivers.qemu import QEMU
from symcache_provisioning.machines import life_cycle
from symcache_provisioning.machines.life_cycle import Machine
from symcache_provisioning.ssh.login import Timeouts
from symcache_provisioning.ssh.probe import server_host_key

GUEST = "192.168.64.7"


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Be a Mac of 15.1 without that privilege; return the addresses that were connected to."""
    tried: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError(65, "No route to host")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "release", lambda: "24.1.0")
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def connect(host: str) -> RemoteError:
    times = Timeouts(connect=5, attempts=3, backoff=0.01)
    with pytest.raises(RemoteError) as raised:
        SshSession(SshTarget(host, "admin"), trust=HostKeyTrust(trust_new=True), timeouts=times).connect()
    return raised.value


@pytest.mark.parametrize("host", [GUEST, "10.0.0.9", "fe80::1"])
def test_a_host_of_the_own_network_fails_at_once(host: str, mac: list[Any]) -> None:
    error = connect(host)
    assert len(mac) == 1
    assert f"{host} port 22 cannot be reached: no route to host (errno 65)" in str(error)
    assert "Privacy & Security, Local Network" in error.hint
    with pytest.raises(RemoteError, match="errno 65"):
        server_host_key(host, 22)


@pytest.mark.parametrize(("what", "value"), [("release", "23.6.0"), ("geteuid", 0), ("host", "17.253.144.10")])
def test_where_nobody_is_kept_out_it_is_tried_again(
    what: str, value: Any, mac: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Macs of 14 and earlier, root, and the wide world."""
    if what != "host":
        monkeypatch.setattr(platform if what == "release" else os, what, lambda: value)
    error = connect(value if what == "host" else GUEST)
    assert len(mac) == 3
    assert "Local Network" not in f"{error} {error.hint}"


def test_a_host_of_the_own_network_may_be_down(mac: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket, address: Any) -> None:
        mac.append(address)
        raise OSError(61, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert "cannot be reached: Connection refused" in str(connect(GUEST))
    assert len(mac) == 3


@pytest.mark.usefixtures("mac")
def test_doctor_tells() -> None:
    definition = MachineDefinition.model_validate({"name": "mac", "driver": "static", "host": GUEST})
    (check,) = check_machine(Machine(definition))
    assert (check.name, check.outcome) == ("local network", Outcome.FAIL)
    assert "Privacy & Security, Local Network" in check.hint


@pytest.mark.usefixtures("mac")
def test_a_guest_that_starts_is_not_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short while it is: the address may be an earlier one of a guest that is not there yet."""
    monkeypatch.setattr(life_cycle, "_UNROUTABLE_SECONDS", 0.2)
    monkeypatch.setattr(QEMU, "endpoint", lambda *_: Endpoint(GUEST, 22))
    for name in ("clone", "start", "stop", "destroy"):
        monkeypatch.setattr(QEMU, name, lambda *_: None)
    options = {"arguments": ["{disk}"]}
    definition = MachineDefinition.model_validate(
        {"name": "mac", "driver": "qemu", "image": "x", "boot_timeout": 60, "options": options}
    )
    started = time.monotonic()
    with pytest.raises(RemoteError, match="errno 65"):
        Machine(definition).up()
    assert time.monotonic() - started < 30
