"""A folder as a source: a mounted image, or a copy."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from symcache.errors import IntegrityError, NotFoundError, RemoteError, SymcacheError
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.sources.entries import Entry, Limits
from symcache_provisioning.sources.locations import SYSTEM_VERSION_PLISTS
from symcache_provisioning.sources.release import system_versions
from symcache_provisioning.sources.source import Source
from symcache_provisioning.ssh.packets import Attributes, NoAccessError, NoSuchFileError

__all__ = ["DirectorySource"]


class DirectorySource(Source):
    """A folder as the root of a system: a mounted image, or a copy."""

    in_place = True

    def __init__(self, root: Path, *, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.root = root.absolute()
        if not self.root.is_dir():
            raise NotFoundError(f"{root}: no such folder", hint="mount the image first, then name its mount point")

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def identity(self) -> Release | None:
        """Return the release that SystemVersion.plist names. Raises NotFoundError, RemoteError."""
        plists = system_versions(self)
        if not plists:
            raise NotFoundError(
                f"{self.root}: is not the root of a macOS system: it has no {SYSTEM_VERSION_PLISTS[-1]}",
                hint="name the folder that holds System and usr",
            )
        return plists[0]

    def lstat(self, path: str) -> Entry | None:
        """See Source."""
        try:
            status = self._at(path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _read_error(path, error) from error
        return Entry(path, status.st_mode, status.st_size, int(status.st_mtime))

    def readlink(self, path: str) -> bytes:
        """See Source."""
        try:
            return os.fsencode(self._at(path).readlink())
        except OSError as error:
            raise _read_error(path, error) from error

    def scan(self, path: str) -> Iterator[tuple[bytes, Attributes]]:
        """See Source."""
        try:
            with os.scandir(os.fsencode(self._at(path))) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # gone since it was listed; the others are still there
                    yield entry.name, Attributes(status.st_mode, status.st_size, int(status.st_mtime))
        except OSError as error:
            raise _read_error(path, error) from error

    def read_heads(self, paths: Sequence[str], length: int) -> list[bytes | SymcacheError]:
        """See Source."""
        return [self._range(path, 0, length) for path in paths]

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """See Source."""
        found = self._range(path, offset, length)
        if isinstance(found, SymcacheError):
            raise found
        return found

    def _range(self, path: str, offset: int, length: int) -> bytes | SymcacheError:
        try:
            # Not blocking: a file that became a FIFO since it was listed must not stop us.
            descriptor = os.open(self._at(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return RemoteError(f"{excerpt(path)}: is no regular file any more")
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            return _read_error(path, error)

    def fetch(
        self,
        entry: Entry,
        local: Path,
        progress: Callable[[int], None] | None = None,
        growing: Callable[[Path], None] | None = None,
    ) -> Path:
        """Return the path of the file itself, as nothing needs to be copied. Raises IntegrityError if it changed."""
        del local, growing
        now = self.lstat(entry.path)
        if now is None or not stat.S_ISREG(now.mode) or now.attributes[1:] != entry.attributes[1:]:
            raise IntegrityError(f"{excerpt(entry.path)}: is not what was listed", hint="harvest again")
        if progress:
            progress(entry.size)
        return self._at(entry.path)

    def _at(self, path: str) -> Path:
        # Paths come from `resolve` and `entries`, which let no `..` and no link through.
        return self.root.joinpath(*[p for p in path.split("/") if p])


def _read_error(path: str, error: OSError) -> SymcacheError:
    if isinstance(error, PermissionError):
        # The privacy protection of macOS, which holds for root, too, returns EPERM; file modes EACCES.
        private = error.errno == errno.EPERM
        hint = "grant Full Disk Access to what runs symcache" if private else "run as a user who may read it"
        return NoAccessError(f"{excerpt(path)}: not readable for this user", hint=hint)
    if isinstance(error, FileNotFoundError):
        return NoSuchFileError(f"{excerpt(path)}: no such file")
    # Not a StorageError, which would end the harvest: the rest of the source may be readable.
    return RemoteError(f"{excerpt(path)}: {error.strerror or error}", hint="check the disk or image")
