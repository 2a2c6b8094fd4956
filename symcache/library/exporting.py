"""A release of the library as files: as Xcode lays out the systems of devices, or its raw shared caches.

`DIR/macOS DeviceSupport/VERSION (BUILD) ARCH/Symbols/PATH` is where LLDB looks for the image that a system has at PATH
(PlatformDarwinDevice::UpdateSDKDirectoryInfosIfNeeded, PlatformRemoteDarwinDevice::GetFileInSDK): it goes over all
folders in `~/Library/Developer/Xcode/macOS DeviceSupport`, those of the version and build that it wants first, which it
reads from their names (PlatformDarwin::ParseVersionBuildDir), and takes what has the right UUID.
"""

from __future__ import annotations

import plistlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from symcache.catalog import CacheFileRow, HarvestRow, Occurrence
from symcache.dyld import arch_of_images, canonical_arch
from symcache.errors import IntegrityError, NotFoundError, UsageError
from symcache.library.export_files import Exported, ExportedFile, Progress, placing, write_files
from symcache.library.library import Library
from symcache.model import ReleaseId, uuid_text
from symcache.text import counted, excerpt

__all__ = ["export_device_support", "export_raw_caches"]

_SUFFIX = " DeviceSupport"
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f]")
_LONGEST_NAME, _LONGEST_PATH = 255, 1024
"""Bytes: NAME_MAX and PATH_MAX of macOS."""


def export_device_support(
    library: Library,
    name: str,
    target: Path,
    *,
    archs: Sequence[str] = (),
    cache: UUID | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a folder for each architecture of a release below `target`, which is one for all systems, or holds such.

    Nothing that is there is touched, and a folder is there when all of it is. Raises as `Library.release_id`, also
    UsageError for what is there already, IntegrityError for a record that gives no names of folders, StorageError.
    """
    release = library.release_id(name)
    build, records = release.build, library.catalog.records_of(release)
    wanted = tuple(canonical_arch(a) for a in archs)
    title = f"{_component(build, 'version', records[-1].version)} ({build})"
    product = _component(build, "product", release.product) + _SUFFIX
    parent = target if target.name.endswith(_SUFFIX) else target / _component(build, "folder name", product)
    result = Exported()
    listed, cache_archs = _listed(library, records)
    folders: dict[str, dict[str, ExportedFile]] = {}
    archs_of: dict[str, str] = {}
    for image in _images(library, release, records):
        if cache is not None and image.cache_uuid != cache:
            continue
        arch = cache_archs[image.cache_uuid] if image.cache_uuid else image.arch
        listed.get(arch, set()).discard((image.path, image.uuid))
        if wanted and arch not in wanted:
            continue
        relative = _relative(image.path, result)
        if relative is None:
            continue
        _component(build, "arch", arch)
        number = 1
        # Not every file system of a Mac tells case apart.
        key = str(relative).casefold()
        while key in folders.setdefault(name := f"{title} {arch}{f' {number}' if number > 1 else ''}", {}):
            if folders[name][key].sha256 == image.sha256:
                break
            number += 1
        archs_of[_component(build, "folder name", name)] = arch
        folders[name].setdefault(key, ExportedFile(Path("Symbols") / relative, image.sha256, image.size))
    if not any(folders.values()):
        raise NotFoundError(f"{build}: nothing of it is there to be exported", hint="see `symcache verify` and --arch")
    for arch in sorted(set(archs_of.values())):
        if cache is None and (count := len(listed.get(arch, ()))):
            result.problems.append(
                f"{title} {arch}: {counted(count, 'image that it lists is', 'images that it lists are')} not stored"
            )
    total = sum(f.size for files in folders.values() for f in files.values())
    with placing(parent, [Path(name) for name in folders], total) as partial:
        for name, files in sorted(folders.items()):
            lost = write_files(library, partial / name, list(files.values()), result, progress, total)
            if not lost and not listed.get(archs_of[name]):
                _finish(partial / name, archs_of[name])
    result.folders = [parent / name for name in sorted(folders)]
    return result


def export_raw_caches(
    library: Library,
    name: str,
    target: Path,
    *,
    archs: Sequence[str] = (),
    cache: UUID | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write the raw shared caches of a release below `target`, each file where its system has it.

    Raises as `export_device_support`, and UsageError where several caches lie in one place.
    """
    wanted = tuple(canonical_arch(a) for a in archs)
    result = Exported()
    files: dict[Path, tuple[ExportedFile, CacheFileRow]] = {}
    headers_only = set()
    release = library.release_id(name)
    build = release.build
    for record in library.catalog.records_of(release):
        for row in library.catalog.cache_files_of_record(record.id):
            if (wanted and canonical_arch(row.arch) not in wanted) or (cache is not None and row.cache_uuid != cache):
                continue
            if row.partial:
                headers_only.add(row.path)
                continue
            relative = _relative(row.path, result)
            if relative is None:
                continue
            known = files.setdefault(relative, (ExportedFile(relative, row.sha256, row.size), row))
            if known[0].sha256 != row.sha256:
                several = ", ".join(uuid_text(u) for u in (known[1].cache_uuid, row.cache_uuid) if u)
                raise UsageError(
                    f"{build}: several shared caches lie at {row.path}: {several}", hint="name one with --cache"
                )
    if not files:
        why = ": of its caches only headers were kept" if headers_only else ""
        raise NotFoundError(
            f"{build}: no raw shared cache is there to be exported{why}",
            hint="harvest it again without --no-keep-caches" if headers_only else "see `symcache verify` and --arch",
        )
    plain = [f for f, _ in files.values()]
    total = sum(f.size for f in plain)
    with placing(target, list(files), total) as partial:
        if write_files(library, partial, plain, result, progress, total):
            raise IntegrityError(
                f"{result.problems[0]}: nothing was written", hint="symcache fsck --read-data --repair"
            )
    result.folders = sorted({(target / r).parent for r in files})
    return result


def _images(library: Library, release: ReleaseId, records: Sequence[HarvestRow]) -> Iterator[Occurrence]:
    """Yield the images of a release: of each place in it the content that is served."""
    ids = {record.sha256 for record in records}
    uuids = dict.fromkeys(o.uuid for r in records for o in library.catalog.objects_of(r.id) if o.uuid)
    for uuid in uuids:
        seen = set()
        for content in library.catalog.believed(uuid, build=release.build):
            place = content.cache_uuid, content.path, content.arch, content.kind
            # Another system of the same build number may have the image, too.
            if content.record in ids and place not in seen and not content.rival:
                seen.add(place)
                yield content


def _listed(
    library: Library, records: Sequence[HarvestRow]
) -> tuple[dict[str, set[tuple[str, UUID | None]]], dict[UUID, str]]:
    """Return what records list, by the architecture of cache or file; and that of each cache."""
    rows = [row for record in records for row in library.catalog.manifest_of(record.id) if row.uuid]
    archs_of: dict[UUID, Counter[str]] = {}
    for row in rows:
        if row.cache_uuid:
            archs_of.setdefault(row.cache_uuid, Counter())[row.arch] += 1
    archs = {cache: arch_of_images(counted) for cache, counted in archs_of.items()}
    for record in records:
        files = library.catalog.cache_files_of_record(record.id)
        archs.update({f.cache_uuid: canonical_arch(f.arch) for f in files if f.cache_uuid})
    listed: dict[str, set[tuple[str, UUID | None]]] = {}
    for row in rows:
        arch = archs[row.cache_uuid] if row.cache_uuid else row.arch
        listed.setdefault(arch, set()).add((row.path, row.uuid))
    return listed, archs


def _relative(path: str, result: Exported) -> Path | None:
    """Return a path of a system as one below a folder; what would leave that, or is no path of a Mac, is a problem."""
    root, *parts = path.split("/")
    if root or not parts or not all(map(_is_component, parts)) or _size(path) > _LONGEST_PATH:
        result.problems.append(f"{path}: is no path of a system: not written")
        return None
    return Path(*parts)


def _component(build: str, what: str, name: str) -> str:
    """Return what a record says, if it is exactly one component of a path. Raises IntegrityError."""
    if not _is_component(name):
        raise IntegrityError(
            f"{build}: its record has the {what} {excerpt(name, 80)!r}, which names no folder: nothing was written",
            hint=f"have its raw caches by --format raw, or take the record back (symcache remove {build})"
            " and harvest it again",
        )
    return name


def _is_component(name: str) -> bool:
    return not (name in {"", ".", ".."} or "/" in name or _CONTROL.search(name) or _size(name) > _LONGEST_NAME)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _finish(folder: Path, arch: str) -> None:
    """Write what Xcode leaves when it is through with a folder: before 27 the first, since then the second."""
    (folder / ".finalized").write_bytes(plistlib.dumps({}))
    (folder / f".processed_dyld_shared_cache_{arch}").touch()
    info = {"DateCollected": datetime.now(UTC).replace(tzinfo=None), "Version": "16.0"}
    (folder / "Info.plist").write_bytes(plistlib.dumps(info))
