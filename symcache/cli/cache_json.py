"""Shared caches, Mach-O files and extractions as JSON: what `--json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.dyld import ExtractReport, SharedCache
from symcache.macho import Slice, fileset_entries
from symcache.model import uuid_text

__all__ = ["cache_json", "extract_json", "file_type", "slice_json"]

_FILE_TYPES = {
    1: "object", 2: "executable", 4: "core", 6: "dylib", 7: "dylinker", 8: "bundle", 10: "dSYM", 11: "kext",
    12: "kernel collection",
}  # fmt: skip


def cache_json(cache: SharedCache) -> dict[str, Any]:
    """Return all that `symcache info` tells of a shared cache."""
    return {
        "kind": "shared cache",
        "path": str(cache.path),
        "arch": cache.arch,
        "uuid": _uuid_or_none(cache.uuid),
        "platform": cache.main.header.platform,
        "os_version": cache.os_version,
        "cache_type": cache.main.header.cache_type,
        "complete": not any(not m.companion.optional for m in cache.missing),
        "files": [
            {
                "name": part.path.name,
                "uuid": _uuid_or_none(part.header.uuid),
                "size": part.size,
                "header_size": part.header.mapping_offset,
            }
            for part in cache.files
        ],
        "missing": [
            {
                "name": m.companion.name,
                "uuid": _uuid_or_none(m.companion.uuid),
                "optional": m.companion.optional,
                "reason": m.reason,
            }
            for m in cache.missing
        ],
        "mappings": [
            {
                "name": mapping.name,
                "file": part.path.name,
                "address": mapping.address,
                "size": mapping.size,
                "file_offset": mapping.file_offset,
                "max_prot": mapping.max_prot,
                "init_prot": mapping.init_prot,
                "slide_info_version": part.slide_version(mapping),
            }
            for part, mapping in cache.mappings
        ],
        "images": [
            {
                "path": image.path,
                "uuid": _uuid_or_none(image.uuid),
                "address": image.address,
                "text_size": image.text_size,
            }
            for image in cache.images
        ],
        "aliases": {path: cache.images[index].path for path, index in sorted(cache.aliases.items())},
        "warnings": cache.warnings,
    }


def extract_json(cache: SharedCache, root: Path, report: ExtractReport) -> dict[str, Any]:
    """Return what became of every image that was extracted to `root`."""
    return {
        "path": str(cache.path),
        "arch": cache.arch,
        "uuid": _uuid_or_none(cache.uuid),
        "root": str(root),
        "size": report.size,
        "images": [
            {
                "path": e.path,
                "arch": e.arch,
                "uuid": _uuid_or_none(e.uuid),
                "file": str(e.file),
                "size": e.size,
                "unbacked": e.unbacked,
            }
            for e in report.extracted
        ],
        "failed": [{"path": f.path, "uuid": _uuid_or_none(f.uuid), "reason": f.reason} for f in report.failed],
        "warnings": cache.warnings,
    }


def slice_json(file: Path, part: Slice) -> dict[str, Any]:
    """Return what one image in a Mach-O file is."""
    entries = fileset_entries(file, part)
    more = {
        "entries": [
            {"name": e.name, "uuid": _uuid_or_none(e.uuid), "address": e.address, "offset": e.offset} for e in entries
        ]
    }
    return {
        "file": str(file),
        "arch": part.arch,
        "cputype": part.cputype,
        "cpusubtype": part.cpusubtype,
        "type": file_type(part),
        "kind": part.kind,
        "uuid": _uuid_or_none(part.uuid),
        "offset": part.offset,
        "size": part.size,
        "install_name": part.install_name,
        **(more if entries else {}),
    }


def file_type(part: Slice) -> str:
    """Return the name of a Mach-O file type."""
    return _FILE_TYPES.get(part.filetype, f"type {part.filetype}")


def _uuid_or_none(uuid: UUID | None) -> str | None:
    return uuid_text(uuid) if uuid else None
