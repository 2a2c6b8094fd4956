"""Sources: where a harvest reads from. A machine over SSH, or a folder such as a mounted image."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Protocol, TypeVar

import tenacity

from symcache.errors import IntegrityError, NotFoundError, RemoteError, SymcacheError
from symcache.model import Release
from vm_provisioning.identity import parse_sw_vers, parse_system_version
from vm_provisioning.places import DEFAULT_ROOTS, SYSTEM_VERSION_PLISTS
from vm_provisioning.sftp import Attributes, ConnectionLostError, NoAccessError, NoSuchFileError
from vm_provisioning.ssh import RemoteOutput, SshSession
from vm_provisioning.text import shown
from vm_provisioning.transfer import SMALL_FILE_SIZE, Copy, copy_file, copy_small_files
from vm_provisioning.tree import Entry, Limits, RemoteCache, SystemTree

__all__ = ["DirectorySource", "Source", "SshSource"]

_T = TypeVar("_T")
_PLIST_LIMIT = 64 << 10
_BATCH = 256
"""Files whose transfer is planned together."""


class Source(Protocol):
    """What a harvest asks of a source. Paths are absolute within the system that is read."""

    problems: list[str]
    notes: list[str]

    @property
    def name(self) -> str:
        """How records and messages call the source."""

    def identity(self) -> Release:
        """Return which release it is."""

    def caches(self) -> list[RemoteCache]:
        """Return its shared caches."""

    def walk(self, roots: Iterable[str] = DEFAULT_ROOTS) -> Iterator[Entry]:
        """Yield its regular files outside the caches."""

    def mach_o_files(self, roots: Iterable[str] = DEFAULT_ROOTS) -> Iterator[Entry]:
        """Yield those that begin as a Mach-O."""

    def read_head(self, path: str, length: int) -> bytes:
        """Return the first bytes of a file."""

    def fetch(self, entry: Entry, local: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Make a file available on this machine."""

    def fetch_all(
        self, wanted: Iterable[tuple[Entry, Path]], progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Entry, Path | SymcacheError]]:
        """Make many files available on this machine."""


class DirectorySource(SystemTree):
    """A folder as the root of a system: a mounted image, or a copy."""

    def __init__(self, root: Path, *, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.root = root.absolute()
        if not self.root.is_dir():
            raise NotFoundError(f"{root}: no such folder", hint="mount the image first, then name its mount point")

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def identity(self) -> Release:
        """Return the release that SystemVersion.plist names. Raises NotFoundError, RemoteError."""
        plists = _plists(self)
        if not plists:
            raise NotFoundError(
                f"{self.root}: is not the root of a macOS system: it has no {SYSTEM_VERSION_PLISTS[-1]}",
                hint="name the folder that holds System and usr",
            )
        return plists[0]

    def lstat(self, path: str) -> Entry | None:
        """See SystemTree."""
        try:
            found = self._at(path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _local(path, error) from error
        return Entry(path, found.st_mode, found.st_size, int(found.st_mtime))

    def readlink(self, path: str) -> bytes:
        """See SystemTree."""
        try:
            return os.fsencode(self._at(path).readlink())
        except OSError as error:
            raise _local(path, error) from error

    def scan(self, path: str) -> Iterator[tuple[bytes, Attributes]]:
        """See SystemTree."""
        try:
            with os.scandir(os.fsencode(self._at(path))) as found:
                for item in found:
                    attributes = item.stat(follow_symlinks=False)
                    yield item.name, Attributes(attributes.st_mode, attributes.st_size, int(attributes.st_mtime))
        except OSError as error:
            raise _local(path, error) from error

    def read_heads(self, paths: Sequence[str], length: int) -> list[bytes | SymcacheError]:
        """See SystemTree."""
        return [self._head(path, length) for path in paths]

    def _head(self, path: str, length: int) -> bytes | SymcacheError:
        try:
            # Not blocking: a file that became a FIFO since it was listed must not stop us.
            descriptor = os.open(self._at(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return RemoteError(f"{shown(path)}: is no regular file any more")
                return os.pread(descriptor, length, 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            return _local(path, error)

    def fetch(self, entry: Entry, local: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Return where the file lies: nothing needs to be copied. Raises IntegrityError when it changed."""
        del local
        found = self.lstat(entry.path)
        if found is None or not stat.S_ISREG(found.mode) or found.attributes[1:] != entry.attributes[1:]:
            raise IntegrityError(f"{shown(entry.path)}: is not what was listed", hint="harvest again")
        if progress:
            progress(entry.size)
        return self._at(entry.path)

    def _at(self, path: str) -> Path:
        # Paths come from `resolve` and `entries`, which let no `..` and no link through.
        return self.root.joinpath(*[p for p in path.split("/") if p])


class SshSource(SystemTree):
    """A machine over SSH, or a system mounted on it. A lost connection is taken up again where it broke."""

    def __init__(self, session: SshSession, *, root: str | None = None, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.session = session
        self.root = session.target.root if root is None else root
        """The folder on the machine that all paths are below."""

    @property
    def name(self) -> str:
        """The machine's URL."""
        return str(self.session.target)

    def identity(self) -> Release:
        """Return the release that runs there (`sw_vers`), or that a mounted system's SystemVersion.plist names.

        Raises RemoteError when the machine does not say, or contradicts itself.
        """
        plists = _plists(self)
        if self.root != "/":
            if not plists:
                raise RemoteError(
                    f"{self.name}: is not the root of a macOS system", hint="name the folder that holds System and usr"
                )
            return plists[0]
        output = self.run(["/usr/bin/sw_vers"], max_output=4096)
        if output.status != 0:
            raise RemoteError(
                f"{self.name}: /usr/bin/sw_vers ended with {output.status}: {shown(output.stderr)}",
                hint="is that a macOS machine?",
            )
        running = parse_sw_vers(output.stdout, self.session.target.host)
        # A Rapid Security Response may keep its plist elsewhere; any other difference is no way to name a harvest.
        if plists and not running.extra and running.build not in {p.build for p in plists}:
            raise RemoteError(
                f"{self.name}: runs build {running.build} by sw_vers, but {plists[0].build} by SystemVersion.plist",
                hint="let it finish its update and restart it",
            )
        return running

    def lstat(self, path: str) -> Entry | None:
        """See SystemTree."""
        try:
            found = self._again(lambda: self.session.sftp.lstat(self.remote(path)))
        except NoSuchFileError:
            return None
        return Entry(path, found.mode, found.size, found.mtime)

    def readlink(self, path: str) -> bytes:
        """See SystemTree."""
        return self._again(lambda: self.session.sftp.readlink(self.remote(path)))

    def scan(self, path: str) -> Iterator[tuple[bytes, Attributes]]:
        """See SystemTree."""
        limit = self.limits.folder_entries + 1

        def listing() -> list[tuple[bytes, Attributes]]:
            with contextlib.closing(self.session.sftp.scan(self.remote(path))) as pages:
                return list(itertools.islice(pages, limit))

        yield from self._again(listing)

    def read_heads(self, paths: Sequence[str], length: int) -> list[bytes | SymcacheError]:
        """See SystemTree. What one reply cannot hold is read on with further requests."""
        remote = [self.remote(p) for p in paths]
        if length <= 32 << 10:
            return list(self._again(lambda: self.session.sftp.heads(remote, length)))
        result: list[bytes | SymcacheError] = []
        for path in remote:
            try:
                result.append(self._again(functools.partial(self._read, path, length)))
            except ConnectionLostError:
                raise
            except SymcacheError as error:
                result.append(error)
        return result

    def _read(self, remote: bytes, length: int) -> bytes:
        return b"".join(data for _, data in self.session.sftp.read(remote, 0, length))

    def fetch(self, entry: Entry, local: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Copy a file to `local`; see `copy_file`. Goes on after lost connections as long as bytes still come."""
        report = _Forward(progress)

        def copy() -> None:
            report.restart()
            copy_file(self.session.sftp, self.remote(entry.path), entry.attributes, local, report)

        self._again(copy, moved=report.moved)
        return local

    def fetch_all(
        self, wanted: Iterable[tuple[Entry, Path]], progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Entry, Path | SymcacheError]]:
        """See SystemTree. Small files come many at a time."""
        todo = iter(wanted)
        while batch := list(itertools.islice(todo, _BATCH)):
            small = [item for item in batch if item[0].size <= SMALL_FILE_SIZE]
            done: dict[str, SymcacheError | None] = {}

            def copy(small: list[tuple[Entry, Path]] = small, done: dict[str, SymcacheError | None] = done) -> None:
                left = [
                    Copy(self.remote(entry.path), entry.attributes, local)
                    for entry, local in small
                    if entry.path not in done
                ]
                names = {self.remote(entry.path): entry for entry, _ in small}
                for item, error in copy_small_files(self.session.sftp, left):
                    entry = names[item.remote]
                    done[entry.path] = error
                    if progress and error is None:
                        progress(entry.size)

            if small:
                self._again(copy, moved=_Growing(done))
            for entry, local in small:
                yield entry, done[entry.path] or local
            yield from super().fetch_all([item for item in batch if item[0].size > SMALL_FILE_SIZE], progress)

    def remote(self, path: str) -> bytes:
        """Return the path as the machine knows it: below the root that the target names."""
        return (path if self.root == "/" else self.root + path.rstrip("/")).encode()

    def run(self, argv: Sequence[str], *, timeout: float | None = None, max_output: int = 1 << 20) -> RemoteOutput:
        """Run a program that may be run again after a lost connection; see `SshSession.run`."""
        return self._again(lambda: self.session.run(argv, timeout=timeout, max_output=max_output))

    def _again(self, action: Callable[[], _T], moved: Callable[[], bool] = lambda: False) -> _T:
        """Do something that may be repeated, with a new connection after a loss.

        Gives up after several losses with nothing gained in between, of which `moved` knows.
        """
        times = self.session.timeouts
        fruitless = 0

        def exhausted(state: tenacity.RetryCallState) -> bool:
            nonlocal fruitless
            del state
            fruitless = 0 if moved() else fruitless + 1
            return fruitless >= times.attempts

        for attempt in tenacity.Retrying(
            stop=exhausted,
            wait=tenacity.wait_exponential(times.backoff, 20) + tenacity.wait_random(0, times.backoff / 2),
            retry=tenacity.retry_if_exception_type(ConnectionLostError),
            before_sleep=lambda _: self.session.close(),
            reraise=True,
        ):
            with attempt:
                if not self.session.connected:
                    self.session.connect()
                return action()
        raise AssertionError("tenacity ends by returning or raising")


class _Forward:
    """Passes progress on, without what a repeated attempt reports a second time."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self._progress, self._told, self._now, self._last = progress, 0, 0, 0

    def __call__(self, count: int) -> None:
        self._now += count
        if self._now > self._told:
            if self._progress:
                self._progress(self._now - self._told)
            self._told = self._now

    def restart(self) -> None:
        self._now = 0

    def moved(self) -> bool:
        """Tell whether anything came since this was last asked."""
        moved, self._last = self._told > self._last, self._told
        return moved


class _Growing:
    """Tells whether a collection has grown since this was last asked."""

    def __init__(self, collection: Sized) -> None:
        self._collection, self._last = collection, 0

    def __call__(self) -> bool:
        grown, self._last = len(self._collection) > self._last, len(self._collection)
        return grown


def _plists(tree: SystemTree) -> list[Release]:
    """Return what each SystemVersion.plist says, the OS cryptex's first."""
    found = []
    for path in SYSTEM_VERSION_PLISTS:
        try:
            entry = tree.resolve(path)
            if entry is None or not stat.S_ISREG(entry.mode):
                continue
            data = tree.read_head(entry.path, _PLIST_LIMIT)
        except NoAccessError:
            continue
        found.append(parse_system_version(data, f"{shown(entry.path)} of the source"))
    return found


def _local(path: str, error: OSError) -> SymcacheError:
    if isinstance(error, PermissionError):
        return NoAccessError(f"{shown(path)}: not readable for this user", hint="run as a user who may read it")
    if isinstance(error, FileNotFoundError):
        return NoSuchFileError(f"{shown(path)}: no such file")
    # Not a StorageError: it is the source that fails, in one place, and the rest may be read.
    return RemoteError(f"{shown(path)}: {error.strerror or error}", hint="check the disk or image")
