"""A restore image (.ipsw) as a source, mounted by the `ipsw` program where that is installed.

https://github.com/blacktop/ipsw mounts the disk images inside: `ipsw mount fs|sys|rosetta FILE -m FOLDER` prints
`Press Ctrl+C to unmount 'FOLDER'`, blocks, and unmounts when it is interrupted. The system volume and the cryptexes are
images of their own; here they become one system again.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from symcache.errors import EnvironmentFailure, NotFoundError, UsageError
from symcache.model import Release
from symcache.text import excerpt
from symcache_provisioning.sources.entries import Entry, Limits
from symcache_provisioning.sources.folder import DirectorySource
from symcache_provisioning.sources.locations import ROSETTA_CRYPTEX, SYSTEM_VERSION_PLISTS
from symcache_provisioning.sources.release import system_versions
from symcache_provisioning.ssh.packets import Attributes, NoSuchFileError

__all__ = ["IpswSource", "OverlaidSource"]

_PROGRAM = "ipsw"
_VOLUMES = {
    "fs": ("/", True),
    "sys": ("/System/Volumes/Preboot/Cryptexes/OS", False),  # since macOS 13
    "rosetta": (ROSETTA_CRYPTEX, False),  # since macOS 27
}
"""What `ipsw mount` calls a volume, where it lies in the system, and whether every image has it."""
_READY = re.compile(rb"Press Ctrl\+C to unmount '([^'\n]+)'")
_ABSENT = re.compile(rb"no \w+ DMG found")
"""What it prints if the release has no such volume. Any other error is a failure."""
_NO_CRYPTEX = b"could not find SystemOS DMG"
"""What `mount sys` prints for images before macOS 13, whose system volume it then mounts a second time."""
_ERROR_MARK = "⨯"
"""Mark before errors in its log."""
_LONGEST_ERROR = 1000
_MOUNT_SECONDS = 1800
"""Decrypting and decompressing one volume of 10 GB takes minutes."""
_UNMOUNT_SECONDS = 60
_MAX_OUTPUT = 1 << 20


class OverlaidSource(DirectorySource):
    """A system whose volumes are mounted in several folders: `parts` maps folders of the system to those."""

    def __init__(self, name: str, parts: Mapping[str, Path], *, limits: Limits | None = None) -> None:
        super().__init__(parts["/"], limits=limits)
        self._name = name
        self._parts = {path: folder.absolute() for path, folder in parts.items() if path != "/"}

    @property
    def name(self) -> str:
        """What the volumes were mounted from."""
        return self._name

    def identity(self) -> Release:
        """See DirectorySource."""
        plists = system_versions(self)
        if not plists:
            raise NotFoundError(
                f"{self._name}: holds no macOS system: it has no {SYSTEM_VERSION_PLISTS[-1]}",
                hint="name a restore image of macOS",
            )
        return plists[0]

    def lstat(self, path: str) -> Entry | None:
        """See Source. The folders above a mounted volume exist, too."""
        if path in self._parts or any(part.startswith(f"{path}/") for part in self._parts):
            entry = super().lstat(path)
            if path in self._parts or entry is None or not stat.S_ISLNK(entry.mode):
                return Entry(path, stat.S_IFDIR | 0o755, 0, 0)
        return super().lstat(path)

    def scan(self, path: str) -> Iterator[tuple[bytes, Attributes]]:
        """See Source. What is mounted in a folder is listed there, whether the folder itself is there or not."""
        inside = {p[len(path) :].strip("/").partition("/")[0] for p in self._parts if p.startswith(f"{path}/")}
        try:
            for name, attributes in super().scan(path):
                if os.fsdecode(name) not in inside:
                    yield name, attributes
        except NoSuchFileError:
            if not inside:
                raise
        for folder in sorted(inside):
            yield folder.encode(), Attributes(stat.S_IFDIR | 0o755, 0, 0)

    def _at(self, path: str) -> Path:
        for part, folder in self._parts.items():
            if path == part or path.startswith(f"{part}/"):
                return folder.joinpath(*[p for p in path[len(part) :].split("/") if p])
        return super()._at(path)


class IpswSource(OverlaidSource):
    """A context manager: inside of it, the volumes of the restore image are mounted."""

    cache_advice = "see whether `ipsw mount sys` of this image shows a folder System/Library/dyld"

    def __init__(self, image: Path, *, limits: Limits | None = None) -> None:
        _check(image)
        self._image, self._limits = image.absolute(), limits
        self._mounts: list[_Mount] = []
        self._points: Path | None = None
        program = shutil.which(_PROGRAM)
        if program is None:
            raise EnvironmentFailure(
                f"{image}: the program `{_PROGRAM}` is not installed, which opens restore images",
                hint="install it (https://github.com/blacktop/ipsw), or mount the image and name its mount point",
            )
        self._program = program

    @property
    def file(self) -> str:
        """The restore image."""
        return str(self._image)

    def __enter__(self) -> Self:
        self._points = Path(tempfile.mkdtemp(prefix="symcache-ipsw-"))
        try:
            parts = {}
            for volume, (path, needed) in _VOLUMES.items():
                target = self._points / volume
                target.mkdir()
                mount = _Mount(self._program, volume, self._image, target)
                self._mounts.append(mount)
                if mount.wait(needed):
                    parts[path] = mount.root
            super().__init__(str(self._image), parts, limits=self._limits)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmount everything, last first."""
        while self._mounts:
            self._mounts.pop().close()
        if self._points is not None:
            # Never what is in a volume that would not unmount: only the empty mount points.
            for folder in (*self._points.glob("*"), self._points):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            self._points = None


class _Mount:
    """One `ipsw mount` that runs as long as its volume is needed."""

    def __init__(self, program: str, volume: str, image: Path, target: Path) -> None:
        self._volume, self._image, self._target = volume, image, target
        self._output = b""
        self._process = subprocess.Popen(
            [program, "mount", volume, str(image), "-m", str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl+C is ours to pass on, in the right order
        )

    @property
    def root(self) -> Path:
        """Where the volume's `/` is: apfs-fuse shows it as a folder `root`."""
        inner = self._target / "root"
        return inner if inner.is_dir() and not (self._target / "System").is_dir() else self._target

    def wait(self, needed: bool) -> bool:
        """Wait until the volume is mounted. Return False if the release has none, which is an error if it is `needed`.

        Raises EnvironmentFailure for any other failure to mount it at our folder.
        """
        deadline = time.monotonic() + _MOUNT_SECONDS
        pipe = self._process.stdout
        if pipe is None:
            raise RuntimeError("no pipe to read from")
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not (ready := _READY.search(self._output)):
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise EnvironmentFailure(
                        f"{self._image}: `ipsw mount {self._volume}` did not finish in {_MOUNT_SECONDS} seconds",
                        hint="mount the image by hand, and name its mount point",
                    )
                data = os.read(pipe.fileno(), 65536)
                self._output = (self._output + data)[-_MAX_OUTPUT:]
                if not data:
                    self._process.wait()
                    return self._failed(needed)
        if _NO_CRYPTEX in self._output:
            return False
        mount_point = Path(os.fsdecode(ready[1]))
        if mount_point.resolve() != self._target.resolve():
            self._process.kill()  # interrupted, it would unmount what it did not mount
            raise EnvironmentFailure(
                f"{self._image}: `ipsw mount {self._volume}` says that it is mounted at {excerpt(ready[1])} already",
                hint="unmount it there, and harvest again",
            )
        return True

    def _failed(self, needed: bool) -> bool:
        if _ABSENT.search(self._output) and not needed:
            return False
        raise EnvironmentFailure(
            f"{self._image}: `ipsw mount {self._volume}` ended with {self._process.returncode}: {self._error_text()}",
            hint="run it by hand to see why: on Linux it needs apfs-fuse, and `rosetta` needs version 3.1.690; or mount"
            " the images inside by hand and harvest each mount point",
        )

    def _error_text(self) -> str:
        """Return the error that it printed last, after its usage, on one line."""
        output = self._output.decode("utf-8", "replace")
        _, mark, error = output.rpartition(_ERROR_MARK)
        lines = [line for line in output.splitlines() if line.strip()]
        if not mark and lines:
            error = next((line for line in lines if line.startswith("panic:")), lines[-1])
        return excerpt(" ".join(error.split()), _LONGEST_ERROR) or "it said nothing"

    def close(self) -> None:
        """Interrupt it, so that it unmounts; kill it if it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_UNMOUNT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _check(path: Path) -> None:
    """Raise UsageError for what cannot be a restore image."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file", hint="name a restore image (.ipsw)")
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise UsageError(f"{path}: is no restore image: those are zip archives", hint="download it again")
