"""A machine that is just there: a Mac, a cloud's instance, a VM that somebody else looks after."""

from __future__ import annotations

from symcache_provisioning.drivers.protocol import Capabilities, Driver, DriverOptions

__all__ = ["Static"]


class Static(Driver[DriverOptions]):
    """Has no life cycle: its host, port and user stand in the inventory."""

    name = "static"
    capabilities = Capabilities(life_cycle=False)
