"""The page of a crash report that somebody dropped or pasted. It is named in memory, and kept nowhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from aiohttp import web

from symcache.errors import UsageError
from symcache.library import Library
from symcache.model import MACOS, canonical_product, uuid_text
from symcache.reports import decoded
from symcache.symbolicate import NamedReport, report_json, report_text
from symcache_server.http.auth import Scope, requires
from symcache_server.keys import BACKGROUND, NAMES
from symcache_server.lookup.module_names import ModuleError, ServedNames
from symcache_server.pages.documents import release_link
from symcache_server.pages.forms import read_field
from symcache_server.pages.render import page
from symcache_server.symbolicate.reports import MAX_REPORT, named_report

__all__ = ["report", "report_form", "show_report"]

_FRAMES, _FRAMES_OF_ALL, _RAW = 500, 5000, 400_000
"""Frames of one stack and of all, and characters of the report as it came, that the page shows."""
_RANKS = ("dwarf", "symbol", "export", "function-start", "nearest")
_STATES = {
    "dwarf": ("named from its dSYM", "functions and lines"),
    "symbol": ("named by symbols", "functions without lines: there is no dSYM"),
    "export": ("exports only", "what it exports has names; its other functions have none"),
    "function-start": ("exports only", "these functions have no names in it"),
    "nearest": ("nearest symbol only", "nothing tells where its functions begin: the name may be the neighbour's"),
}


@requires(Scope.READ)
async def report_form(request: web.Request) -> web.Response:
    """Ask for a report."""
    return await page(request, "report_form.html", {"has_json": False})


@requires(Scope.READ)
async def report(request: web.Request) -> web.Response:
    """Show a report that was sent by the form."""
    async with read_field(request, "report", MAX_REPORT) as text:
        return await show_report(request, text)


async def show_report(request: web.Request, text: bytes) -> web.Response:
    """Show a crash report with its frames named. Raises UsageError, DumpError for what is none."""
    if not text.strip():
        raise UsageError("there is no report", hint="choose a .ips or .crash file, or paste all of its text")
    names, library = request.app[NAMES], request.app[BACKGROUND]
    whole = request.path.endswith(".json")
    work = partial(_document, library, names, request, asyncio.get_running_loop(), text, whole=whole)
    document = await names.in_report_thread(work)
    response = await page(request, "report.html", document)
    response.headers["Cache-Control"] = "no-store"
    return response


def _document(
    library: Library,
    names: ServedNames,
    request: web.Request,
    loop: asyncio.AbstractEventLoop,
    text: bytes,
    *,
    whole: bool,
) -> dict[str, Any]:
    named, errors = named_report(names, request, loop, text)
    found = report_json(named)
    sources = _sources(found)
    uuids = [image.uuid for image in named.report.images]
    held = {row.build for row in library.releases()}
    build = named.report.os_build
    system = canonical_product(re.split(r" [0-9]", named.report.os_version)[0]) or MACOS
    for module, uuid in zip(found["modules"], uuids, strict=True):
        module.update(_state(module, uuid, sources.get(module["index"], ()), errors, system, build, build in held))
    crashed = next((t for t in found["threads"] if t["crashed"]), None)
    left = _FRAMES_OF_ALL
    for stack in sorted(_stacks(found), key=lambda stack: stack is not crashed):
        stack["total"] = len(stack["frames"])
        if not whole:
            stack["frames"] = stack["frames"][: min(_FRAMES, left)]
            left -= len(stack["frames"])
    plain, raw = report_text(named), decoded(text).replace("\r\n", "\n")
    return found | {
        "name": (named.report.executable).rpartition("/")[2] or "Crash report",
        "release": {"build": build, "link": release_link(build) if build in held else ""},
        "crashed": crashed,
        "others": [t for t in found["threads"] if t is not crashed],
        "used": [m for m in found["modules"] if m["state"] != "not used"],
        "unused": [m for m in found["modules"] if m["state"] == "not used"],
        "wanting": [m for m in found["modules"] if m["state"] == "not held"],
        "text": plain,
        "markdown": _markdown(named, crashed, plain),
        "raw": raw[:_RAW],
        "raw_is_whole": len(raw) <= _RAW,
    }


def _stacks(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from document["threads"]
    yield from document["application_backtraces"]
    if document["last_exception"]:
        yield document["last_exception"]


def _sources(document: Mapping[str, Any]) -> dict[int, set[str]]:
    """Return by module where the names of its frames are from; `report` where nothing more was known."""
    sources: dict[int, set[str]] = {}
    for stack in _stacks(document):
        for frame in stack["frames"]:
            if frame["module_index"] is not None:
                sources.setdefault(frame["module_index"], set()).add(frame["source"] or "")
    return sources


def _state(
    module: Mapping[str, Any],
    uuid: UUID | None,
    sources: Iterable[str],
    errors: Mapping[UUID, ModuleError],
    system: str,
    build: str,
    is_held: bool,
) -> dict[str, str]:
    """Return the state of a module, and what would give it more names."""
    named = [source for source in _RANKS if source in sources]
    path = module["path"] or ""
    if not sources:
        state, why = "not used", "no frame is in it"
    elif uuid and (error := errors.get(uuid)):
        state, why = "not read", error.message
    elif not module["found"]:
        state = "not held"
        if path.startswith(("/System/", "/usr/lib/")):
            known = f"{build} is here, but lacks it: harvest it again" if is_held else f"harvest {system} {build}"
            why = known if build else "harvest the release that it is of"
        else:
            why = "have its binary and dSYM added: symcache push FILE FILE.dSYM"
        if uuid is None:
            why = "the report does not tell its UUID"
    elif named:
        state, why = _STATES[named[0]]
    else:
        state, why = "no name", "it is held, and has no name for these places"
    return {"state": state, "why": why, "link": f"/images/{uuid_text(uuid)}" if uuid and module["found"] else ""}


def _markdown(named: NamedReport, crashed: Mapping[str, Any] | None, plain: str) -> str:
    """Return what one puts into a bug report: what happened, and the crashed thread."""
    report = named.report
    program, system = report.executable.rpartition("/")[2] or "Process", f"{report.os_build}, {report.arch}"
    title = f"**{program}** {report.bundle_version} on {report.os_version} ({system})"
    body: list[str] = []
    if crashed is not None:
        start = f"Thread {crashed['index']} Crashed:"
        thread = plain.partition(start)[2].partition("\n\n")[0]
        body = ["```", *f"{start}{thread}".replace("```", "'''").splitlines(), "```"]
    return "\n".join([title, "", report.exception.description, "", *body]) + "\n"
