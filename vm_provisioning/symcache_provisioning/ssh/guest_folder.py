"""A folder of our own in a guest, for as long as something is done there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from symcache.errors import RemoteError
from symcache_provisioning.interrupts import held
from symcache_provisioning.ssh.session import RemoteOutput
from symcache_provisioning.text import shown

__all__ = ["guest_folder"]

_TEMPLATE = "/tmp/symcache.XXXXXXXXXX"  # noqa: S108 - mktemp -d in the guest makes it unique and private
_FOLDER = re.compile(re.escape(_TEMPLATE.rstrip("X")) + r"[A-Za-z0-9]{10}")


@contextmanager
def guest_folder(
    name: str, make: Callable[[Sequence[str]], RemoteOutput], remove: Callable[[Sequence[str]], object]
) -> Iterator[str]:
    """Make a folder in the guest that nobody else can look into, and remove it with all it holds, however this ends.

    `make` and `remove` run a program there; `name` is the guest's, for messages. A signal waits for both: a folder
    that was made, but whose name was not yet told, could not be removed. Raises RemoteError where none is made, and
    what `make` and `remove` raise.
    """
    folder = ""
    try:
        with held():
            made = make(["/usr/bin/mktemp", "-d", _TEMPLATE])
            said = made.stdout.decode("utf-8", "replace").strip()
            if made.status != 0 or not _FOLDER.fullmatch(said):
                # Nothing but what we asked for is ever handed to rm.
                raise RemoteError(f"{name}: mktemp made no folder: {shown(made.stdout + made.stderr)}")
            folder = said
        yield folder
    finally:
        if folder:
            with held():
                remove(["/bin/rm", "-rf", folder])
