"""The response to the command `symcache load` in a user's LLDB: where the modules of a dump are, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from symcache.dump.formats.minidump import is_minidump
from symcache.dump.late_modules import LateModules
from symcache.dump.lldb_child.links import Links
from symcache.dump.lldb_child.process import Limits
from symcache.dump.lldb_child.requests import Responder
from symcache.dump.loader import LoadedDump, load_dump
from symcache.dump.minidump_loader import load_minidump
from symcache.dump.module_files import Fetching
from symcache.resolve import ModuleResolver
from symcache.scratch import ScratchFolder
from symcache.text import printable

__all__ = ["LLDB_SCRIPT", "response_for_lldb"]

LLDB_SCRIPT = Path(__file__).with_name("symcache_lldb.py")
"""What LLDB imports at its start."""
_SESSION = Path(__file__).with_name("session.py")


@contextmanager
def response_for_lldb(
    path: Path,
    resolver: ModuleResolver,
    *,
    cache: UUID | None = None,
    build: str | None = None,
    source_map: Sequence[tuple[str, str]] = (),
    here: ModuleResolver | None = None,
    fetching: Fetching | None = None,
    problems: Sequence[str] = (),
) -> Iterator[tuple[LoadedDump, str, Responder]]:
    """Yield a dump whose modules were found, the line of JSON that responds to LLDB, and what responds from then on.

    The files that these name are there within the block. The line's fields: `dump`, the path; `plan` (see `Plan`);
    `exception` in words; `session`, the file whose function `load` goes on in LLDB. The arguments, and what is raised,
    are as for `open_in_lldb`.
    """
    with ScratchFolder("dump") as folder:
        load = load_minidump if is_minidump(path) else load_dump
        scratch = Path(folder)
        loaded = load(
            *(path, scratch, resolver),
            cache=cache,
            build=build,
            source_map=source_map,
            here=here,
            fetching=fetching,
        )
        links = Links(scratch / "links")
        plan = links.of_plan(loaded.plan).to_line(max_frames=Limits.max_frames, send_sources=False)
        exception = printable(loaded.exception.description) if loaded.blamed else ""
        response = {"dump": str(path.absolute()), "exception": exception, "session": str(_SESSION.resolve())}
        late = LateModules(loaded, scratch, problems)
        yield loaded, json.dumps({**response, "plan": json.loads(plan)}), Responder(None, late.fetch_at_prompt, links)
