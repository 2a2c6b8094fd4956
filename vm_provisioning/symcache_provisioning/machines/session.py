"""A machine of the inventory over SSH: called by its name, since its address may be another one each time."""

from __future__ import annotations

from typing import Any

from symcache.errors import HostKeyError, RemoteError
from symcache.model import Release
from symcache_provisioning.machines.inventory import MachineDefinition
from symcache_provisioning.sources.machine import SshSource
from symcache_provisioning.ssh.login import SshTarget
from symcache_provisioning.ssh.session import SshSession

__all__ = ["MachineSession", "MachineSource"]


class MachineSource(SshSource):
    """A machine of the inventory as a source: called by its name, and held to the release that is expected of it."""

    def __init__(self, session: SshSession, definition: MachineDefinition) -> None:
        super().__init__(session)
        self._definition = definition

    @property
    def name(self) -> str:
        """The machine's name: its address may be another one each time."""
        return self._definition.name

    def identity(self) -> Release:
        """See SshSource. Raises RemoteError, too, where it is not the release that the inventory expects."""
        found = super().identity()
        for key in ("version", "build"):
            expected, is_ = getattr(self._definition, key), getattr(found, key)
            if expected is not None and expected != is_:
                raise RemoteError(
                    f"{self.name}: runs {key} {is_}, the inventory expects {expected}",
                    hint="update the machine's image or the inventory",
                )
        return found


class MachineSession(SshSession):
    """A session whose next step after a wrong host key is one that a machine of the inventory has."""

    def __init__(self, mend: str, target: SshTarget, **options: Any) -> None:
        super().__init__(target, **options)
        self._mend = mend

    def connect(self) -> None:
        """See SshSession."""
        try:
            super().connect()
        except HostKeyError as error:
            raise HostKeyError(str(error), hint=self._mend) from error
