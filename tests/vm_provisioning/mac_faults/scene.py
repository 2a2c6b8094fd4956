"""A Mac that is about to be harvested, and what a fault is that changes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from symcache.demo.layouts import PREBOOT
from tests.support.mac import PASSWORD, SFTP_SERVER, USERS
from tests.support.openssh import keygen

__all__ = ["FAULTS", "Fault", "Scene", "fault"]


@dataclass
class Scene:
    """A good Mac that is not up yet, and how it will be harvested. A fault changes any of it."""

    root: Path
    folder: Path
    """For whatever else is needed."""
    home: Path
    user: str = next(iter(USERS))
    system: str = ""
    """The folder on the Mac that is harvested."""
    password: str | None = PASSWORD
    pinned: bool = True
    """Its host key is given on the command line."""
    url: str | None = None
    sshd: list[str] = field(default_factory=list)
    sftp: str = SFTP_SERVER
    mounts: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    between: Callable[[int], AbstractContextManager[int]] = contextlib.nullcontext  # type: ignore[assignment]
    """Given the Mac's port, makes another one through which it is reached."""
    staging: Callable[[Path], AbstractContextManager[Path]] = contextlib.nullcontext  # type: ignore[assignment]

    @property
    def caches(self) -> Path:
        """The folder of the system's shared caches."""
        return self.root / PREBOOT / "OS/System/Library/dyld"

    @property
    def main(self) -> Path:
        """The main file of the one of arm64e."""
        return self.caches / "dyld_shared_cache_arm64e"

    @property
    def sub_cache(self) -> Path:
        """The first of its companions."""
        return self.caches / "dyld_shared_cache_arm64e.01"

    def program(self, path: str, script: str) -> None:
        """Replace a program of the Mac."""
        (self.root / path).unlink()
        (self.root / path).write_text(f"#!/bin/sh\n{script}\n")
        (self.root / path).chmod(0o755)

    def key(self, *options: str) -> None:
        """Give a new key for logging in, without a password."""
        keygen("-q", "-t", "ed25519", *(options or ("-N", "")), "-f", str(self.folder / "id"))
        self.password = None
        self.arguments += ["--identity", str(self.folder / "id")]
        self.sshd += ["PubkeyAuthentication yes"]

    def known(self, line: str) -> None:
        """Write a line of ~/.ssh/known_hosts, with {host} for the Mac's name there."""
        self.pinned = False
        (self.home / ".ssh").mkdir(exist_ok=True)
        (self.home / ".ssh/known_hosts").write_text(line + "\n")

    def host_key(self) -> str:
        """The public key that the Mac shows."""
        return " ".join((self.root / "private/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])


@dataclass(frozen=True)
class Fault:
    """One fault. `says` is in what the command prints; `quick` ones are tried by every run of the tests."""

    kind: str
    name: str
    says: str
    layout: str
    quick: bool
    inject: Callable[[Scene], None]


FAULTS: list[Fault] = []
Inject = Callable[[Scene], None]


def fault(kind: str, name: str, says: str, *, layout: str = "15", quick: bool = False) -> Callable[[Inject], Inject]:
    def add(inject: Inject) -> Inject:
        FAULTS.append(Fault(kind, name, says, layout, quick, inject))
        return inject

    return add
