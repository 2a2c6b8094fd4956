"""The stand-in host's file system: one folder as `/`, links followed within it, served read-only over SFTP."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import paramiko

__all__ = ["GuestFiles", "sftp_interface"]

_MAX_LINKS = 40
_TEMPORARY = "private/tmp"
"""Whatever lies there is the user's own."""


class GuestFiles:
    """A folder that is all there is: whatever a path says, it leads to something inside."""

    def __init__(self, root: Path, protected: Collection[str] | None = None) -> None:
        self.root = root.resolve(strict=True)
        self._protected = None if protected is None else {self.root / name for name in protected}
        """Folders that nobody may list; with them, all the rest obeys modes, as to one who owns nothing of it."""

    def require_access(self, place: Path, *, read: bool = True) -> None:
        """Raise PermissionError where a user of the host may not get to `place`, or with `read` not read it."""
        if self._protected is None or self.root / _TEMPORARY in place.parents:
            return
        ways = [path for path in place.parents if path == self.root or self.root in path.parents]
        for path in [*reversed(ways), *([place] if read else [])]:
            mode = path.lstat().st_mode
            wanted = (stat.S_IROTH if path == place else 0) | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
            if mode & wanted != wanted or path in self._protected:
                # Where macOS says EPERM, sshd's answer is the same.
                raise PermissionError(errno.EACCES, "Permission denied", str(place))

    def place(self, path: str, *, follow_last: bool = True) -> Path:
        """Return where the guest's `path` lies on this machine.

        Links are followed here, not by the operating system: absolute ones begin at the folder, and `..` ends there.
        Raises OSError for a loop.
        """
        todo = [part for part in path.split("/") if part not in {"", "."}][::-1]
        at = self.root
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                at = at if at == self.root else at.parent
                continue
            step = at / part
            if not step.is_symlink() or (not todo and not follow_last):
                at = step
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(f"{path}: too many levels of symbolic links")
            target = str(step.readlink())
            if target.startswith("/"):
                at = self.root
            todo += [p for p in target.split("/") if p not in {"", "."}][::-1]
        return at

    def guest_path(self, place: Path) -> str:
        """Return how the guest calls a place inside its folder."""
        return "/" if place == self.root else f"/{place.relative_to(self.root).as_posix()}"


class _Handle(paramiko.SFTPHandle):  # type: ignore[misc]  # paramiko has no types
    """An open file. Reads do not disturb each other."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(os.O_RDONLY)
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes | int:
        """Return up to `length` bytes at `offset`."""
        data = os.pread(self._descriptor, min(length, 1 << 18), offset)
        return data if data or not length else int(paramiko.SFTP_EOF)

    def stat(self) -> Any:
        """Return what the open file is."""
        return paramiko.SFTPAttributes.from_stat(os.fstat(self._descriptor))

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


def sftp_interface(files: GuestFiles) -> type[Any]:
    """Return paramiko's SFTP interface over these files. Whatever would write is refused by paramiko's own class."""

    class Interface(paramiko.SFTPServerInterface):  # type: ignore[misc]  # paramiko has no types
        def list_folder(self, path: str) -> Any:
            try:
                found = []
                place = files.place(path)
                files.require_access(place)
                with os.scandir(place) as entries:
                    for entry in entries:
                        attributes = paramiko.SFTPAttributes.from_stat(entry.stat(follow_symlinks=False))
                        attributes.filename = entry.name
                        found.append(attributes)
            except OSError as error:
                return paramiko.SFTPServer.convert_errno(error.errno)
            return found

        def stat(self, path: str) -> Any:
            return self._stat(path, follow=True)

        def lstat(self, path: str) -> Any:
            return self._stat(path, follow=False)

        def _stat(self, path: str, follow: bool) -> Any:
            try:
                place = files.place(path, follow_last=follow)
                files.require_access(place, read=False)
                return paramiko.SFTPAttributes.from_stat(place.lstat())
            except OSError as error:
                return paramiko.SFTPServer.convert_errno(error.errno)

        def readlink(self, path: str) -> Any:
            try:
                return str(files.place(path, follow_last=False).readlink())
            except OSError as error:
                return paramiko.SFTPServer.convert_errno(error.errno)

        def canonicalize(self, path: str) -> str:
            try:
                return files.guest_path(files.place(path))
            except OSError:
                return path

        def open(self, path: str, flags: int, attr: Any) -> Any:
            del attr
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
                return paramiko.SFTP_PERMISSION_DENIED
            try:
                place = files.place(path)
                files.require_access(place)
                descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError as error:
                return paramiko.SFTPServer.convert_errno(error.errno)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                return paramiko.SFTP_FAILURE
            return _Handle(descriptor)

    return Interface
