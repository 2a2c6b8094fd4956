"""Host keys of machines whose address changes: stored by machine, not by address.

The next guest at 192.168.64.7 is another one. So the fingerprint of *this machine's* key is trusted: pinned in the
inventory, read in the guest without the network, or stored when it was first trusted by --trust-new-host.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs
import tenacity

from symcache.errors import EnvironmentFailure, StorageError
from symcache.files import atomic_write
from symcache_provisioning.machines.inventory import MachineDefinition

__all__ = ["PUBLIC_KEY_FILE", "MachineKeys", "fingerprint_of", "guest_host_key"]

PUBLIC_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key.pub"
_KEY_LINE = re.compile(r"ssh-ed25519 ([A-Za-z0-9+/]{68})(?: [^\n]*)?\s*")
_ATTEMPTS, _WAIT = 5, 1.0


def fingerprint_of(line: str) -> str | None:
    """Return the fingerprint of an ed25519 public key file's line, as ssh-keygen prints it, or None for other text."""
    match = _KEY_LINE.fullmatch(line.strip())
    if match is None:
        return None
    try:
        blob = base64.b64decode(match[1], validate=True)
    except binascii.Error:
        return None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def guest_host_key(read: Callable[[Sequence[str]], str], announce: Callable[[str], None]) -> str | None:
    """Return the fingerprint of a guest's host key, read by a program that `read` runs there without the network.

    Retries for a while: the guest's agent may start later than its SSH server, which makes the key. Return None if no
    program can be run there, or the file holds no key.
    """
    try:
        text = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_fixed(_WAIT),
            retry=tenacity.retry_if_exception_type(EnvironmentFailure),
            reraise=True,
        )(read, ["/bin/cat", PUBLIC_KEY_FILE])
    except EnvironmentFailure as error:
        announce(f"its host key cannot be read without the network: {error}")
        return None
    return fingerprint_of(text)


class MachineKeys:
    """Fingerprints that were trusted on first use, by driver, name and image."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or platformdirs.user_data_path("symcache") / "machine-keys"

    def path(self, machine: MachineDefinition) -> Path:
        """Return the file with a machine's fingerprint."""
        identity = json.dumps([machine.driver, machine.name, machine.image])
        return self._folder / f"{machine.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"

    def get(self, machine: MachineDefinition) -> str | None:
        """Return the fingerprint of a machine, or None if none is stored. Raises StorageError."""
        try:
            value = json.loads(self.path(machine).read_text())["host_key"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{self.path(machine)}: cannot be read: {error}", hint="remove it") from error
        return str(value)

    def remember(self, machine: MachineDefinition, fingerprint: str) -> Path:
        """Store a fingerprint, and return the file. Raises StorageError."""
        path = self.path(machine)
        content = {"machine": machine.name, "driver": machine.driver, "image": machine.image, "host_key": fingerprint}
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_write(path, mode=0o600) as part:
                part.write_text(json.dumps(content, indent=2))
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written: {error.strerror}", hint="check who owns it, and the free space"
            ) from error
        return path
