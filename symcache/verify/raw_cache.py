"""Kept raw shared caches: are their files all there, and what do they say of the images that came out of them?"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from symcache.dyld import (
    HEAD_SIZE,
    MAX_HEADER,
    AddressSpace,
    CacheFilePart,
    ImageTable,
    LocalSymbols,
    SharedCache,
    check_pages,
    companions,
    is_main_name,
    parse_header,
    parse_mappings,
    read_images,
    read_local_symbols,
)
from symcache.errors import IntegrityError, MachOError, NotFoundError, SharedCacheError, StorageError
from symcache.library import Library
from symcache.macho import N
from symcache.model import uuid_text
from symcache.text import excerpt
from symcache.verify.contents import ContentError, read_head
from symcache.verify.findings import Finding, FindingCode
from symcache.verify.holdings import RawFile, Unit
from symcache.verify.image_scan import Reference
from symcache.verify.layout import HEADER_SIZE, commands_end, parse_layout

__all__ = ["RawCache", "check_files", "materialised"]

_LONGEST_NAME = 255
"""Bytes of the name of a file: NAME_MAX."""


def check_files(library: Library, build: str, unit: Unit) -> list[Finding]:
    """Hold the kept files of one cache against what its main file says, by their first bytes."""
    findings: list[Finding] = []
    headers: dict[str, bytes] = {}
    for raw in unit.kept:
        if not _is_file_name(raw.name):
            text = f"{excerpt(raw.name)!r} is no name of a file"
            findings.append(_about(FindingCode.CACHE_UNREADABLE, build, unit, raw, text))
            continue
        try:
            amount = HEAD_SIZE if is_main_name(raw.name) else MAX_HEADER
            headers.setdefault(raw.name, read_head(library.store, raw.sha256, raw.size, amount))
        except NotFoundError:
            findings.append(_about(FindingCode.BLOB_MISSING, build, unit, raw, f"its blob {raw.sha256} is gone"))
        except ContentError as error:
            findings.append(_about(error.problem[0], build, unit, raw, error.problem[1]))
    files = {raw.name: raw for raw in reversed(unit.kept)}
    mains = [name for name in files if is_main_name(name)]
    if not mains:
        text = f"{unit.title}: its main file was not kept beside {', '.join(sorted(files))}"
        findings.append(_about(FindingCode.COMPANION_MISSING, build, unit, None, text))
    for main in mains:
        if main in headers:
            findings += _check_companions(build, unit, main, files, headers)
    return findings


def _is_file_name(name: str) -> bool:
    """Return whether a file can be called so in a folder. Names come from records, which anybody may have written."""
    return name not in {"", ".", ".."} and not {"/", "\0"} & {*name} and len(name.encode()) <= _LONGEST_NAME


def _check_companions(
    build: str, unit: Unit, main: str, files: dict[str, RawFile], headers: dict[str, bytes]
) -> Iterator[Finding]:
    raw = files[main]
    try:
        header = parse_header(headers[main], raw.path)
        wanted = companions(main, headers[main])
    except SharedCacheError as error:
        yield _about(FindingCode.CACHE_UNREADABLE, build, unit, raw, str(error))
        return
    # A development main file stands beside the main file that the cache is known by, with a UUID of its own.
    if not main.endswith(".development") and header.uuid != unit.cache_uuid:
        yield _about(FindingCode.COMPANION_MISMATCH, build, unit, raw, f"is of cache {_uuid(header.uuid)}")
        return
    for companion in wanted:
        if companion.name not in files:
            text = f"{raw.path}: its companion {companion.name} was not kept"
            yield _about(FindingCode.COMPANION_MISSING, build, unit, None, text)
            continue
        if companion.name not in headers:
            continue  # found already
        other = files[companion.name]
        try:
            found = parse_header(headers[companion.name], other.path).uuid
        except SharedCacheError as error:
            yield _about(FindingCode.CACHE_UNREADABLE, build, unit, other, str(error))
            continue
        if found != companion.uuid:
            text = f"UUID {_uuid(found)} where {raw.path} names {_uuid(companion.uuid)}"
            yield _about(FindingCode.COMPANION_MISMATCH, build, unit, other, text)


@contextmanager
def materialised(
    library: Library, build: str, unit: Unit, scratch: Path, findings: list[Finding], pool: Executor
) -> Iterator[RawCache | None]:
    """Write the kept files of one cache to a folder below `scratch`, checking every byte, and open it.

    What is wrong is added to `findings`, which holds what `check_files` found; None where the cache cannot be opened.
    Raises StorageError when there is no room for it.
    """
    need = sum(raw.size for raw in unit.kept)
    folder = scratch / f"{unit.cache_uuid}"
    try:
        free = shutil.disk_usage(scratch).free
        if free < need:
            raise StorageError(
                f"{scratch}: {free >> 10} KiB are free where the raw cache needs {need >> 10} KiB",
                hint="name another folder with --scratch, or use --level blobs",
            )
        written = _write(library, build, unit, folder, findings, pool)
        there = (raw for raw in sorted(written, key=lambda r: len(r.name)) if (folder / raw.name).is_file())
        main = next((raw for raw in there if is_main_name(raw.name)), None)
        if main is None:
            yield None
            return
        opened = False
        try:
            if main in unit.heads:
                with _open_head(folder / main.name) as images:
                    findings += check_table(build, unit, images)
                opened = True
                yield None
                return
            with SharedCache.open(folder / main.name, partial=True) as cache:
                raw_cache = RawCache(cache, unit)
                findings += check_table(build, unit, ImageTable(cache.images, cache.aliases))
                opened = True
                yield raw_cache
        except SharedCacheError as error:
            if opened:
                raise
            if len(written) == len(unit.kept) and main.path not in {f.path for f in findings}:
                findings.append(_about(FindingCode.CACHE_UNREADABLE, build, unit, main, str(error)))
            yield None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(
    library: Library, build: str, unit: Unit, folder: Path, findings: list[Finding], pool: Executor
) -> list[RawFile]:
    """Write every kept file, under its name if it is the first of it; return those that are right."""
    known = {f.path for f in findings}
    places: dict[RawFile, Path] = {}
    for number, raw in enumerate(unit.kept):
        if raw.path not in known and _is_file_name(raw.name):  # else found by its first bytes already
            name = raw.name if folder / raw.name not in places.values() else f"another-{number}"
            places[raw] = folder / name

    def write(raw: RawFile) -> Finding | None:
        try:
            library.materialize(raw.sha256, raw.size, places[raw])
        except (IntegrityError, NotFoundError) as error:
            return _about(FindingCode.DAMAGED, build, unit, raw, str(error))
        return None

    written: list[RawFile] = []
    for raw, wrong in zip(places, pool.map(write, places), strict=True):
        if wrong is None:
            written.append(raw)
        else:
            findings.append(wrong)
    whole = [raw for raw in written if raw not in unit.heads]
    for raw, text in zip(whole, pool.map(_damage, [places[raw] for raw in whole]), strict=True):
        if text:
            findings.append(_about(FindingCode.CACHE_UNREADABLE, build, unit, raw, text))
    return written


def _damage(file: Path) -> str:
    """Return what of a whole cache file is not what its code signature says; nothing for one that carries none."""
    try:
        pages = check_pages(file)
    except SharedCacheError as error:
        return str(error)
    if pages is None or not pages.damaged:
        return ""
    return f"{pages} are not what its code signature says: harvest it again, from another Mac if that says the same"


@contextmanager
def _open_head(path: Path) -> Iterator[ImageTable]:
    """Read the image table of a main file of which only what lies before the images was kept.

    Aliases lie behind them, and are not known. Raises SharedCacheError.
    """
    if not path.stat().st_size:
        raise SharedCacheError(f"{path.name}: nothing of it was kept")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        header = parse_header(data, path.name)
        part = CacheFilePart(path, "", header, parse_mappings(data, header, path.name), data)
        yield read_images(part, AddressSpace([part]))
    finally:
        with suppress(BufferError):  # an error's traceback may still hold a view
            data.close()


def check_table(build: str, unit: Unit, table: ImageTable) -> Iterator[Finding]:
    """Hold the cache's own image table against the manifest."""
    if not unit.expected:
        return  # found already
    there = {(i.path, i.uuid) for i in table.images}
    listed = {(k.path, k.uuid): k for k in unit.expected}
    for path, uuid in sorted(there - set(listed), key=str):
        text = "is in the cache, but not in the manifest"
        yield Finding.of_image(FindingCode.NOT_IN_MANIFEST, text, build, path, unit.arch, uuid, unit.cache_uuid)
    for path, uuid in sorted(set(listed) - there, key=str):
        text = "is in the manifest, but not in the cache"
        if (alias := table.aliases.get(path)) is not None:
            text = f"is no image, but another path of {table.images[alias].path}"
        key = listed[path, uuid]
        yield Finding.of_image(FindingCode.NOT_IN_CACHE, text, build, path, key.arch, uuid, unit.cache_uuid)


@dataclass
class RawCache:
    """An opened raw cache, and what it says of its images."""

    cache: SharedCache
    unit: Unit

    def __post_init__(self) -> None:
        self._images = {(i.path, i.uuid): i for i in self.cache.images}
        holder = self.cache.symbols or self.cache.main
        self._wide = holder.header.has_wide_local_symbols
        self._locals: LocalSymbols | None = read_local_symbols(holder)

    def reference(self, path: str, uuid: UUID | None) -> Reference | None:
        """Return what the cache says of one image; return None if it does not have it, or its file is missing.

        Raises SharedCacheError for what the cache contradicts itself in.
        """
        image = self._images.get((path, uuid))
        if image is None:
            return None
        space = self.cache.space
        try:
            head = bytes(space.view(image.address, HEADER_SIZE, path))
            length = commands_end(head)
            layout = parse_layout(bytes(space.view(image.address, length, path)), 1 << 62)
            if layout.text is None:
                return None
            text = space.view(layout.text.vmaddr, layout.text.vmsize, path)
            count = indirect = 0
            if layout.symtab and layout.symtab.nsyms and layout.linkedit:
                count = layout.symtab.nsyms
                at = layout.linkedit.vmaddr + layout.symtab.symoff - layout.linkedit.fileoff
                dtype = layout.header.structs.nlist
                types = np.frombuffer(space.view(at, count * dtype.itemsize, path), dtype)["n_type"]
                first = layout.defined_at if (unmapped := self._unmapped_locals(image.address)) else 0
                indirect = int(np.count_nonzero(types[first:] == (N.INDR | N.EXT)))
                count += unmapped - first
        except (SharedCacheError, MachOError) as error:
            if self.cache.missing:
                return None  # what is not there is found already
            raise SharedCacheError(f"the raw cache: {error}") from error
        return Reference(image.address, layout.text.vmsize, length, text, count, indirect)

    def _unmapped_locals(self, address: int) -> int:
        """Return how many local symbols of an image lie in the cache's own table of them."""
        if self._locals is None:
            return 0
        key = address - self.cache.base
        if not self._wide:  # before macOS 12 the table counts in file offsets
            found = self.cache.space.locate(address)
            key = found.offset if found else key
        return self._locals.ranges.get(key, (0, 0))[1]


def _about(code: FindingCode, build: str, unit: Unit, raw: RawFile | None, text: str) -> Finding:
    cache = uuid_text(unit.cache_uuid) if unit.cache_uuid else ""
    message = f"{raw.path} (raw cache): {text}" if raw else text
    return Finding(code, message, build, raw.path if raw else "", unit.arch, cache_uuid=cache)


def _uuid(uuid: UUID | None) -> str:
    return uuid_text(uuid) if uuid else "none"
