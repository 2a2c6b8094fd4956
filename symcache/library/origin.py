"""Import of what think-cell's minidump scripts collected: a share of copied system trees and a map of UUIDs to paths.

::

    ROOT/macOS Binaries/13.6_22G120/System/Library/…     one folder a macOS release (or directly below ROOT)
    ROOT/…/13.6_22G120/System/Library/dyld/dyld_shared_cache_x86_64/usr/lib/…   what was extracted from one cache
    ROOT/uuidsources.txt                                  further folders to index, one a line, # for comments
    ROOT/symbols/23516BE4-29BE-350C-91C9-F36E7999F0F1     or symbols/2351/6BE4/29BE/350C/91C9/F36E7999F0F1:
                                                          the path of a binary, relative to where the share is mounted

A release that was collected like this has no manifest: it is served, but never called complete.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from symcache.errors import MachOError, NotFoundError, UsageError
from symcache.library.add import files_below, stage_file
from symcache.library.staged import Staged
from symcache.macho import identify
from symcache.model import Origin, Release, Trust, uuid_text

__all__ = ["stage_origin"]

_RELEASE = re.compile(r"(\d+(?:\.\d+){0,3})_(\d+[A-Z][0-9a-z]+)")
_EXTRACTOR = "dyld_shared_cache_util"
_MAX_LINE = 4096
_MAX_SOURCES = 1 << 20


def stage_origin(root: Path) -> list[Staged]:
    """Return one staged ingest for every release tree below `root`, and one for all other binaries that it names.

    What a list names but is not there becomes a problem. Raises UsageError, or NotFoundError when nothing is found.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder", hint="name the folder that holds uuidsources.txt")
    root = root.resolve()  # lists name it by the folder that it lies in
    seen: set[Path] = set()
    result = []
    for tree, release in _release_trees(root):
        staged = _empty(root, release)
        for file in files_below(tree):
            seen.add(file.resolve())
            _stage(staged, file, file.relative_to(tree))
        result.append(staged)
    rest = _empty(root, None)
    for number, line in _lines(root / "uuidsources.txt"):
        folder = _find(root, line)
        if folder is None:
            rest.problems.append(f"{root / 'uuidsources.txt'}: line {number}: {line}: not there")
            continue
        for file in files_below(folder):
            if file.resolve() not in seen and not any(p.suffix == ".dSYM" for p in file.parents):
                seen.add(file.resolve())
                stage_file(rest, file, file.relative_to(folder.parent).as_posix())
    for name, uuid in _uuid_files(root / "symbols"):
        _stage_named(rest, root, name, uuid, seen)
    result = [s for s in [*result, rest] if s.objects or s.problems]
    if not result:
        raise NotFoundError(
            f"{root}: neither <version>_<build> folders nor uuidsources.txt with binaries", hint="name the share's root"
        )
    return result


def _empty(root: Path, release: Release | None) -> Staged:
    return Staged(release, f"import of {root.name}", trust=Trust.ADDED, sealable=release is None)


def _release_trees(root: Path) -> Iterator[tuple[Path, Release]]:
    """Yield the release trees directly below `root`, or one folder further down."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.is_symlink())
    inner = [p for f in folders if not _RELEASE.fullmatch(f.name) for p in sorted(f.iterdir()) if p.is_dir()]
    for folder in [*folders, *inner]:
        if match := _RELEASE.fullmatch(folder.name):
            yield folder, Release(version=match[1], build=match[2])


def _stage(staged: Staged, file: Path, relative: Path) -> None:
    """Stage a file of a release tree under the path that it had on the machine."""
    parts = relative.parts
    in_cache = (
        parts[:3] == ("System", "Library", "dyld") and len(parts) > 4 and parts[3].startswith("dyld_shared_cache")
    )
    path = "/" + "/".join(parts[4:] if in_cache else parts)
    before = len(staged.objects)  # each of which is in the manifest
    stage_file(staged, file, path)
    if in_cache:
        staged.objects[before:] = [
            replace(o, origin=Origin.CACHE, extractor=_EXTRACTOR) for o in staged.objects[before:]
        ]
        staged.manifest[before:] = [m.model_copy(update={"origin": Origin.CACHE}) for m in staged.manifest[before:]]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        text = file.read(_MAX_SOURCES).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.strip().startswith("#"):
            yield number, line.strip()


def _find(root: Path, name: str) -> Path | None:
    """Return the path that a list means: relative to the share, or to the folder that the share was mounted in.

    The folder need not be called today what it was called then. What leads out of it, or is no path, is not found.
    """
    tail = name.strip("/").partition("/")[2]
    for path in (root / name, root.parent / name, root / tail if tail else root / name):
        with contextlib.suppress(OSError, ValueError):  # too long, or the bytes of some other file
            resolved = path.resolve()
            if path.exists() and resolved.is_relative_to(root.parent):
                return path if path.is_relative_to(root.parent) else resolved
    return None


def _uuid_files(folder: Path) -> Iterator[tuple[Path, UUID]]:
    """Yield (file, UUID) for every file whose path below `folder` spells a UUID."""
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(base) / name
            text = "".join(file.relative_to(folder).parts).replace("-", "")
            if re.fullmatch(r"[0-9A-Fa-f]{32}", text):
                yield file, UUID(text)


def _stage_named(staged: Staged, root: Path, file: Path, uuid: UUID, seen: set[Path]) -> None:
    """Stage the binary that a UUID's file names, or is."""
    with file.open("rb") as opened:
        head = opened.read(_MAX_LINE)
    binary: Path | None = file
    if not _is_macho(file):
        binary = _find(root, head.decode("utf-8", "replace").strip())
    if binary is None or not binary.is_file():
        staged.problems.append(f"{file}: names {head[:200].decode('utf-8', 'replace').strip()!r}, which is not there")
        return
    if binary.resolve() in seen:
        return
    seen.add(binary.resolve())
    before = len(staged.objects)
    stage_file(staged, binary, binary.name if binary == file else binary.relative_to(root.parent).as_posix())
    if uuid not in {o.uuid for o in staged.objects[before:]}:
        staged.problems.append(f"{file}: {binary} is not {uuid_text(uuid)}")


def _is_macho(file: Path) -> bool:
    try:
        return bool(identify(file))
    except MachOError:
        return True
