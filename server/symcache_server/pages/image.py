"""The pages of one image: the contents under its UUID, which of them is served, and what it exports."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from aiohttp import web

from symcache.catalog import Occurrence
from symcache.errors import IntegrityError, MachOError, NotFoundError, UsageError
from symcache.images import ImageRequest
from symcache.library import Found, Library
from symcache.macho import mach_header, parse_uuid
from symcache.model import Kind, Trust, uuid_text
from symcache.store import blob_key
from symcache_server.convert.symbol_list import REVISION, make_symbol_list
from symcache_server.http.auth import Scope, requires
from symcache_server.http.content import IMMUTABLE, Content, send
from symcache_server.keys import (
    BACKGROUND,
    CONFIG,
    DECODED,
    LIBRARY,
    MADE,
    OFFLOAD,
    RESOLVER,
    in_background,
)
from symcache_server.lookup.headers import image_headers
from symcache_server.lookup.heads import read_head
from symcache_server.pages.documents import release_link
from symcache_server.pages.render import first_row, page, page_links

__all__ = ["content", "image", "symbols"]

_HEAD = 256 << 10
_SYMBOLS = 200
_MOST_BUILDS = 40
_PROTECTION = ((1, "r"), (2, "w"), (4, "x"))
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
"""Names that are shown in a command to paste into a shell. Strangers have chosen them."""


@requires(Scope.READ)
async def image(request: web.Request) -> web.Response:
    """Show everything under one UUID."""
    app, uuid = request.app, parse_uuid(request.match_info["uuid"])
    served = {kind: await app[RESOLVER].resolve(ImageRequest(uuid, kind)) for kind in Kind}
    document = await in_background(app, _document, app[BACKGROUND], uuid, served)
    return await page(request, "image.html", document)


def _document(library: Library, uuid: UUID, served: Mapping[Kind, Found | None]) -> dict[str, Any]:
    rows = library.variants(uuid)
    if not rows:
        raise NotFoundError(f"{uuid_text(uuid)}: not in the library", hint="harvest the release that holds it")
    contents = list(_contents(rows, served))
    main = next((c for c in contents if c["kind"] == "executable"), contents[0])
    best = served[Kind.EXECUTABLE] or served[Kind.DEBUGINFO]
    digits, name = uuid.hex, quote(main["name"], safe="")
    return {
        "uuid": uuid_text(uuid),
        "name": main["name"],
        "file_name": main["name"] if _FILE_NAME.fullmatch(main["name"]) else "image",
        "path": main["paths"][0],
        "paths": list(dict.fromkeys(path for c in contents for path in c["paths"])),
        "archs": sorted({c["arch"] for c in contents}),
        "contents": contents,
        "conflict": any(c["state"] == "conflict" for c in contents),
        "has_binary": served[Kind.EXECUTABLE] is not None,
        "has_dsym": served[Kind.DEBUGINFO] is not None,
        "layouts": [
            {"name": layout, "kind": kind.value, "link": link}
            for layout, kind, link in (
                ("debuginfod", Kind.EXECUTABLE, f"/buildid/{digits}/executable"),
                ("SSQP", Kind.EXECUTABLE, f"/{name}/mach-uuid-{digits}/{name}"),
                ("Symbolicator", Kind.EXECUTABLE, f"/{digits[:2]}/{digits[2:]}/executable"),
                ("LLDB, file-mapped", Kind.EXECUTABLE, f"/{_tree(uuid)}.app"),
                ("debuginfod", Kind.DEBUGINFO, f"/buildid/{digits}/debuginfo"),
                ("SSQP", Kind.DEBUGINFO, f"/_.dwarf/mach-uuid-sym-{digits}/_.dwarf"),
                ("Symbolicator", Kind.DEBUGINFO, f"/{digits[:2]}/{digits[2:]}/debuginfo"),
                ("LLDB, file-mapped", Kind.DEBUGINFO, f"/{_tree(uuid)}"),
            )
            if served[kind]
        ],
        "breakpad": f"/{name}/{digits}0/{name}.sym",
        "segments": _segments(read_head(library, best.sha256, _HEAD)) if best else [],
    }


def _contents(rows: Sequence[Occurrence], served: Mapping[Kind, Found | None]) -> Iterator[dict[str, Any]]:
    """Yield one object a content, the preferred one first: where it is from, and for which requests it is served."""
    groups: dict[tuple[Kind, str], list[Occurrence]] = {}
    for o in rows:
        groups.setdefault((o.kind, o.sha256), []).append(o)
    contradicted = {o.key[:3] for o in rows if o.rival}
    best = {kind: min((list(Trust).index(o.trust) for o in rows if o.kind is kind), default=0) for kind in Kind}
    harvested = any(o.trust is Trust.HARVEST for o in rows)
    for (kind, sha256), group in groups.items():
        first, answer = group[0], served[kind]
        caches = list(dict.fromkeys(uuid_text(o.cache_uuid) for o in group if o.cache_uuid))
        trusted = list(Trust).index(first.trust) <= (0 if harvested else best[kind])
        if answer is not None and answer.sha256 == sha256:
            state, why = "served", "answers where nothing is pinned"
            if first.key[:3] in contradicted:
                why += "; others contradict it"
        elif any(o.rival for o in group):
            state = "conflict"
            why = "contradicts the content that answers for the same shared cache, which was there first"
        elif not trusted:
            state, why = "outranked", f"was {first.trust.value}: what is trusted more answers in its place"
        elif caches or first.build:
            state, why = "pinned", "answers where its shared cache or its build is pinned"
        else:
            state, why = "outranked", "another content answers in its place"
        builds = list(dict.fromkeys((o.build, o.version) for o in group if o.build))
        yield {
            "kind": kind.value,
            "arch": first.arch,
            "name": first.path.rpartition("/")[2],
            "paths": list(dict.fromkeys(o.path for o in group)),
            "sha256": sha256,
            "size": first.size,
            "symbols": first.symbols,
            "builds": [{"build": b, "version": v, "link": release_link(b)} for b, v in builds[:_MOST_BUILDS]],
            "builds_total": len(builds),
            "caches": caches,
            "extractor": f"{first.extractor} {first.revision}" if first.extractor else "",
            "trust": first.trust.value,
            "state": state,
            "why": why,
            "link": f"/images/{uuid_text(first.uuid)}/{sha256}" if first.uuid else "",
        }


def _segments(head: bytes) -> list[dict[str, Any]]:
    """Return the segments of a thin image that begins with `head`, as far as they are told there."""
    found: list[dict[str, Any]] = []
    header = mach_header(head)
    try:
        for command in header.load_commands(head, {header.structs.lc_segment}) if header else ():
            if s := command.segment():
                protection = "".join(letter if s.initprot & bit else "-" for bit, letter in _PROTECTION)
                found.append(
                    {"name": s.segname, "address": f"{s.vmaddr:#x}", "size": s.vmsize, "in_file": s.filesize,
                     "protection": protection, "sections": s.nsects}
                )  # fmt: skip
    except MachOError:
        pass  # those before the damage are shown
    return found


def _tree(uuid: UUID) -> str:
    digits = uuid.hex.upper()
    return "/".join([*(digits[n : n + 4] for n in range(0, 20, 4)), digits[20:]])


@requires(Scope.READ)
async def symbols(request: web.Request) -> web.Response:
    """Show what an image exports: of the content that answers where nothing is pinned."""
    app, uuid = request.app, parse_uuid(request.match_info["uuid"])
    text = request.query.get("q", "").strip()[:200]
    try:
        first = first_row(request)
    except ValueError:
        raise UsageError("`from` is the number of the first symbol to show") from None
    found = await app[RESOLVER].resolve(ImageRequest(uuid))
    if found is None:
        raise NotFoundError(
            f"{uuid_text(uuid)}: its binary is not in the library", hint=f"see /images/{uuid_text(uuid)}"
        )
    parts = [(app[DECODED], found.sha256, found.size)]
    problem = ""
    lines: list[dict[str, str]] = []
    total = 0
    try:
        source, made = await app[MADE].get(parts, f"exports{REVISION}", make_symbol_list)
        descriptor = await source.open(made.sha256, made.size)
        total, lines = await asyncio.to_thread(_matching, descriptor, text, first)
    except IntegrityError as error:
        problem = app[CONFIG].without_paths(str(error))
    document = {
        "uuid": uuid_text(uuid),
        "name": found.name,
        "path": found.path,
        "arch": found.arch,
        "query": text,
        "first": first,
        "total": total,
        "symbols": lines,
        "problem": problem,
        **page_links(request, first, _SYMBOLS, total),
    }
    return await page(request, "symbols.html", document)


def _matching(descriptor: int, text: str, first: int) -> tuple[int, list[dict[str, str]]]:
    """Return how many lines of a list hold a text in any case, and those from number `first` on; closes the file."""
    with open(descriptor, "rb") as file:
        data = file.read()
    if text:
        # In the names only, not in the offset.
        pattern = re.compile(rb"^[0-9a-f]*\t[^\n]*" + re.escape(text.encode()) + rb"[^\n]*$", re.IGNORECASE | re.M)
        places = [match.span() for match in pattern.finditer(data)]
        chosen = [data[start:end] for start, end in places[first : first + _SYMBOLS]]
        total = len(places)
    else:
        every = data.split(b"\n")[:-1]
        total, chosen = len(every), every[first : first + _SYMBOLS]
    rows = (line.decode("utf-8", "replace").split("\t") for line in chosen)
    return total, [{"offset": offset, "name": name, "demangled": plain} for offset, name, plain in rows]


@requires(Scope.READ)
async def content(request: web.Request) -> web.StreamResponse:
    """Send one content of a UUID, whichever one a look-up prefers."""
    uuid, sha256 = parse_uuid(request.match_info["uuid"]), request.match_info["sha256"]
    app, library = request.app, request.app[LIBRARY]
    for row in await asyncio.to_thread(library.variants, uuid):
        if row.sha256 == sha256 and (stat := await asyncio.to_thread(library.store.stat, blob_key(sha256))):
            headers = dict(image_headers(Found(row, stat.stored_size))) | {"Cache-Control": IMMUTABLE}
            stored = Content(row.sha256, row.size, stat.stored_size)
            return await send(request, app[DECODED], stored, headers, app.get(OFFLOAD))
    raise NotFoundError(f"{uuid_text(uuid)}: has no such content here", hint=f"see /images/{uuid_text(uuid)}")
