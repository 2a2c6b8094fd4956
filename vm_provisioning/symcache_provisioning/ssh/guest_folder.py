"""Temporary folders in a guest, which do not outlive the process that made them.

Of each there is a record here, locked as long as its process lives, in whatever way that ends. A record without a lock
is of a process that was killed: its folder goes with the next use of that guest, and no folder does that has no record.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from symcache.errors import RemoteError, SymcacheError
from symcache.files import is_named
from symcache.text import excerpt
from symcache_provisioning.interrupts import defer_interrupts
from symcache_provisioning.ssh.login import SshTarget
from symcache_provisioning.ssh.session import RemoteOutput, SshSession

__all__ = ["guest_folder", "sweep_guest_folders"]

Run = Callable[[Sequence[str]], RemoteOutput]

_TEMPLATE = "/tmp/symcache.XXXXXXXXXX"  # noqa: S108 - mktemp -d in the guest makes it unique and private
_BEGINNING = _TEMPLATE.rstrip("X")
_NAME = re.compile("[A-Za-z0-9]{10}")
_REMEMBERED_SECONDS = 30 * 24 * 3600
"""Then a guest of that address is another one, and macOS has long emptied /tmp."""


@contextmanager
def guest_folder(name: str, session: SshSession, remove: Run, left: Callable[[str], None]) -> Iterator[str]:
    """Make a private temporary folder in the guest, and remove it with all it holds at the end, also after an error.

    `name` is the guest's, for messages; `remove` runs a program there. A folder that cannot be removed is named in the
    error that ends the block, or else told to `left`. Signals are deferred while it is made and removed: a folder whose
    name is not yet known could not be removed. Raises RemoteError if none is made.
    """
    folder, failure = "", None
    with contextlib.ExitStack() as record:
        try:
            with defer_interrupts():
                made = session.run(["/usr/bin/mktemp", "-d", _TEMPLATE], max_output=4096)
                path = made.stdout.decode("utf-8", "replace").strip()
                if made.status != 0 or not (path.startswith(_BEGINNING) and _NAME.fullmatch(path[len(_BEGINNING) :])):
                    # Only a name of the form that was requested is ever passed to rm.
                    raise RemoteError(f"{name}: mktemp made no folder: {excerpt(made.stdout + made.stderr)}")
                folder, file = path, _record(session.target, path)
                record.enter_context(_held(file))
            yield folder
        except BaseException as error:
            failure = error
            raise
        finally:
            if folder:
                with defer_interrupts():
                    if _removed(remove, folder):
                        with contextlib.suppress(OSError):
                            file.unlink()
                    else:
                        _tell(failure, f"{folder} is left on {name}: remove it there", left)


def sweep_guest_folders(session: SshSession, run: Run) -> None:
    """Remove what processes of this user, since killed, left in a guest; `run` runs a program there."""
    here = f"{_key(session.target)}-"
    for file in sorted(_records().glob("*-*")):
        with contextlib.suppress(OSError), file.open("rb") as record:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name = file.name.rpartition("-")[2]
            if not is_named(file, record.fileno()) or not _NAME.fullmatch(name):
                continue
            forgotten = time.time() - file.stat().st_mtime > _REMEMBERED_SECONDS
            if forgotten or (file.name.startswith(here) and _removed(run, f"{_BEGINNING}{name}")):
                file.unlink()


def _records() -> Path:
    return platformdirs.user_state_path("symcache") / "guest-folders"


def _key(target: SshTarget) -> str:
    return hashlib.sha256(f"{target.user}@{target.host}:{target.port}".encode()).hexdigest()[:16]


def _record(target: SshTarget, folder: str) -> Path:
    return _records() / f"{_key(target)}-{folder[len(_BEGINNING) :]}"


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """Make a record and hold its lock. Where that is impossible, the folder is not swept after a kill: no error."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = file.with_name(f".{file.name}")
            record = held.enter_context(os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600), "wb"))
            fcntl.flock(record, fcntl.LOCK_EX)
            part.replace(file)  # now that nobody can take it for abandoned
        yield


def _removed(run: Run, folder: str) -> bool:
    try:
        return run(["/bin/rm", "-rf", folder]).status == 0
    except RemoteError:
        return False


def _tell(error: BaseException | None, text: str, left: Callable[[str], None]) -> None:
    if error is None:
        left(text)
    elif isinstance(error, SymcacheError):
        error.args = (f"{error}; {text}",)
    else:
        error.add_note(text)
