"""Lists the macOS builds that exist, to find those that were not harvested.

There is no official complete list: it comes from a file that the site keeps, or from the `ipsw` program
(https://github.com/blacktop/ipsw). Both are parsed alike: a build and a version somewhere in a line.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from symcache.errors import EnvironmentFailure, UsageError
from symcache_provisioning.drivers.programs import Program, ProgramError

__all__ = ["AvailableRelease", "available_releases", "parse_releases"]

_HINT = "name a file of builds with --list"
_IPSW = Program("ipsw", hint=_HINT)
_SECONDS = 120
_MAX_BYTES = 8 << 20
_BUILD = re.compile(r"(?<![0-9A-Za-z])([0-9]{1,2}[A-Z][0-9]{1,5}[a-z]?)(?![0-9A-Za-z])")
_VERSION = re.compile(r"(?<![0-9A-Za-z.])(1[0-9]|[2-9][0-9])((?:\.[0-9]{1,3}){0,2})(?![0-9A-Za-z.]|-[0-9])")


@dataclass(frozen=True, slots=True)
class AvailableRelease:
    """One build that exists; `version` is empty if the list does not have it."""

    build: str
    version: str = ""


def available_releases(file: Path | None = None) -> list[AvailableRelease]:
    """Return the builds that `file` lists, or `ipsw` where no file is named, in their order, each once.

    Raises UsageError without either, EnvironmentFailure when `ipsw` fails or lists nothing.
    """
    if file is not None:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES).decode("utf-8", "replace")
        releases = parse_releases(text)
        if not releases:
            raise UsageError(f"{file}: names no macOS build", hint="write one a line, e.g. `22G830 13.6.9`")
        return releases
    if shutil.which(_IPSW.name) is None:
        raise UsageError(
            "nobody here knows which macOS builds exist: ipsw is not installed",
            hint=f"install https://github.com/blacktop/ipsw, or {_HINT}",
        )
    try:
        releases = parse_releases(_IPSW.run("download", "macos", "--list", timeout=_SECONDS).stdout)
    except ProgramError as error:
        raise EnvironmentFailure(str(error), hint=_HINT) from error
    if not releases:
        raise EnvironmentFailure("ipsw download macos --list: lists no build", hint=_HINT)
    return releases


def parse_releases(text: str) -> list[AvailableRelease]:
    """Return the builds in a list, one a line at most; the rest after a `#` is ignored."""
    releases: dict[str, AvailableRelease] = {}
    for line in text.splitlines():
        content = re.sub(r"\x1b\[[0-9;]*m", "", line).partition("#")[0]
        build = _BUILD.search(content)
        if build is None:
            continue
        version = _VERSION.search(content[: build.start()] + " " + content[build.end() :])
        release = AvailableRelease(build[1], version[0] if version else "")
        if build[1] not in releases or (release.version and not releases[build[1]].version):
            releases[build[1]] = release
    return list(releases.values())
