"""A temporary folder in a guest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from symcache.errors import RemoteError
from symcache.text import excerpt
from symcache_provisioning.interrupts import defer_interrupts
from symcache_provisioning.ssh.session import RemoteOutput

__all__ = ["guest_folder"]

_TEMPLATE = "/tmp/symcache.XXXXXXXXXX"  # noqa: S108 - mktemp -d in the guest makes it unique and private
_FOLDER = re.compile(re.escape(_TEMPLATE.rstrip("X")) + r"[A-Za-z0-9]{10}")


@contextmanager
def guest_folder(
    name: str, make: Callable[[Sequence[str]], RemoteOutput], remove: Callable[[Sequence[str]], object]
) -> Iterator[str]:
    """Make a private temporary folder in the guest, and remove it with all it holds at the end, also after an error.

    `make` and `remove` run a program there; `name` is the guest's, for messages. Signals are deferred during both: a
    folder whose name is not yet known could not be removed. Raises RemoteError if none is made, and what `make` and
    `remove` raise.
    """
    folder = ""
    try:
        with defer_interrupts():
            made = make(["/usr/bin/mktemp", "-d", _TEMPLATE])
            path = made.stdout.decode("utf-8", "replace").strip()
            if made.status != 0 or not _FOLDER.fullmatch(path):
                # Only a name of the form that was requested is ever passed to rm.
                raise RemoteError(f"{name}: mktemp made no folder: {excerpt(made.stdout + made.stderr)}")
            folder = path
        yield folder
    finally:
        if folder:
            with defer_interrupts():
                remove(["/bin/rm", "-rf", folder])
