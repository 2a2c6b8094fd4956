"""Where a dSYM says that its sources are now.

A build system may put `Contents/Resources/<UUID>.plist` into a dSYM bundle. Source: LLDB's documentation of the keys
(`DBGSourcePathRemapping` for `DBGVersion` 3; `DBGBuildSourcePath` with `DBGSourcePath`), which LLDB itself reads on
macOS only, and only through Spotlight. `SymcacheSources` is a key of symcache's own: recorded folder to
`git:REPOSITORY@REVISION`, for sources that are in no folder as they were when the binary was made.

Nothing is done with any of it here: who may follow such a note is decided where it is followed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard
from uuid import UUID

from symcache.kinds import uuid_text

__all__ = ["MAX_SOURCE_NOTES", "noted_sources", "source_maps", "source_revisions"]

_MAX_PLIST = 1 << 20
MAX_SOURCE_NOTES = 256
"""Of one dSYM, of either kind."""
_MAX_PATH = 4096


def source_maps(debug_info: Path, uuid: UUID) -> list[tuple[str, str]]:
    """Return the (recorded, present) folders of the sources of `X.dSYM/Contents/Resources/DWARF/X`; none is fine."""
    content = _plist(debug_info, uuid)
    pairs: list[tuple[object, object]] = []
    remapping = content.get("DBGSourcePathRemapping")
    if isinstance(remapping, dict):
        # The longest folder first: LLDB takes the first that fits.
        pairs = sorted(remapping.items(), key=lambda pair: -len(str(pair[0])))
    pairs.append((content.get("DBGBuildSourcePath"), content.get("DBGSourcePath")))
    return [(a, b) for a, b in pairs[:MAX_SOURCE_NOTES] if _is_path(a) and _is_path(b)]


def source_revisions(debug_info: Path, uuid: UUID) -> list[tuple[str, str]]:
    """Return (recorded folder, `git:REPOSITORY@REVISION`) of the sources that a dSYM notes so; none is fine."""
    noted = _plist(debug_info, uuid).get("SymcacheSources")
    pairs = list(noted.items())[:MAX_SOURCE_NOTES] if isinstance(noted, dict) else []
    return [(a, b) for a, b in pairs if _is_path(a) and "=" not in a and _is_path(b) and b.startswith("git:/")]


def noted_sources(debug_info: Path, uuid: UUID) -> list[tuple[str, str]]:
    """Return both kinds as (recorded folder, place), folders first."""
    found = [*source_maps(debug_info, uuid), *source_revisions(debug_info, uuid)]
    return list(dict.fromkeys(found))[:MAX_SOURCE_NOTES]


def _plist(debug_info: Path, uuid: UUID) -> dict[str, object]:
    if debug_info.parent.name != "DWARF":
        return {}
    import plistlib  # noqa: PLC0415 (takes its time, for what hardly any binary has)
    from xml.parsers.expat import ExpatError  # noqa: PLC0415

    path = debug_info.parent.parent / f"{uuid_text(uuid)}.plist"
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_PLIST + 1)
        if len(raw) > _MAX_PLIST:
            return {}
        content = plistlib.loads(raw)  # refuses entity declarations
    except (OSError, ValueError, ExpatError, AttributeError, TypeError, OverflowError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_path(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) < _MAX_PATH and value.isprintable()
