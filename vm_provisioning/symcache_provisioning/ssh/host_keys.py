"""Which host keys are trusted: a pin, known_hosts files and their authorities, or any on first use if requested."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paramiko
import platformdirs

from symcache.errors import HostKeyError, StorageError, UsageError
from symcache_provisioning.ssh.host_certificates import CERTIFICATE_SUFFIX, certificate_problem
from symcache_provisioning.ssh.known_hosts import KnownKey, host_of, known_keys

__all__ = ["HostKeyPolicy", "HostKeyTrust", "JumpKeyError", "default_store"]

_SYSTEM = Path("/etc/ssh/ssh_known_hosts")
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""What a host may sign with by a key of one type, where that is not called as the type is."""
_PIN = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


class JumpKeyError(HostKeyError):
    """A host on the way is not known, or not the one we know."""


def default_store() -> Path:
    """Return the known_hosts file of symcache itself, which trust on first use writes to."""
    return platformdirs.user_data_path("symcache") / "known_hosts"


@dataclass(frozen=True, slots=True)
class HostKeyTrust:
    """Which host keys are trusted.

    `pin` is a fingerprint as ssh-keygen -l prints it; with it, no other key is trusted. `known_hosts` are files in
    OpenSSH's format that are only read; `store` is read too, and written by `trust_new`.
    """

    pin: str | None = None
    trust_new: bool = False
    known_hosts: tuple[Path, ...] = ()
    store: Path | None = None

    def __post_init__(self) -> None:
        if self.pin is not None and not _PIN.fullmatch(self.pin.rstrip("=")):
            raise UsageError(
                f"{self.pin!r} is not the fingerprint of a host key",
                hint="write SHA256:… as `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it on the host",
            )

    @classmethod
    def for_user(cls, *, pin: str | None = None, trust_new: bool = False) -> HostKeyTrust:
        """Trust the known_hosts files of the user, of the system and of symcache itself."""
        files = (Path("~/.ssh/known_hosts").expanduser(), _SYSTEM)
        return cls(pin, trust_new, files, default_store())

    def with_known_hosts(self, known_hosts: tuple[Path, ...] | None) -> HostKeyTrust:
        """Return the same trust with other files of the user, if ssh_config(5) names some."""
        if known_hosts is None:
            return self
        return replace(self, known_hosts=(*known_hosts, *(f for f in self.known_hosts if f == _SYSTEM)))


class HostKeyPolicy(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    """Accepts only the host keys that a HostKeyTrust allows for the host that files know as `name`.

    paramiko itself knows no host keys then, and asks for each. `announce` is called for those that are trusted on first
    use. Raises StorageError for a file that cannot be read.
    """

    def __init__(self, trust: HostKeyTrust, name: str, announce: Callable[[str], None]) -> None:
        self._trust, self._name, self._announce = trust, name, announce
        self._known: list[KnownKey] = []
        self._authorities: list[KnownKey] = []
        self._revoked: dict[str, Path] = {}
        if trust.pin is not None:
            return
        for file in (*trust.known_hosts, trust.store):
            for key in known_keys(file, name) if file is not None and file.is_file() else ():
                if key.revoked:
                    self._revoked[key.base64] = key.file
                else:
                    (self._authorities if key.authority else self._known).append(key)
        self._known = [k for k in self._known if k.base64 not in self._revoked]

    def prefer(self, transport: Any) -> None:
        """Have a host show what can be proven: a certificate if an authority is known, else a key of a known type."""
        security = transport.get_security_options()
        known = {kind for k in self._known for kind in _SIGNATURES.get(k.key.get_name(), (k.key.get_name(),))}
        kinds = sorted(security.key_types, key=lambda kind: kind not in known)
        if self._authorities:
            kinds = [*(k for k in transport.preferred_keys if k.endswith(CERTIFICATE_SUFFIX)), *kinds]
        security.key_types = kinds

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """See MissingHostKeyPolicy. Raises HostKeyError."""
        if self._trust.pin is not None:
            _check_pin(self._trust.pin.rstrip("="), self._name, key)
            return
        encoded = key.get_base64()
        if file := self._revoked.get(encoded):
            raise HostKeyError(
                f"{self._name} shows {_describe(key)}, which {file} marks as revoked",
                hint="have the host make a new key, and ask whoever revoked this one",
            )
        problem = self._certificate_problem(key)
        if problem is None or any(k.base64 == encoded for k in self._known):
            return
        if self._known:
            raise self._changed(key)
        if problem:
            raise HostKeyError(
                f"{self._name} is not known here: it shows {_describe(key)}, and its certificate counts for nothing:"
                f" {problem}",
                hint=f"have its authority sign the key anew, or pass --host-key {key.fingerprint}",
            )
        if not self._trust.trust_new:
            raise _unknown(self._name, key)
        _store(self._trust.store, self._announce, self._name, key)

    def _certificate_problem(self, key: Any) -> str | None:
        """Return None if a certificate proves the key, an empty string without one, else what is wrong with it."""
        certificate = getattr(key, "public_blob", None)
        if certificate is None or not certificate.key_type.endswith(CERTIFICATE_SUFFIX) or not self._authorities:
            return ""
        authorities = {k.base64 for k in self._authorities}
        return certificate_problem(certificate.key_blob, host_of(self._name), authorities, self._revoked) or None

    def _changed(self, key: Any) -> HostKeyError:
        """Return the error for a known host that shows another key."""
        expected = next((k for k in self._known if k.key.get_name() == key.get_name()), self._known[0])
        return HostKeyError(
            f"{self._name} is not the host we know: it shows {_describe(key)}"
            f" where {_describe(expected.key)} was expected",
            hint=f"if it was installed anew, compare the fingerprint there, then remove {self._name} from"
            f" {expected.file} or pass --host-key {key.fingerprint}",
        )


def _describe(key: Any) -> str:
    return f"the {key.get_name()} key {key.fingerprint}"


def _check_pin(pin: str, host: str, key: Any) -> None:
    if key.fingerprint != pin:
        raise HostKeyError(
            f"{host} is not the host that was pinned: it shows {_describe(key)} where {pin} was expected",
            hint=f"compare it on the host with ssh-keygen -lf, then pass --host-key {key.fingerprint}",
        )


def _unknown(host: str, key: Any) -> HostKeyError:
    return HostKeyError(
        f"{host} is not known here: it shows {_describe(key)}",
        hint=f"compare it on the host with ssh-keygen -lf, then pass --host-key {key.fingerprint};"
        " or pass --trust-new-host to believe what it shows now",
    )


def _store(file: Path | None, announce: Callable[[str], None], host: str, key: Any) -> None:
    """Trust a key on first use: announce it, and store it for the next time. Raises StorageError."""
    stored = ""
    if file is not None:
        line = f"{host} {key.get_name()} {key.get_base64()}\n".encode()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # One write of one line: several processes may do this at once.
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(line)
        except OSError as error:
            raise StorageError(
                f"{file}: the new host key cannot be stored: {error.strerror}",
                hint="check who owns it, and the free space",
            ) from error
        stored = f", kept in {file}"
    announce(f"trusting {host} from now on by {_describe(key)}{stored}")
