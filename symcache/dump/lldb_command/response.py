"""The response to the command `symcache load` in a user's LLDB: where the modules of a dump are, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from symcache.dump.late_modules import LateModules
from symcache.dump.lldb_child.links import Links
from symcache.dump.lldb_child.process import Limits
from symcache.dump.lldb_child.protocol import to_line
from symcache.dump.lldb_child.requests import Responder
from symcache.dump.loader import LoadedDump
from symcache.dump.minidump_loader import load_dump_or_minidump
from symcache.dump.module_files import Fetching, Search
from symcache.resolve import ModuleResolver
from symcache.scratch import ScratchFolder, memory_folder
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
    with ScratchFolder("dump") as folder, ScratchFolder("modules", memory_folder()) as places:
        scratch = Path(folder)
        search = Search(resolver, cache, build, source_map, here, fetching, Path(places))
        loaded = load_dump_or_minidump(path, scratch, search)
        links = Links(scratch / "links")
        response = {
            "dump": str(path.absolute()),
            "plan": links.of_plan(loaded.plan).to_json(max_frames=Limits.max_frames, send_sources=False),
            "exception": printable(loaded.exception.description) if loaded.blamed else "",
            "session": str(_SESSION.resolve()),
        }
        late = LateModules(loaded, scratch, problems)
        yield loaded, to_line(response).decode(), Responder(None, late.fetch_at_prompt, links)
