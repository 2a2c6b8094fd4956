"""Where a setting comes from: option, then environment, then `symcache.toml` here, then the user's configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import platformdirs

from symcache.cli.common import console, plain
from symcache.errors import NotFoundError, UsageError
from symcache.files import nearest_existing
from symcache.scratch import ScratchFolder

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from symcache.library import Library
    from symcache.resolve import BinarySources

__all__ = [
    "HOW_TO_BEGIN",
    "SETTINGS",
    "Setting",
    "binary_sources",
    "cache_dir",
    "is_empty",
    "library_if_any",
    "library_location",
    "lldb_memory",
    "names_folder",
    "open_library",
    "path_setting",
    "server_urls",
    "source_roots",
]


_NO_SERVERS = (
    "this looks into a library, whatever servers there are: name one with --library; what a server has, its pages tell,"
    " and `symcache verify --dump FILE --server URL`"
)


class Setting(NamedTuple):
    """One thing that users set, as docs/reference/environment.md and symcache(1) have it."""

    variable: str
    """Of the environment; empty if it has none."""
    meaning: str
    """In Markdown; a page is named as `docs/PAGE.md#HEADING`."""
    option: str = ""
    key: str = ""
    """In `symcache.toml`."""
    value: type = str
    """What TOML has for it."""
    form: str = ""
    """The line in `symcache.toml`, with a placeholder."""


SETTINGS = (
    Setting(
        "SYMCACHE_LIBRARY",
        "The library: a folder, or `s3://bucket/prefix`. By default, one in the user's data folder.",
        option="--library",
        key="library",
        form='library = "PATH"',
    ),
    Setting(
        "SYMCACHE_URL",
        "Servers to ask, separated by spaces; the first that has it counts.",
        option="--server",
        key="servers",
        value=list,
        form='servers = ["URL"]',
    ),
    Setting(
        "SYMCACHE_CACHE_DIR",
        "The folder of binaries that were fetched. By default, one in the user's cache folder.",
        key="cache_dir",
        form='cache_dir = "PATH"',
    ),
    Setting(
        "SYMCACHE_MACHINES",
        "Inventory of machines; else `machines.toml` here or in the user's configuration folder (docs/machines.md).",
        option="--machines",
    ),
    Setting(
        "SYMCACHE_RELEASES",
        "The site's table of releases: what each must have, which new builds are wanted, which stay"
        " (docs/verify.md#what-a-release-should-have, docs/sources.md#new-builds-by-themselves).",
        option="--releases",
        key="releases",
        form='releases = "PATH"',
    ),
    Setting(
        "SYMCACHE_WAIVERS",
        "Findings that are known and excused (docs/verify.md#waivers).",
        option="--waivers",
        key="waivers",
        form='waivers = "PATH"',
    ),
    Setting(
        "SYMCACHE_APPLEDB",
        "AppleDB, a mirror or a file of it, for `symcache sync` (docs/sources.md#new-builds-by-themselves).",
        option="--appledb",
    ),
    Setting(
        "SYMCACHE_LLDB_MEMORY",
        "Memory that LLDB gets at most for a dump, in GiB; 8 by default (docs/lldb.md#how-it-is-confined).",
        key="lldb_memory",
        value=int,
        form="lldb_memory = GIB",
    ),
    Setting(
        "SYMCACHE_UNCONFINED",
        "`1` takes away the confinement of LLDB, where it goes wrong; limits stay (docs/lldb.md#how-it-is-confined).",
    ),
    Setting(
        "SYMCACHE_SOURCE_ROOTS",
        "Folders, separated by `:`, that source notes of dSYMs from libraries and servers may lead to; none by default"
        " (docs/lldb.md#notes-that-come-with-a-dsym).",
    ),
    Setting(
        "SYMCACHE_REDIRECT_HOSTS",
        "Hosts, separated by spaces, that servers may redirect to, beyond those that are safe"
        " (docs/server.md#what-our-client-puts-up-with).",
    ),
    Setting(
        "HTTPS_PROXY",
        "With `HTTP_PROXY` and `NO_PROXY`: the way to servers (docs/server.md#inside-a-companys-network).",
    ),
    Setting("SSL_CERT_FILE", "Further authorities to trust, in PEM (docs/server.md#inside-a-companys-network)."),
    Setting(
        "AWS_ENDPOINT_URL",
        "Or `AWS_ENDPOINT_URL_S3`; with `AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID`,"
        " `AWS_SECRET_ACCESS_KEY` and `AWS_CA_BUNDLE`: the object store of `s3://` libraries"
        " (docs/library.md#in-an-object-store).",
    ),
    Setting(
        "SSH_AUTH_SOCK",
        "The agent whose keys are tried where a machine is harvested (docs/harvest.md#host-keys-and-logging-in).",
    ),
    Setting("TMPDIR", "Where temporary files lie; restore images need 20 GB there (docs/harvest.md#restore-images)."),
)
"""Every variable and key there is; a test finds those that are read and not listed here."""

_KEYS = {setting.key: setting.value for setting in SETTINGS if setting.key}
HOW_TO_BEGIN = "begin with `symcache harvest ssh://user@host`, or see `symcache demo`"
"""What to do where a library is empty."""


@cache
def _file_settings() -> dict[str, Any]:
    """Return the first settings file's content; the nearer file wins key by key. Raises UsageError."""
    merged: dict[str, Any] = {}
    for path in (platformdirs.user_config_path("symcache") / "symcache.toml", Path("symcache.toml")):
        try:
            text = path.read_text(encoding="utf-8")
            import tomllib

            data = tomllib.loads(text)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: not readable as TOML: {error}") from error
        for key, value in data.items():
            if key not in _KEYS:
                raise UsageError(f"{path}: unknown key {key!r}", hint=f"known keys: {', '.join(sorted(_KEYS))}")
            if not isinstance(value, _KEYS[key]):
                raise UsageError(f"{path}: {key} must be a {_KEYS[key].__name__}")
            if isinstance(value, list) and not all(isinstance(item, str) for item in value):
                raise UsageError(f"{path}: {key} must be a list of texts")
        merged |= data
    return merged


def library_location(option: str | None) -> str:
    """Return the library to use: a folder or `s3://bucket/prefix`. By default, one in the user's data folder."""
    return _named_library(option) or str(platformdirs.user_data_path("symcache") / "library")


def _named_library(option: str | None) -> str | None:
    return option or os.environ.get("SYMCACHE_LIBRARY") or _file_settings().get("library")


def open_library(option: str | None, *, create: bool = False) -> Library:
    """Open the library to use; see `Library.open`. One that is to be read and is empty is said to be."""
    from symcache.library import Library

    try:
        library = Library.open(library_location(option), create=create)
    except NotFoundError as error:
        if _named_library(option) or not server_urls(None):
            raise
        raise NotFoundError(str(error), hint=_NO_SERVERS) from error
    if not create and is_empty(library):
        console.print(f"[yellow]note:[/] {plain(library.store.location)} is empty: {HOW_TO_BEGIN}")
    return library


def library_if_any(option: str | None) -> Library | None:
    """Open the library to use; None where none is named and the user has none."""
    try:
        return open_library(option)
    except NotFoundError:
        if _named_library(option):
            raise
        return None


def is_empty(library: Library) -> bool:
    """Return whether nothing is stored."""
    return not library.catalog.harvests(1)


def binary_sources(
    folders: Sequence[Path], library: str | None, servers: list[str] | None
) -> AbstractContextManager[BinarySources]:
    """Open everything that may have binaries. A library that does not exist is an error only if it was named."""
    from symcache.resolve import open_sources

    return open_sources(
        cache_dir(),
        folders=folders,
        library=library_location(library),
        must_exist=bool(library or os.environ.get("SYMCACHE_LIBRARY")),
        servers=server_urls(servers),
        source_roots=source_roots(),
    )


def server_urls(option: list[str] | None) -> list[str]:
    """Return the servers to ask, first one first; none is fine. Raises UsageError for what is no URL."""
    urls = option or os.environ.get("SYMCACHE_URL", "").split() or list(_file_settings().get("servers", []))
    if urls:
        from symcache.client import is_http_url
    for url in urls:
        if not is_http_url(url):
            shown = url.rpartition("@")[2]  # what stands before it may be a token
            raise UsageError(f"{shown}: not the URL of a server", hint="write http://host:port or https://host")
    return [url.rstrip("/") for url in urls]


def lldb_memory() -> int | None:
    """Return the bytes of memory that LLDB may take for a dump; None where nothing says it. Raises UsageError."""
    named = os.environ.get("SYMCACHE_LLDB_MEMORY") or str(_file_settings().get("lldb_memory", ""))
    if not named:
        return None
    if not re.fullmatch("[0-9]{1,6}", named) or not int(named):
        raise UsageError(f"{named[:40]!r}: is no size for LLDB's memory", hint="write whole gibibytes, such as 16")
    return int(named) << 30


def source_roots() -> list[str]:
    """Return the folders to which notes from libraries and servers may lead for sources; none by default.

    The environment alone says it: a `symcache.toml` in the working folder may be as foreign as the notes are.
    """
    named = os.environ.get("SYMCACHE_SOURCE_ROOTS", "").split(os.pathsep)
    return [str(Path(root).expanduser()) for root in named if root]


def path_setting(option: Path | None, key: str) -> Path | None:
    """Return the path that an option, `SYMCACHE_<KEY>`, or a settings file names; None where none does."""
    named = option or os.environ.get(f"SYMCACHE_{key.upper()}") or _file_settings().get(key)
    return Path(named).expanduser() if named else None


def site_wants() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which architectures and families of caches the site's table of releases wants; all, where it is silent."""
    from symcache.verify import Expectations

    site = Expectations.load(path_setting(None, "releases"))
    return site.wanted_archs, site.wanted_families


def cache_dir() -> Path:
    """Return the folder of the local cache of fetched binaries."""
    named = os.environ.get("SYMCACHE_CACHE_DIR") or _file_settings().get("cache_dir")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("symcache") / "binaries"


@contextmanager
def names_folder() -> Iterator[Path]:
    """Yield the folder of what was read of symbols: beside fetched binaries, or where that cannot be, a scratch one."""
    folder = cache_dir() / "names"
    if os.access(nearest_existing(folder), os.W_OK):
        yield folder
        return
    with ScratchFolder("names") as scratch:
        yield Path(scratch)
