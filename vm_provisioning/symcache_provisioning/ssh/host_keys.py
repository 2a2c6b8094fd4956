"""Which host keys are trusted: a pin, known_hosts files, or any on first use if that is requested."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
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


def prepare_client(client: paramiko.SSHClient, trust: HostKeyTrust, announce: Callable[[str], None]) -> None:
    """Make `client` accept only the host keys that `trust` allows."""
    if trust.pin is not None:
        client.set_missing_host_key_policy(_Policy(partial(_check_pin, trust.pin.rstrip("="))))
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
    fallback = partial(_store, trust.store, announce) if trust.trust_new else _refuse
    client.set_missing_host_key_policy(_Policy(partial(_check_revoked, revoked, fallback)))


def _describe(key: Any) -> str:
    return f"the {key.get_name()} key {key.fingerprint}"


def _entries(file: Path) -> Iterator[tuple[bool, Any]]:
    """Yield (revoked, paramiko's HostKeyEntry) for the lines of a known_hosts file that can be read.

    Lines of certificate authorities and invalid ones are skipped. Raises OSError.
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


class _Policy(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    """Accepts a key unless `check`, which is called with host and key, raises an error."""

    def __init__(self, check: Callable[[str, Any], None]) -> None:
        self._check = check

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """See MissingHostKeyPolicy."""
        self._check(hostname, key)


def _check_pin(pin: str, host: str, key: Any) -> None:
    if key.fingerprint != pin:
        raise HostKeyError(
            f"{host} is not the host that was pinned: it shows {_describe(key)} where {pin} was expected",
            hint=f"compare it on the host with ssh-keygen -lf, then pass --host-key {key.fingerprint}",
        )


def _check_revoked(revoked: Mapping[str, Path], fallback: Callable[[str, Any], None], host: str, key: Any) -> None:
    if file := revoked.get(key.get_base64()):
        raise HostKeyError(
            f"{host} shows {_describe(key)}, which {file} marks as revoked",
            hint="have the host make a new key, and ask whoever revoked this one",
        )
    fallback(host, key)


def _refuse(host: str, key: Any) -> None:
    raise HostKeyError(
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
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError(
                f"{file}: the new host key cannot be stored: {error.strerror}",
                hint="check who owns it, and the free space",
            ) from error
        stored = f", kept in {file}"
    announce(f"trusting {host} from now on by {_describe(key)}{stored}")
