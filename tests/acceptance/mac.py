"""The Mac that is tried: its root, its programs, the space that there is, and what is kept between parts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from symcache.dump.lldb_child.finder import LldbPython, candidates, try_import
from symcache.model import Release
from symcache.own_program import own_environment, own_python
from symcache_provisioning import DirectorySource
from symcache_provisioning.sources.entries import RemoteCache
from tests.acceptance.part import SkippedError

__all__ = ["GIB", "Mac", "Options"]

GIB = 1 << 30
_RESERVE = 2 * GIB
"""Left free for everybody else."""
_WORDS = 64 << 20
"""Characters of a program's output that are looked at."""
_OWN = {"symcache": "symcache", "symcache-with-lldb": "tests.acceptance.with_lldb"}
_XCODE = "xcode-select --install, or install Xcode and open it once"
_TODO = {
    "xcrun": _XCODE,
    "atos": _XCODE,
    "lipo": _XCODE,
    "7zz": "brew install sevenzip",
}
"""What to do about programs that not every Mac has."""


@dataclass(frozen=True)
class Options:
    """What the user chose."""

    archs: tuple[str, ...] = ()
    """Of caches; all that are there, if empty."""
    images: int = 50
    """Whose names are held against Apple's."""
    addresses: int = 1000
    """In each of them."""
    ssh: str = ""
    """The URL of this Mac; by default localhost, as this user."""
    identity: Path | None = None
    password_env: str | None = None
    host_key: str | None = None
    minutes: float = 24 * 60
    """After which nothing that takes long is begun."""
    vm: tuple[str, str] | None = None
    """A driver, and the image of a throw-away VM."""


@dataclass
class Mac:
    """One Mac. `programs` replaces programs by command lines, as tests do."""

    work: Path
    options: Options = field(default_factory=Options)
    root: Path = Path("/")
    home: Path = field(default_factory=Path.home)
    began: float = field(default_factory=time.monotonic)
    programs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    libraries: dict[str, Path] = field(default_factory=dict)
    """Of the releases that were harvested, by architecture."""
    dumps: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    """The dump of the program that crashed, and the folder with program and dSYM, by architecture."""

    def at(self, path: str) -> Path:
        """Return where an absolute path of the Mac is."""
        return self.root / path.lstrip("/")

    def command(self, name: str) -> list[str]:
        """Return the command line of a program by name. Raises SkippedError where it is not installed."""
        if name in self.programs:
            return list(self.programs[name])
        if name in _OWN:
            return own_python("-m", _OWN[name])
        found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if not found:
            raise SkippedError(f"{name} is not installed", _TODO.get(name, f"install {name}, and have it on the PATH"))
        return [found]

    def has(self, name: str) -> bool:
        """Return whether a program is installed."""
        try:
            return bool(self.command(name))
        except SkippedError:
            return False

    def run(self, name: str, *arguments: str | Path, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program by name to its end, as `run_command`. Raises SkippedError where it is not installed."""
        return self.run_command([*self.command(name), *map(str, arguments)], seconds)

    def run_command(self, command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in `work`; one that takes too long ends with status 124."""
        try:
            done = subprocess.run(
                command,
                cwd=self.work,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"it did not end within {seconds:.0f} seconds")
        return subprocess.CompletedProcess(command, done.returncode, done.stdout[:_WORDS], done.stderr[:_WORDS])

    def says(self, name: str, *arguments: str) -> str:
        """Return the first line that a program prints; empty where it is not there or fails."""
        if not self.has(name):
            return ""
        done = self.run(name, *arguments, seconds=30)
        lines = done.stdout.strip().splitlines()
        return lines[0].strip()[:200] if lines and done.returncode == 0 else ""

    @cached_property
    def environment(self) -> dict[str, str]:
        """The user's environment, with everything that symcache would keep moved into `work`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SYMCACHE_")}
        homes = {f"XDG_{n}_HOME": str(self.work / "home" / n.lower()) for n in ("DATA", "CONFIG", "CACHE", "STATE")}
        environment = own_environment(kept | homes)
        folders = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": str(Path(sys.executable).parent)}
        return environment | {
            **{k: os.pathsep.join(filter(None, (v, environment.get(k)))) for k, v in folders.items()},
            "SYMCACHE_CACHE_DIR": str(self.work / "cache"),
            "no_proxy": "127.0.0.1",
        }

    @cached_property
    def source(self) -> DirectorySource:
        """The running system as a folder."""
        return DirectorySource(self.root)

    @cached_property
    def release(self) -> Release:
        """What runs there."""
        release = self.source.identity()
        assert release, "the folder of a running system says what it is"
        return release

    @cached_property
    def all_caches(self) -> list[RemoteCache]:
        """Its shared caches."""
        return self.source.caches(self.release.build)

    def caches(self) -> Iterator[tuple[RemoteCache, Path]]:
        """Yield the chosen shared caches, each with the path of its main file."""
        chosen = [c for c in self.all_caches if not self.options.archs or c.arch in self.options.archs]
        if not chosen:
            raise SkippedError(
                "no shared cache is there", "see what `ls -l /System/Cryptexes/*/System/Library/dyld` says"
            )
        yield from ((cache, self.at(cache.path)) for cache in chosen)

    @property
    def native_arch(self) -> str:
        """The architecture of its own programs' caches: the first that is not for Rosetta."""
        archs = list(dict.fromkeys(c.arch for c, _ in self.caches()))
        return next((a for a in archs if a.startswith("arm64")), archs[0])

    @property
    def free(self) -> int:
        """Bytes that may be used."""
        return max(0, shutil.disk_usage(self.work).free - _RESERVE)

    @cached_property
    def lldbs(self) -> list[tuple[LldbPython, str]]:
        """Every LLDB that some Python here might import, with its version; that is empty where it cannot."""
        return [(lldb, try_import(lldb)) for lldb in candidates()]

    def need_time(self) -> None:
        """Raise SkippedError where the time is over that the user gives."""
        if time.monotonic() > self.began + 60 * self.options.minutes:
            raise SkippedError(f"{self.options.minutes:g} minutes are over", "give it longer with --minutes")

    def need_space(self, size: int, what: str) -> None:
        """Raise SkippedError where there is too little room in `work`."""
        if self.free < size:
            raise SkippedError(
                f"{what} needs {size / GIB:.1f} GiB of disk, and {self.free / GIB:.1f} GiB may be used",
                "make room, or name a folder on a larger disk with --work",
            )
