"""Options that several commands have: of one name, one form and one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from symcache.cli.completion import complete_builds
from symcache.kinds import Kind

__all__ = [
    "ArchOption",
    "ArchsOption",
    "BuildOption",
    "CacheBuildOption",
    "CacheOption",
    "JsonOption",
    "JunitOption",
    "KindOption",
    "LibraryOption",
    "NoKeepCachesOption",
    "ReleasesOption",
    "ServerOption",
    "TagOption",
    "TrustOption",
    "YesOption",
]

ArchOption = Annotated[str | None, typer.Option("--arch", metavar="ARCH", help="Only this architecture, e.g. arm64e.")]
ArchsOption = Annotated[
    list[str] | None,
    typer.Option("--arch", metavar="ARCH", help="Only this architecture, e.g. arm64e; may be repeated."),
]
BuildOption = Annotated[
    str | None,
    typer.Option(
        "--build", metavar="BUILD", autocompletion=complete_builds, help="Only from this macOS build, e.g. 22G120."
    ),
]
CacheBuildOption = Annotated[
    str | None,
    typer.Option("--build", metavar="BUILD", help="The build that shared caches by themselves are from, e.g. 22G120."),
]
CacheOption = Annotated[
    str | None, typer.Option("--cache", metavar="UUID", help="Only as laid out in this shared cache.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report.")]
KindOption = Annotated[
    Kind | None, typer.Option("--kind", metavar="executable|debuginfo", help="The binary itself, or its dSYM.")
]
LibraryOption = Annotated[
    str | None,
    typer.Option("--library", metavar="PATH|s3://…", help="Library to use [env: SYMCACHE_LIBRARY]."),
]
NoKeepCachesOption = Annotated[
    bool, typer.Option("--no-keep-caches", help="Of the raw shared caches, store headers and image tables only.")
]
ReleasesOption = Annotated[
    Path | None,
    typer.Option("--releases", metavar="FILE", help="The site's table of releases [env: SYMCACHE_RELEASES]."),
]
ServerOption = Annotated[
    list[str] | None,
    typer.Option("--server", metavar="URL", help="Server to ask; may be repeated [env: SYMCACHE_URL]."),
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Only machines with this tag; may be repeated.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust-new-host", help="Believe the host key of a machine that was never seen before.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
