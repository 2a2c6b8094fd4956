"""The parts that documents of pages are put together from, as plain data."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any
from urllib.parse import quote

from symcache.catalog import Growth, Harvest, Occurrence, ReleaseRow
from symcache.model import uuid_text
from symcache.verify import Finding, ReleaseCoverage, is_beta
from symcache_server.lookup.overview import ReleaseView

__all__ = ["columns", "coverage", "growth", "harvest", "image", "release", "release_link"]

_SOURCE = re.compile(r"ssh://[A-Za-z0-9._@:\[\]-]{1,200}|/[A-Za-z0-9._/@+-]{1,300}")
"""Sources that are shown in a command to paste into a shell. Their names come from other machines."""
_FAMILIES = ("system", "driverkit", "exclavekit", "x86support", "simulator")
_ARCHS = ("arm64e", "arm64e.x1", "arm64", "x86_64h", "x86_64", "i386")


def release(row: ReleaseRow, view: ReleaseView | None) -> dict[str, Any]:
    """Return a row of the table of releases; without cells where they are not known yet."""
    coverage = view.coverage if view else None
    return {
        "product": row.product,
        "version": row.version,
        "extra": row.extra,
        "build": row.build,
        "title": _title(row),
        "name": row.name,
        "argument": shlex.quote(row.name),
        "link": release_link(row.name),
        "beta": is_beta(row.build, row.extra),
        "sealed": row.sealed,
        "listed": row.listed,
        "images": row.images,
        "harvests": row.harvests,
        "harvested": view.harvests[0].finished if view and view.harvests else "",
        "state": ("imported" if view else "unknown") if coverage is None else coverage.state.value,
        "verdict": coverage.verdict if coverage else "",
        "bytes": view.size.image_bytes + view.size.cache_bytes if view else None,
        "cells": [
            {
                "family": c.family,
                "arch": c.arch,
                "state": c.state.value,
                "images": c.images,
                "caches": list(c.caches),
                "raw": c.raw,
                "findings": c.findings,
                "step": c.step,
            }
            for c in (coverage.cells if coverage else ())
        ],
    }


def _title(of: ReleaseRow | Harvest) -> str:
    return " ".join(part for part in (of.product, of.version, of.extra) if part)


def columns(rows: Iterable[dict[str, Any]], archs: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the cache families of some rows, each with its architectures, in a fixed order; of `archs`, if given."""
    there: dict[str, set[str]] = {}
    for row in rows:
        for cell in row["cells"]:
            if not archs or cell["arch"] in archs:
                there.setdefault(cell["family"], set()).add(cell["arch"])
    order = [*_FAMILIES, *sorted(there.keys() - {*_FAMILIES, "files"}), "files"]
    return [
        {"family": family, "archs": sorted(there[family], key=lambda a: (_ARCHS.index(a) if a in _ARCHS else 99, a))}
        for family in order
        if family in there
    ]


def harvest(one: Harvest) -> dict[str, Any]:
    """Return who harvested what, when and from where."""
    return {
        "build": one.build,
        "title": _title(one),
        "link": release_link(one.build),
        "source": one.source,
        "command": f"symcache harvest {one.source}" if _SOURCE.fullmatch(one.source) else "",
        "operator": one.operator,
        "extractor": one.extractor,
        "trust": one.trust.value,
        "started": one.started,
        "finished": one.finished,
        "sealed": one.sealed,
        "problems": one.problems,
        "images": one.images,
    }


def release_link(name: str | None) -> str:
    """Return where a release is shown, by build or `PRODUCT:BUILD`, or an empty string for none."""
    return f"/releases/{quote(name, safe='')}" if name else ""


def image(o: Occurrence) -> dict[str, Any]:
    """Return one stored image."""
    return {
        "path": o.path,
        "arch": o.arch,
        "kind": o.kind.value,
        "build": o.build or "",
        "version": o.version,
        "size": o.size,
        "uuid": uuid_text(o.uuid) if o.uuid else "",
        "link": f"/images/{uuid_text(o.uuid)}" if o.uuid else "",
        "cache_uuid": uuid_text(o.cache_uuid) if o.cache_uuid else "",
        "sha256": o.sha256,
    }


def _findings(rows: Iterable[Finding], prefix: str) -> list[dict[str, Any]]:
    """Return findings as plain data, without `prefix`; each text ends with the next step."""
    return [
        {
            "code": f.code.value,
            "text": f.message.removeprefix(prefix),
            "path": f.path,
            "arch": f.arch,
            "uuid": f.uuid,
            "elsewhere": f.elsewhere,
        }
        for f in rows
    ]


def growth(days: Sequence[Growth]) -> list[dict[str, Any]]:
    """Return how much there was after each day on which something came."""
    images = caches = 0
    result = []
    for day in days:
        images, caches = images + day.image_bytes, caches + day.cache_bytes
        with contextlib.suppress(ValueError):  # records may have any day
            date.fromisoformat(day.day)
            result.append({"day": day.day, "image_bytes": images, "cache_bytes": caches})
    return result


def coverage(known: ReleaseCoverage | None, row: ReleaseRow, most: int) -> dict[str, Any]:
    """Return what a release lacks, up to `most` findings, without the release's name in front of each."""
    prefix = f"{row.product} {row.version} ({row.build}): "
    return {
        "findings": _findings(known.findings[:most], prefix) if known else [],
        "findings_total": known.findings_total if known else 0,
        "notes": [note.removeprefix(prefix) for note in known.notes] if known else [],
    }
