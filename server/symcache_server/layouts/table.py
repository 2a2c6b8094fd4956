"""The look-up layouts, with one row or two each. To add a layout, add a row.

A pattern spans the whole path, so a binary may have any name, be it `build`, `api` or `metrics`: what a path means is
decided by its shape, not by its first word. No path may match two rows.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

from symcache.images import ImageRequest
from symcache_server.layouts.lookup import Lookup, What

__all__ = ["LAYOUTS", "UUID_TEXT", "Layout"]

_NAME = r"[^/\x00-\x1f\x7f]{1,255}"
"""A file name."""
_HEX = "[0-9A-Fa-f]"
UUID_TEXT = rf"{_HEX}{{32}}|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
"""A UUID as people write it, as a pattern."""


class Layout(NamedTuple):
    """One shape of paths.

    Groups of its pattern: `uuid`, 32 hex digits, with or without slashes or hyphens; `what`, a value of `What`, where
    the row does not say it; `detail` and `name`, as in `Lookup`. Where SSQP repeats the name, and has its beginning in
    front: `again` and `index2`, all compared without case.
    """

    name: str
    pattern: re.Pattern[str]
    examples: tuple[str, ...]
    """Its paths as people write them: `{hex}` is the UUID's digits, `X` one of them."""
    what: What | None = None

    def match(self, path: str) -> Lookup | None:
        """Return what `path` requests in this layout, or None."""
        if (matched := self.pattern.fullmatch(path)) is None:
            return None
        groups = {key: text or "" for key, text in matched.groupdict().items()}
        name = groups.get("name", "")
        if groups.get("again", name).casefold() != name.casefold():
            return None
        if not name.casefold().startswith(groups.get("index2", "").casefold()):
            return None
        what = self.what or What(groups["what"])
        image = ImageRequest(UUID(groups["uuid"].replace("/", "")), what.kind)
        return Lookup(self.name, what, image, groups.get("detail", ""), name)


_LLDB_TREE = rf"(?P<uuid>(?:/{_HEX}{{4}}){{5}}/{_HEX}{{12}})"

LAYOUTS = (
    # Its own clients write the id in lower case, except for debuginfod-find, which passes it on as typed. People copy a
    # UUID with its hyphens.
    Layout(
        "debuginfod",
        re.compile(rf"/buildid/(?P<uuid>{UUID_TEXT})/(?P<what>executable|debuginfo)"),
        ("/buildid/{hex}/executable", "/buildid/{hex}/debuginfo"),
    ),
    Layout(
        "debuginfod",
        re.compile(rf"/buildid/(?P<uuid>{UUID_TEXT})/(?P<what>section|source)/(?P<detail>.+)", re.S),
        ("/buildid/{hex}/section/{section}", "/buildid/{hex}/source/{path}"),
    ),
    # dotnet/symstore. Stores with an `index2.txt` have a folder of the name's first characters in front.
    Layout(
        "ssqp",
        re.compile(
            rf"(?:/(?P<index2>[^/]{{1,2}}))?/(?P<name>{_NAME})/mach-uuid-(?P<uuid>{_HEX}{{32}})/(?P<again>{_NAME})",
            re.I,
        ),
        ("/{name}/mach-uuid-{hex}/{name}",),
        What.EXECUTABLE,
    ),
    Layout(
        "ssqp",
        re.compile(rf"(?:/_\.?)?/_\.dwarf/mach-uuid-sym-(?P<uuid>{_HEX}{{32}})/_\.dwarf", re.I),
        ("/_.dwarf/mach-uuid-sym-{hex}/_.dwarf",),
        What.DEBUGINFO,
    ),
    # Symbolicator's.
    Layout(
        "unified",
        re.compile(rf"/(?P<uuid>{_HEX}{{2}}/{_HEX}{{30}})/(?P<what>executable|debuginfo|breakpad|meta)"),
        tuple(f"/{{first 2 digits}}/{{other 30}}/{what}" for what in ("executable", "debuginfo", "breakpad", "meta")),
    ),
    # LLDB's file-mapped tree of UUIDs: the file is the inner one of the dSYM. `.app` behind it is Symbolicator's.
    Layout("lldb", re.compile(_LLDB_TREE), ("/XXXX/XXXX/XXXX/XXXX/XXXX/XXXXXXXXXXXX",), What.DEBUGINFO),
    Layout("lldb", re.compile(rf"{_LLDB_TREE}\.app"), ("/XXXX/XXXX/XXXX/XXXX/XXXX/XXXXXXXXXXXX.app",), What.EXECUTABLE),
    # Breakpad's symbol files: the age behind the UUID is always 0 for Mach-O.
    Layout(
        "breakpad",
        re.compile(rf"/(?P<name>{_NAME})/(?P<uuid>{_HEX}{{32}})0/(?P=name)\.sym"),
        ("/{name}/{hex}0/{name}.sym",),
        What.BREAKPAD,
    ),
)
