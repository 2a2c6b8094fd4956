"""A machine over SSH as a source."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import tenacity

from symcache.errors import RemoteError, SymcacheError
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.sources.entries import Entry, Limits
from symcache_provisioning.sources.release import MODEL, parse_sw_vers, system_versions
from symcache_provisioning.sources.source import Source
from symcache_provisioning.ssh.guest_folder import sweep_guest_folders
from symcache_provisioning.ssh.packets import Attributes, ConnectionLostError, NoSuchFileError
from symcache_provisioning.ssh.session import RemoteOutput, SshSession
from symcache_provisioning.ssh.transfer import SMALL_FILE_SIZE, Copy, copy_file, copy_small_files

__all__ = ["SshSource"]

_T = TypeVar("_T")
_STAY_AWAKE = ("/usr/bin/caffeinate", "-i", "-s")
"""Against sleep for want of input, and on mains any other (caffeinate(8)): sessions without a terminal prevent none."""
_BATCH = 256
"""Files whose transfer is planned together."""


class SshSource(Source):
    """A machine over SSH, or a system mounted on it. Reconnects and resumes after a lost connection."""

    def __init__(self, session: SshSession, *, root: str | None = None, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.session = session
        self.root = session.target.root if root is None else root
        """The folder on the machine that all paths are below."""
        if self.root == "/":
            self.cache_advice = "it runs with them: see there what `ls -l /System/Cryptexes/*/System/Library/dyld` says"

    @property
    def name(self) -> str:
        """The machine's URL."""
        return str(self.session.target)

    def identity(self) -> Release:
        """Return the release that runs there (`sw_vers`), or that a mounted system's SystemVersion.plist names.

        Raises RemoteError if neither can be read, or they differ.
        """
        plists = system_versions(self)
        if self.root != "/":
            if not plists:
                raise RemoteError(
                    f"{self.name}: is not the root of a macOS system", hint="name the folder that holds System and usr"
                )
            return plists[0]
        output = self.run(["/usr/bin/sw_vers"], max_output=4096)
        if output.status != 0:
            said = excerpt(output.stderr) or "it said nothing"
            raise RemoteError(
                f"{self.name}: /usr/bin/sw_vers ended with {output.status}: {said}",
                hint="is that a macOS machine, and may the account run programs there?",
            )
        running = parse_sw_vers(output.stdout, self.session.target.host)
        # A Rapid Security Response may keep its plist elsewhere; any other difference is no way to name a harvest.
        if plists and not running.extra and running.build != plists[0].build:
            raise RemoteError(
                f"{self.name}: runs build {running.build} by sw_vers, but {plists[0].build} by SystemVersion.plist",
                hint="let it finish its update and restart it",
            )
        return running

    def host(self) -> str:
        """See Source: what runs there says it, not a system that is mounted there."""
        if self.root != "/":
            return ""
        output = self.run(["/usr/sbin/sysctl", "-n", "hw.model"], max_output=4096)
        model = output.stdout.decode("ascii", "replace").strip()
        return model if output.status == 0 and MODEL.fullmatch(model) else ""

    @contextmanager
    def during_harvest(self) -> Iterator[None]:
        """Remove what a harvest that was killed left there; keep the Mac from sleeping, if it has `caffeinate`."""
        sweep_guest_folders(self.session, self.run)
        with self.session.running(_STAY_AWAKE):
            yield

    def lstat(self, path: str) -> Entry | None:
        """See Source."""
        try:
            attributes = self._retry(lambda: self.session.sftp.lstat(self.remote(path)))
        except NoSuchFileError:
            return None
        return Entry(path, *attributes)

    def readlink(self, path: str) -> bytes:
        """See Source."""
        return self._retry(lambda: self.session.sftp.readlink(self.remote(path)))

    def scan(self, path: str) -> Iterator[tuple[bytes, Attributes]]:
        """See Source."""
        limit = self.limits.folder_entries + 1

        def listing() -> list[tuple[bytes, Attributes]]:
            with contextlib.closing(self.session.sftp.scan(self.remote(path))) as pages:
                return list(itertools.islice(pages, limit))

        names = self._retry(listing)
        if not names:
            # sftp-server leaves out what it cannot lstat, so a folder that may be listed and not entered seems empty.
            self._retry(lambda: self.session.sftp.enter(self.remote(path)))
        yield from names

    def prepare(self, paths: Sequence[str]) -> None:
        """See Source."""
        # If the connection is lost, `scan` notices, too, and reconnects.
        with contextlib.suppress(ConnectionLostError):
            self.session.sftp.prepare([self.remote(p) for p in paths])

    def read_heads(self, paths: Sequence[str], length: int) -> list[bytes | SymcacheError]:
        """See Source. More than one response can hold is read by further requests."""
        remote = [self.remote(p) for p in paths]
        if length <= 32 << 10:
            return list(self._retry(lambda: self.session.sftp.heads(remote, length)))
        result: list[bytes | SymcacheError] = []
        for path in remote:
            try:
                result.append(self._retry(functools.partial(self._read, path, 0, length)))
            except ConnectionLostError:
                raise
            except SymcacheError as error:
                result.append(error)
        return result

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """See Source."""
        return self._retry(lambda: self._read(self.remote(path), offset, length))

    def _read(self, remote: bytes, offset: int, length: int) -> bytes:
        return b"".join(data for _, data in self.session.sftp.read(remote, offset, offset + length))

    def fetch(
        self,
        entry: Entry,
        local: Path,
        progress: Callable[[int], None] | None = None,
        growing: Callable[[Path], None] | None = None,
    ) -> Path:
        """Copy a file to `local`; see `copy_file`. Resumes after lost connections as long as there is progress."""
        report = _ResumedProgress(progress)

        def copy() -> None:
            report.restart()
            copy_file(self.session.sftp, self.remote(entry.path), entry.attributes, local, report, growing)

        self._retry(copy, moved=report.moved)
        return local

    def fetch_all(
        self, wanted: Iterable[tuple[Entry, Path]], progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[Entry, Path | SymcacheError]]:
        """See Source. Small files are copied many at a time."""
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
                self._retry(copy, moved=_Growing(done))
            for entry, local in small:
                yield entry, done[entry.path] or local
            yield from super().fetch_all([item for item in batch if item[0].size > SMALL_FILE_SIZE], progress)

    def remote(self, path: str) -> bytes:
        """Return the path on the machine: below `root`."""
        return (path if self.root == "/" else self.root + path.rstrip("/")).encode()

    def run(self, argv: Sequence[str], *, timeout: float | None = None, max_output: int = 1 << 20) -> RemoteOutput:
        """Run a program that may be run again after a lost connection; see `SshSession.run`."""
        return self._retry(lambda: self.session.run(argv, timeout=timeout, max_output=max_output))

    def _retry(self, action: Callable[[], _T], moved: Callable[[], bool] = lambda: False) -> _T:
        """Run an action that may be repeated, again over a new connection if the old one is lost.

        Gives up after several losses without progress in between; `moved` tells whether there was any.
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


class _ResumedProgress:
    """Passes progress on, without what a repeated attempt reports a second time."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self._progress, self._reported, self._now, self._last = progress, 0, 0, 0

    def __call__(self, count: int) -> None:
        self._now += count
        if self._now > self._reported:
            if self._progress:
                self._progress(self._now - self._reported)
            self._reported = self._now

    def restart(self) -> None:
        self._now = 0

    def moved(self) -> bool:
        """Return whether there was progress since the last call."""
        moved, self._last = self._reported > self._last, self._reported
        return moved


class _Growing:
    """Returns whether a collection has grown since the last call."""

    def __init__(self, collection: Sized) -> None:
        self._collection, self._last = collection, 0

    def __call__(self) -> bool:
        grown, self._last = len(self._collection) > self._last, len(self._collection)
        return grown
