"""`symcache dsymforuuid`: answers what LLDB and Instruments on a Mac ask of a dsymForUUID program.

They run it with a UUID and read a property list: a dictionary a UUID, with the keys that `man dsymForUUID` and LLDB's
page on symbols on macOS name. Success hinges on DBGDSYMPath; a system library has no dSYM, so there it names the image.
"""

from __future__ import annotations

import itertools
import os
import plistlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from symcache.cli.common import errors_to_exit, to_output
from symcache.cli.options import BuildOption, CacheOption, LibraryOption, ServerOption
from symcache.cli.settings import binary_sources
from symcache.errors import SymcacheError
from symcache.images import ImageRequest
from symcache.kinds import Kind, uuid_text
from symcache.macho import identify, parse_uuid
from symcache.own_program import own_environment, own_python

__all__ = ["register"]

Reply = dict[str, str]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(dsymforuuid)


def dsymforuuid(
    uuids: Annotated[list[str], typer.Argument(metavar="UUID")],
    ignore_negative_cache: Annotated[
        bool, typer.Option("--ignoreNegativeCache", help="Accepted; misses are never remembered.")
    ] = False,
    copy_executable: Annotated[
        bool, typer.Option("--copyExecutable", help="Accepted; the binary is always named.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="Reply after this; fetching goes on behind.")
    ] = 30,
    library: LibraryOption = None,
    server: ServerOption = None,
    build: BuildOption = None,
    cache: CacheOption = None,
) -> None:
    """Reply like dsymForUUID: a property list of where the binary and the dSYM of each UUID are."""
    del ignore_negative_cache, copy_executable
    with errors_to_exit():
        wanted = [parse_uuid(text) for text in uuids]
        cache_uuid = parse_uuid(cache) if cache else None
    replies: dict[UUID, Reply] = {}

    def find() -> None:
        try:
            replies.update(_find(wanted, library, server, build, cache_uuid))
        except (SymcacheError, OSError) as error:
            hint = getattr(error, "hint", "")
            for uuid in wanted:
                replies.setdefault(uuid, {"DBGError": f"{error}" + (f" ({hint})" if hint else "")})

    # The asker waits without a limit of its own, with the user in front of it.
    worker = threading.Thread(target=find, daemon=True)
    worker.start()
    worker.join(timeout)
    late = worker.is_alive()
    if late:
        _fetch_behind(wanted, library, server, build, cache)
    unknown: Reply = {"DBGError": "symcache is still fetching it: ask again in a while"}
    report = {uuid_text(uuid): replies.get(uuid, unknown) for uuid in wanted}
    with errors_to_exit(), to_output():
        sys.stdout.buffer.write(plistlib.dumps(report))
        sys.stdout.buffer.flush()
    if late:
        os._exit(0)  # the worker cannot be stopped otherwise; what it had begun, it leaves as temporary files


def _find(
    uuids: list[UUID], library: str | None, server: list[str] | None, build: str | None, cache: UUID | None
) -> dict[UUID, Reply]:
    kinds = (Kind.EXECUTABLE, Kind.DEBUGINFO)
    with binary_sources([], library, server) as sources:
        files = sources.resolver.resolve([ImageRequest(uuid, kind, cache, build) for uuid in uuids for kind in kinds])
        problems = "; ".join(sources.problems)
    found: dict[UUID, dict[Kind, Path]] = {}
    for wanted, file in files.items():
        found.setdefault(wanted.uuid, {})[wanted.kind] = file.path
    nobody = f"nobody has it ({problems})" if problems else "nobody has it: harvest the release that holds it"
    return {uuid: _describe(uuid, found[uuid]) if uuid in found else {"DBGError": nobody} for uuid in uuids}


def _describe(uuid: UUID, files: dict[Kind, Path]) -> Reply:
    executable, dsym = files.get(Kind.EXECUTABLE), files.get(Kind.DEBUGINFO)
    some = str(dsym or executable)
    # Servers that are not ours may send a universal file.
    arch = next((image.arch for image in identify(Path(some)) if image.uuid == uuid), "")
    reply = {"DBGArchitecture": arch, "DBGDSYMPath": some}
    if executable:
        reply["DBGSymbolRichExecutable"] = str(executable)
    return reply


def _fetch_behind(
    uuids: list[UUID], library: str | None, server: list[str] | None, build: str | None, cache: str | None
) -> None:
    """Go on fetching in processes of their own, so that the next question finds it."""
    options = [*(["--library", library] if library else []), *(x for url in server or () for x in ("--server", url))]
    options += [*(["--build", build] if build else []), *(["--cache", cache] if cache else [])]
    for uuid, kind in itertools.product(uuids, Kind):
        subprocess.Popen(
            own_python("-m", "symcache", "get", uuid_text(uuid), "--kind", kind, *options),
            env=own_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
