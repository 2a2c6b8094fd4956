"""Which host keys are believed: a pin, known_hosts files, or trust on first use when that is asked for."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import platformdirs

from symcache.errors import HostKeyError, StorageError, UsageError

__all__ = ["HostKeyTrust", "default_store", "prepare_client"]

_PIN = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def default_store() -> Path:
    """Return the known_hosts file of symcache itself, which trust on first use writes to."""
    return platformdirs.user_data_path("symcache") / "known_hosts"


@dataclass(frozen=True, slots=True)
class HostKeyTrust:
    """What makes a host the right one.

    `pin` is a fingerprint as ssh-keygen -l prints it; where given, nothing else counts. `known_hosts` are files in
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
        """Trust what the user's and the system's ssh trust, and what symcache itself has stored."""
        files = (Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts"))
        return cls(pin, trust_new, files, default_store())

    def changed(self, host: str, port: int, error: paramiko.BadHostKeyException) -> HostKeyError:
        """Return the error for a known host that shows another key."""
        name = host if port == 22 else f"[{host}]:{port}"
        holder = next((f for f in (*self.known_hosts, self.store) if f and _knows(f, name)), None)
        return HostKeyError(
            f"{name} is not the host we know: it shows {_describe(error.key)}"
            f" where {_describe(error.expected_key)} was expected",
            hint=f"if it was installed anew, compare the fingerprint there, then remove {name} from"
            f" {holder or 'the known_hosts file'} or pass --host-key {error.key.fingerprint}",
        )


def prepare_client(client: paramiko.SSHClient, trust: HostKeyTrust, host: str, announce: Callable[[str], None]) -> None:
    """Make `client` accept nothing but what `trust` says."""
    if trust.pin is not None:
        client.set_missing_host_key_policy(_Pinned(trust.pin.rstrip("=")))
        return
    entries: list[Any] = []
    revoked: dict[str, Path] = {}
    for file in (*trust.known_hosts, trust.store):
        if file is not None and file.is_file():
            try:
                for is_revoked, entry in _entries(file):
                    if is_revoked:
                        revoked[entry.key.get_base64()] = file
                    else:
                        entries.append(entry)
            except OSError as error:
                raise StorageError(f"{file}: cannot be read: {error.strerror}", hint="check who owns it") from error
    for entry in entries:
        if entry.key.get_base64() not in revoked:
            for name in entry.hostnames:
                client.get_host_keys().add(name, entry.key.get_name(), entry.key)
    fallback = _TrustNew(trust.store, announce) if trust.trust_new else _Unknown(host)
    client.set_missing_host_key_policy(_NotRevoked(revoked, fallback))


def _describe(key: Any) -> str:
    return f"the {key.get_name()} key {key.fingerprint}"


def _entries(file: Path) -> Iterator[tuple[bool, Any]]:
    """Yield (revoked, paramiko's HostKeyEntry) for the lines of a known_hosts file that can be read.

    Lines of certificate authorities are passed over, and so are broken ones. Raises OSError.
    """
    for text in file.read_text("utf-8", "replace").splitlines():
        revoked = text.startswith("@revoked ")
        line = text.removeprefix("@revoked ").strip()
        if not line or line.startswith(("@", "#")):
            continue
        try:
            entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
        except (
            paramiko.hostkeys.InvalidHostKey,
            paramiko.SSHException,
            ValueError,
            LookupError,
            TypeError,
            struct.error,
        ):
            continue
        if entry is not None and entry.valid:
            yield revoked, entry


def _knows(file: Path, name: str) -> bool:
    keys = paramiko.HostKeys()
    try:
        for revoked, entry in _entries(file):
            if not revoked:
                for host in entry.hostnames:
                    keys.add(host, entry.key.get_name(), entry.key)
    except OSError:
        return False
    return keys.lookup(name) is not None


class _Pinned(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    def __init__(self, pin: str) -> None:
        self._pin = pin

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Accept the pinned key only."""
        if key.fingerprint != self._pin:
            raise HostKeyError(
                f"{hostname} is not the host that was pinned: it shows {_describe(key)} where {self._pin} was expected",
                hint=f"compare it on the host with ssh-keygen -lf, then pass --host-key {key.fingerprint}",
            )


class _NotRevoked(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    def __init__(self, revoked: Mapping[str, Path], fallback: Any) -> None:
        self._revoked, self._fallback = revoked, fallback

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Refuse a key that is marked as revoked, for whatever host; leave others to the policy behind."""
        if file := self._revoked.get(key.get_base64()):
            raise HostKeyError(
                f"{hostname} shows {_describe(key)}, which {file} marks as revoked",
                hint="have the host make a new key, and ask whoever revoked this one",
            )
        self._fallback.missing_host_key(client, hostname, key)


class _Unknown(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    def __init__(self, host: str) -> None:
        self._host = host

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Refuse, and say what was shown."""
        raise HostKeyError(
            f"{hostname} is not known here: it shows {_describe(key)}",
            hint=f"compare it on the host with ssh-keygen -lf, then pass --host-key {key.fingerprint};"
            " or pass --trust-new-host to believe what it shows now",
        )


class _TrustNew(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    def __init__(self, store: Path | None, announce: Callable[[str], None]) -> None:
        self._store, self._announce = store, announce

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Believe the key, say so, and hold the host to it from now on."""
        kept = ""
        if self._store is not None:
            line = f"{hostname} {key.get_name()} {key.get_base64()}\n".encode()
            try:
                self._store.parent.mkdir(parents=True, exist_ok=True)
                # One write of one line: several processes may do this at once.
                descriptor = os.open(self._store, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise StorageError(
                    f"{self._store}: the new host key cannot be stored: {error.strerror}",
                    hint="check who owns it, and the free space",
                ) from error
            kept = f", kept in {self._store}"
        self._announce(f"trusting {hostname} from now on by {_describe(key)}{kept}")
