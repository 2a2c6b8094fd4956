"""A machine that symcache does not start: a Mac, a cloud instance, a VM that is managed otherwise."""

from __future__ import annotations

from symcache_provisioning.drivers.protocol import Capabilities, Driver, DriverOptions

__all__ = ["Static"]


class Static(Driver[DriverOptions]):
    """Has no life cycle; host, port and user are those of the inventory."""

    name = "static"
    capabilities = Capabilities(life_cycle=False)
