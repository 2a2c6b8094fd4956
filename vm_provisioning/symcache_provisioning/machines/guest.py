"""Running programs on a machine that is being set up, as root if need be; and the paths of macOS that are used."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from symcache.errors import RemoteError
from symcache.text import excerpt
from symcache_provisioning.extractors.dyld_shared_cache_util import TOOL
from symcache_provisioning.machines.inventory import MachineDefinition
from symcache_provisioning.ssh.packets import NoSuchFileError
from symcache_provisioning.ssh.session import RemoteOutput, SshSession

__all__ = ["HOST_KEY_MARKER", "MARKER", "MAX_FILE", "Guest", "GuestPaths", "sleeps_after"]

MAX_FILE = 64 << 20
"""Bytes of the largest file that is uploaded or compared."""
_SSH = "/etc/ssh"
MARKER = "symcache_host_key"
HOST_KEY_MARKER = f"{_SSH}/{MARKER}"
"""File beside the host keys with the fingerprint of the one that was made here, not copied with a disk."""
_SLEEP = re.compile(r"^\s*sleep\s+([0-9]+)", re.MULTILINE)


def sleeps_after(settings: str) -> int | None:
    """Return after how many idle minutes a Mac sleeps, as `pmset -g` prints: 0 for never, None if it does not say."""
    match = _SLEEP.search(settings)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class GuestPaths:
    """Paths of what is used on macOS."""

    home: str | None = None
    """Of the user; read from the machine if None."""
    ssh: str = _SSH
    util: str = f"/usr/local/bin/{TOOL}"
    sudo: str = "/usr/bin/sudo"
    ssh_keygen: str = "/usr/bin/ssh-keygen"
    pmset: str = "/usr/bin/pmset"
    systemsetup: str = "/usr/sbin/systemsetup"
    launchctl: str = "/bin/launchctl"
    codesign: str = "/usr/bin/codesign"
    uname: str = "/usr/bin/uname"
    id: str = "/usr/bin/id"


class Guest:
    """A machine over a connected session. Failures raise RemoteError, which names machine and program."""

    def __init__(self, session: SshSession, definition: MachineDefinition, paths: GuestPaths) -> None:
        self.session, self.paths = session, paths
        self._name, self._user = definition.name, definition.user
        self._is_root: bool | None = None

    def run(self, *argv: str, timeout: float = 60) -> RemoteOutput:
        """Run a program and return its output, whatever its exit status."""
        return self.session.run(argv, timeout=timeout, max_output=1 << 20)

    def run_checked(self, *argv: str, timeout: float = 60) -> str:
        """Run a program that must succeed, and return what it printed on stdout."""
        output = self.run(*argv, timeout=timeout)
        if output.status != 0:
            reason = excerpt((output.stderr or output.stdout).decode("utf-8", "replace").partition("\n")[0])
            raise RemoteError(f"{self._name}: {argv[0]} ended with {output.status}: {reason or 'it said nothing'}")
        return output.stdout.decode("utf-8", "replace")

    def run_as_root(self, *argv: str, timeout: float = 60) -> str:
        """Do as `run_checked`, as root; sudo must not need a password."""
        if self._is_root is None:
            self._is_root = self.run_checked(self.paths.id, "-u").strip() == "0"
        if self._is_root:
            return self.run_checked(*argv, timeout=timeout)
        if self.run(self.paths.sudo, "-n", "/usr/bin/true").status != 0:
            raise RemoteError(
                f"{self._name}: {self._user} may not use sudo there without a password",
                hint=f"run there: echo '{self._user} ALL=(ALL) NOPASSWD: ALL' | sudo tee /etc/sudoers.d/{self._user}",
            )
        return self.run_checked(self.paths.sudo, "-n", *argv, timeout=timeout)

    def sha256(self, path: str) -> str | None:
        """Return the SHA-256 of a file there, or None if there is none."""
        digest = hashlib.sha256()
        try:
            for _, data in self.session.sftp.read(path.encode(), 0, MAX_FILE):
                digest.update(data)
        except NoSuchFileError:
            return None
        return digest.hexdigest()
