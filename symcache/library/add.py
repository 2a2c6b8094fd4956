"""Own binaries for the library: files, folders, .app and .dSYM bundles, and zips of them."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from uuid import UUID

from symcache.errors import IntegrityError, MachOError, NotFoundError, UsageError
from symcache.library.other_files import instead
from symcache.library.staged import Staged, StagedObject
from symcache.macho import identify, noted_sources
from symcache.model import Kind, ManifestEntry, Origin, SourceNote, Trust

__all__ = ["files_below", "stage_file", "stage_paths"]

_MAX_MEMBERS = 200_000
_MAX_UNPACKED = 64 << 30
_MAX_RATIO = 1100
"""Deflate cannot compress better than about 1032 to 1: a member that claims more lies."""
_CHUNK = 1 << 20
_NO_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises for damaged, encrypted and strange archives; ValueError, since names may be no UTF-8."""


def stage_paths(paths: Sequence[Path], scratch: Path) -> Staged:
    """Find every Mach-O under `paths` and stage each of its slices.

    `scratch` is an empty folder for what zips contain. A file that starts as a Mach-O but is broken becomes a
    problem of the result. Raises NotFoundError when there is no Mach-O at all.
    """
    staged = Staged(release=None, source=" ".join(p.name for p in paths), trust=Trust.ADDED)
    for number, path in enumerate(paths):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder", hint="check the spelling of the path")
        base = path.absolute().parent
        root = path
        if path.is_file() and zipfile.is_zipfile(path):
            base = root = scratch / str(number)
            _unpack(path, root)
        for file in files_below(root):
            stage_file(staged, file, file.absolute().relative_to(base).as_posix())
    if not staged.objects and not staged.problems:
        if staged.notes:
            raise NotFoundError(staged.notes[0], hint="link it with a UUID: without -no_uuid, or with -random_uuid")
        raise NotFoundError(
            "; ".join(f"{p}: no Mach-O found{instead(p)}" for p in paths),
            hint="name executables, dylibs, .app or .dSYM bundles",
        )
    return staged


def files_below(root: Path) -> Iterator[Path]:
    """Yield the plain files of a folder in a stable order, or the file itself; links are not followed."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):  # does not follow links to folders
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def stage_file(staged: Staged, file: Path, path: str) -> None:
    """Add every image of a file that somebody could ask for; a broken Mach-O becomes a problem."""
    try:
        slices = identify(file)
    except MachOError as error:
        staged.problems.append(str(error))
        return
    for found in slices:
        if found.kind is None:
            continue  # object files and the like: nobody asks for them
        if found.uuid is None:
            staged.notes.append(f"{path} ({found.arch}): has no LC_UUID, by which it could be asked for: not added")
            continue
        staged.manifest.append(ManifestEntry(path=path, arch=found.arch, uuid=found.uuid, kind=found.kind))
        staged.objects.append(
            StagedObject(
                *(file, found.offset, found.size, path, found.arch, found.uuid),
                kind=found.kind,
                origin=Origin.FILE,
                sources=_noted(file, found.uuid) if found.kind is Kind.DEBUGINFO else (),
            )
        )


def _noted(file: Path, uuid: UUID) -> tuple[SourceNote, ...]:
    return tuple(SourceNote(recorded=recorded, place=place) for recorded, place in noted_sources(file, uuid))


def _unpack(archive: Path, target: Path) -> None:
    """Unpack a zip below `target`: plain files only, bounded, nothing outside."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = zipped.infolist()
            if len(members) > _MAX_MEMBERS or sum(m.file_size for m in members) > _MAX_UNPACKED:
                raise IntegrityError(f"{archive}: unpacks to more than is reasonable", hint="unpack it by hand")
            for member in members:
                if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
                    continue
                parts = PurePosixPath(member.filename).parts
                if not parts or ".." in parts or parts[0] == "/" or "\0" in member.filename:
                    raise IntegrityError(f"{archive}: member {member.filename!r} would leave the folder")
                if member.file_size > _MAX_RATIO * (member.compress_size + 64):
                    raise IntegrityError(f"{archive}: member {member.filename!r} claims an impossible size")
                place = target.joinpath(*parts)
                place.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(member) as source, place.open("xb") as out:
                    shutil.copyfileobj(source, out, _CHUNK)  # ends where the member claims to
    except _NO_ZIP as error:
        raise IntegrityError(f"{archive}: not a readable zip: {error}") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise IntegrityError(f"{archive}: two members have one name: {error.filename}") from error
    except OSError as error:
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise IntegrityError(f"{archive}: not a readable zip: {error}") from error  # bz2; a bad offset
