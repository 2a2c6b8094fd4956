"""The programs of the stand-in host: those that a harvest runs, by the paths that macOS has them at."""

from __future__ import annotations

import io
import plistlib
import re
import secrets
import shlex
import shutil
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from symcache.demo import cache_util
from symcache.demo.guest_files import GuestFiles

__all__ = ["Programs"]

_SYSTEM_VERSION = (
    "/System/Cryptexes/OS/System/Library/CoreServices/SystemVersion.plist",
    "/System/Library/CoreServices/SystemVersion.plist",
)
_TEMPORARY = "/tmp"  # noqa: S108 - of the guest, which is a folder of ours
_KEYS = {
    "ProductName": "ProductName",
    "ProductVersion": "ProductVersion",
    "ProductVersionExtra": "ProductVersionExtra",
    "BuildVersion": "ProductBuildVersion",
}
"""What sw_vers prints, and the keys of the property list that it comes from."""
_SCRIPT = re.compile(r"(?:LC_ALL=C; export LC_ALL; )?(?:read -r go; )?(?:echo '[^']*' >&2; )?exec (.*)", re.DOTALL)


@dataclass
class _Output:
    stdout: io.StringIO = field(default_factory=io.StringIO)
    stderr: io.StringIO = field(default_factory=io.StringIO)


class Programs:
    """What runs on the host. Programs write below its /tmp only."""

    def __init__(self, files: GuestFiles, *, util: str | None, model: str = "") -> None:
        self._files, self._model = files, model
        self._table: dict[str, Callable[[Sequence[str], _Output], int]] = {
            "/usr/bin/sw_vers": self._sw_vers,
            "/usr/bin/mktemp": self._mktemp,
            "/usr/bin/uname": self._uname,
            "/usr/sbin/sysctl": self._sysctl,
            "/bin/df": self._df,
            "/bin/rm": self._rm,
        }
        if util is not None:
            self._table[util] = self._util

    def run(self, command: str) -> tuple[bytes, bytes, int]:
        """Run `/bin/sh -c 'exec PROGRAM …'`, the only kind of command there is; return both outputs and the status."""
        output = _Output()
        try:
            status = self._run(command, output)
        except OSError as error:
            output.stderr.write(f"{error.strerror or error}\n")
            status = 1
        return (
            output.stdout.getvalue().encode("utf-8", "surrogateescape"),
            output.stderr.getvalue().encode("utf-8", "surrogateescape"),
            status,
        )

    def _run(self, command: str, output: _Output) -> int:
        try:
            words = shlex.split(command)
            script = _SCRIPT.fullmatch(words[2]) if words[:2] == ["/bin/sh", "-c"] and len(words) == 3 else None
            argv = shlex.split(script[1]) if script else []
        except ValueError:
            argv = []
        if not argv:
            output.stderr.write("this host runs single programs only\n")
            return 2
        if argv[:2] == ["/bin/sh", "-c"] and argv[3:4] == ["sh"]:
            argv = argv[4:]  # a watched program: here it runs to its end
        program = self._table.get(argv[0]) if argv else None
        if program is None:
            output.stderr.write(f"/bin/sh: {''.join(argv[:1])}: No such file or directory\n")
            return 127
        return program(argv[1:], output)

    def _sw_vers(self, argv: Sequence[str], output: _Output) -> int:
        plist = next((p for s in _SYSTEM_VERSION if (p := self._files.place(s)).is_file()), None)
        values = plistlib.loads(plist.read_bytes()) if plist else {}
        if argv:
            key = next((k for k in _KEYS if argv[0].lstrip("-").lower() == k.lower()), None)
            if key is None:
                output.stderr.write("Usage: sw_vers [--help|--productName|--productVersion|--buildVersion]\n")
                return 1
            output.stdout.write(f"{values.get(_KEYS[key], '')}\n")
            return 0
        for key, name in _KEYS.items():
            if name in values:
                output.stdout.write(f"{key}:\t\t{values[name]}\n")
        return 0

    def _uname(self, argv: Sequence[str], output: _Output) -> int:
        output.stdout.write("arm64\n" if list(argv) == ["-m"] else "Darwin\n")
        return 0

    def _sysctl(self, argv: Sequence[str], output: _Output) -> int:
        if list(argv) != ["-n", "hw.model"] or not self._model:
            output.stderr.write(f"sysctl: unknown oid '{''.join(argv[-1:])}'\n")
            return 1
        output.stdout.write(f"{self._model}\n")
        return 0

    def _mktemp(self, argv: Sequence[str], output: _Output) -> int:
        if len(argv) != 2 or argv[0] != "-d" or not argv[1].startswith(f"{_TEMPORARY}/") or argv[1].count("/") != 2:
            output.stderr.write("usage: mktemp [-d] [-p tmpdir] [-q] [-t prefix] [-u] template ...\n")
            return 1
        stem = argv[1].rstrip("X")
        alphabet = string.ascii_letters + string.digits
        name = stem + "".join(secrets.choice(alphabet) for _ in range(len(argv[1]) - len(stem)))
        self._files.place(_TEMPORARY).mkdir(exist_ok=True)
        self._files.place(name).mkdir(mode=0o700)
        output.stdout.write(f"{name}\n")
        return 0

    def _df(self, argv: Sequence[str], output: _Output) -> int:
        if list(argv[:-1]) != ["-kP"]:
            output.stderr.write("usage: df [-b | -g | -H | -h | -k | -m | -P] [-acilnT] [-t type] [-,]\n")
            return 64
        place = self._files.place(argv[-1])
        if not place.exists():
            output.stderr.write(f"df: {argv[-1]}: No such file or directory\n")
            return 1
        usage = shutil.disk_usage(place)
        blocks = " ".join(f"{n >> 10:>10}" for n in (usage.total, usage.used, usage.free))
        output.stdout.write("Filesystem 1024-blocks       Used  Available Capacity  Mounted on\n")
        output.stdout.write(f"/dev/disk3s5 {blocks} {100 * usage.used // usage.total:>5}%    /System/Volumes/Data\n")
        return 0

    def _rm(self, argv: Sequence[str], output: _Output) -> int:
        """Remove what lies below /tmp; anything else is read-only, as a Mac's system volume is."""
        for path in (a for a in argv if not a.startswith("-")):
            place = self._files.place(path, follow_last=False)
            if self._files.place(_TEMPORARY) not in place.parents:
                output.stderr.write(f"rm: {path}: Operation not permitted\n")
                return 1
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
        return 0

    def _util(self, argv: Sequence[str], output: _Output) -> int:
        argv = list(argv)
        if "-extract" in argv[:-1]:
            folder: Path = self._files.place(argv[argv.index("-extract") + 1])
            temporary = self._files.place(_TEMPORARY)
            if folder != temporary and temporary not in folder.parents:
                output.stderr.write("Error: the volume is read only\n")
                return 255
        return cache_util.run(argv, output.stdout, output.stderr, self._files.place)
