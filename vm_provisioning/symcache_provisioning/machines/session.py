"""Sessions with machines of the inventory, which have a name, since their address may change."""

from __future__ import annotations

from typing import Any

from symcache.errors import HostKeyError, RemoteError
from symcache.model import Release
from symcache_provisioning.machines.inventory import MachineDefinition
from symcache_provisioning.sources.machine import SshSource
from symcache_provisioning.ssh.host_keys import JumpKeyError
from symcache_provisioning.ssh.login import SshTarget
from symcache_provisioning.ssh.session import SshSession

__all__ = ["MachineSession", "MachineSource"]


class MachineSource(SshSource):
    """A machine of the inventory as a source, by its name; its release must be the one that the inventory expects."""

    def __init__(self, session: SshSession, definition: MachineDefinition) -> None:
        super().__init__(session)
        self._definition = definition

    @property
    def name(self) -> str:
        """The machine's name, since its address may change."""
        return self._definition.name

    def identity(self) -> Release:
        """See SshSource. Raises RemoteError, too, if it is not the release that the inventory expects."""
        release = super().identity()
        for key in ("version", "build"):
            expected, actual = getattr(self._definition, key), getattr(release, key)
            if expected is not None and expected != actual:
                raise RemoteError(
                    f"{self.name}: runs {key} {actual}, the inventory expects {expected}",
                    hint="update the machine's image or the inventory",
                )
        return release


class MachineSession(SshSession):
    """A session whose error for a wrong host key has a hint for machines of the inventory."""

    def __init__(self, wrong_key_hint: str, target: SshTarget, **options: Any) -> None:
        super().__init__(target, **options)
        self._wrong_key_hint = wrong_key_hint

    def connect(self) -> None:
        """See SshSession."""
        try:
            super().connect()
        except JumpKeyError:
            raise
        except HostKeyError as error:
            raise HostKeyError(str(error), hint=self._wrong_key_hint) from error
