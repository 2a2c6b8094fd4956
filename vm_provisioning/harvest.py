"""One harvest: from a source to a record in the library.

Whatever goes wrong with one image or one cache is written down as a problem and the rest goes on; a harvest with any
problem is kept, but not sealed. What makes going on pointless (the host is gone, the disk is full) ends it, and the
next run continues with what was copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from symcache.dyld import EXTRACTOR, REVISION, SharedCache, extract_all
from symcache.errors import HostKeyError, IntegrityError, NotFoundError, StorageError, SymcacheError, UsageError
from symcache.library import IngestResult, Library, Staged, StagedCacheFile, StagedObject
from symcache.macho import identify
from symcache.model import Kind, ManifestEntry, Origin, uuid_text
from vm_provisioning.cache_util import TOOL, CacheUtil, ListedImage, NoSpaceError, check_whole
from vm_provisioning.entries import RemoteCache
from vm_provisioning.login import UnreachableError
from vm_provisioning.packets import ConnectionLostError, ProtocolError
from vm_provisioning.places import DEFAULT_ROOTS
from vm_provisioning.results import CacheSummary, Counter, HarvestProgress, HarvestResult, Silent
from vm_provisioning.sources import Source
from vm_provisioning.ssh_source import SshSource
from vm_provisioning.staging import Staging
from vm_provisioning.text import shown

__all__ = ["Extractor", "harvest"]

Extractor = Literal["auto", "raw", "util"]
Identity = tuple[str, UUID | None]
"""Path and LC_UUID: what two extractors must agree on."""

_FATAL = (StorageError, ConnectionLostError, ProtocolError, UnreachableError, HostKeyError)
_SHOWN_DIFFERENCES = 5
_UTIL_SPACE = 2
"""What an extracted cache needs, in sizes of the raw one."""


@dataclass
class _Cache:
    """What is gathered of one cache."""

    remote: RemoteCache
    uuid: UUID | None
    manifest: dict[Identity, ManifestEntry] = field(default_factory=dict)
    """What the cache's own table says, in the architecture that was extracted."""
    listed: set[Identity] = field(default_factory=set)
    extracted: dict[str, set[Identity]] = field(default_factory=dict)
    """By extractor."""


def harvest(
    source: Source,
    library: Library,
    *,
    staging: Path,
    extractor: Extractor = "auto",
    roots: Iterable[str] = DEFAULT_ROOTS,
    archs: Sequence[str] = (),
    keep_caches: bool = True,
    util_path: str | None = None,
    progress: HarvestProgress | None = None,
) -> HarvestResult:
    """Harvest a source into a library, and return what came of it.

    `raw` copies the shared caches and extracts here; `util` has `dyld_shared_cache_util` extract them in the guest and
    checks what it made; `auto` does the first, and the second too where the guest has the tool, and compares. `archs`
    narrows caches and slices to these architectures. `staging` keeps what was copied until the harvest is sealed.

    Raises UsageError, NotFoundError when nothing is found, RemoteError and StorageError when going on is pointless.
    """
    if extractor not in {"auto", "raw", "util"}:
        raise UsageError(f"{extractor!r} is no extractor", hint="one of auto, raw, util")
    progress = progress or Silent()
    progress.step(f"asking {source.name} what it is", unit="things")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    tool = _find_tool(source, extractor, util_path)
    release = source.identity()
    with Staging(staging, source.name, release.build) as stage:
        run = _Harvest(source, stage, frozenset(archs), keep_caches, progress)
        run.staged.release, run.staged.started = release, started
        progress.step(f"looking for shared caches of {release}", unit="things")
        caches = [c for c in source.caches() if not archs or c.arch in archs]
        used = [name for name, on in (("raw", extractor != "util"), ("util", tool is not None)) if on and caches]
        run.staged.extractor = "+".join(used)
        summaries = [run.cache(cache, raw=extractor != "util", tool=tool) for cache in caches]
        run.files(roots)
        if not run.staged.manifest and not run.staged.problems and not source.problems:
            raise NotFoundError(
                f"{source.name}: holds no shared cache and no Mach-O", hint="check --root and --arch, and the source"
            )
        run.staged.problems += [p for p in source.problems if p not in run.staged.problems]
        progress.step("storing", unit="bytes")
        ingested: IngestResult = library.ingest(run.staged, progress.advance)
        if ingested.sealed:
            stage.remove()
    return HarvestResult(
        release,
        source.name,
        run.staged.extractor,
        ingested.record_id,
        ingested.sealed,
        len(run.staged.manifest),
        ingested.stored,
        ingested.skipped,
        summaries,
        ingested.missing,
        ingested.problems,
        list(dict.fromkeys([*source.notes, *run.notes])),
    )


def _find_tool(source: Source, extractor: Extractor, util_path: str | None) -> CacheUtil | None:
    if extractor == "raw":
        return None
    if not isinstance(source, SshSource):
        if extractor == "util":
            raise UsageError(f"{source.name}: {TOOL} cannot run in a folder", hint="use --extractor raw")
        return None
    tool = CacheUtil.find(source, util_path)
    if tool is None and extractor == "util":
        raise NotFoundError(
            f"{source.name} has no {TOOL}: macOS comes without it",
            hint="build it from Apple's dyld sources and name it with --util-path, or use --extractor raw",
        )
    return tool


class _Harvest:
    """The state of one harvest."""

    def __init__(
        self, source: Source, stage: Staging, archs: frozenset[str], keep_caches: bool, progress: HarvestProgress
    ) -> None:
        self.source, self.stage, self.archs, self.keep_caches, self.progress = (
            source,
            stage,
            archs,
            keep_caches,
            progress,
        )
        self.staged = Staged(release=None, source=source.name)
        self.notes: list[str] = []

    def problem(self, where: str, error: SymcacheError) -> None:
        """Write down what went wrong with one thing; end with what makes going on pointless."""
        if isinstance(error, _FATAL):
            raise error
        text = str(error)
        self.staged.problems.append(text if where in text else f"{where}: {text}")

    # Shared caches

    def cache(self, remote: RemoteCache, *, raw: bool, tool: CacheUtil | None) -> CacheSummary:
        """Stage one shared cache by each way that was asked for."""
        gathered = _Cache(remote, remote.uuid)
        where = shown(remote.path)
        for name in remote.missing:
            self.staged.problems.append(f"{where}: its companion {name} is missing on {self.source.name}")
        if raw and not remote.missing:
            try:
                self._raw(gathered)
            except SymcacheError as error:
                self.problem(where, error)
        if tool is not None:
            try:
                self._util(gathered, tool, with_raw=raw)
            except SymcacheError as error:
                self.problem(where, error)
        self._compare(gathered)
        self.staged.manifest += gathered.manifest.values()
        return CacheSummary(remote.path, remote.arch, gathered.uuid, len(gathered.manifest))

    def _raw(self, gathered: _Cache) -> None:
        remote = gathered.remote
        folder = self.stage.folder_for("caches", remote.path)
        self.stage.require_space(2 * remote.size - sum(f.stat().st_size for f in folder.iterdir()))
        self.progress.step(f"copying {remote.name}", unit="bytes", total=remote.size)
        count = Counter(self.progress, remote.size)
        files = [self.source.fetch(entry, folder / entry.name, count) for entry in remote.files]
        with SharedCache.open(files[0]) as cache:
            gathered.uuid = cache.uuid
            self.notes += cache.warnings
            if self.keep_caches:
                self.staged.cache_files += [
                    StagedCacheFile(file, entry.name, entry.path, cache.arch, cache.uuid)
                    for file, entry in zip(files, remote.files, strict=True)
                ]
            if not cache.images:
                self.staged.problems.append(f"{shown(remote.path)}: lists no image at all")
            output = self.stage.empty_folder_for("extracted", remote.path)
            self.progress.step(f"extracting {remote.name}", unit="things", total=len(cache.images))
            report = extract_all(cache, output, progress=self.progress.advance)
            done = {(e.path, e.uuid): e for e in report.extracted}
            for image in cache.images:
                if not _is_text(image.path):
                    self.staged.problems.append(
                        f"{shown(remote.path)}: an image's path is not UTF-8: {shown(image.path)}"
                    )
                    continue
                gathered.listed.add((image.path, image.uuid))
                extracted = done.get((image.path, image.uuid))
                arch = extracted.arch if extracted else cache.arch
                self._expect(gathered, image.path, image.uuid, arch)
                if extracted:
                    self._store(gathered, image.path, image.uuid, arch, extracted.file, extracted.size, EXTRACTOR)
        self.staged.problems += [f"{shown(remote.path)}: {shown(f.path)}: {shown(f.reason)}" for f in report.failed]

    def _util(self, gathered: _Cache, tool: CacheUtil, *, with_raw: bool) -> None:
        remote, where = gathered.remote, shown(gathered.remote.path)
        self.progress.step(f"{TOOL} extracts {remote.name} in the guest", unit="things")
        info, listed = tool.info(remote.path), tool.images(remote.path)
        if info.uuid != remote.uuid:
            said = uuid_text(info.uuid) if info.uuid else "none"
            have = uuid_text(remote.uuid) if remote.uuid else "none"
            self.staged.problems.append(f"{where}: {TOOL} says its UUID is {said}, its header says {have}")
        if info.image_count is not None and info.image_count != len(listed):
            self.staged.problems.append(
                f"{where}: {TOOL} counts {info.image_count} images and lists {len(listed)}: is it older than the cache?"
            )
        if not listed:
            self.staged.problems.append(f"{where}: {TOOL} lists no image at all")
        if gathered.listed:
            self._differ(where, "the cache's own table", gathered.listed, f"{TOOL} -text_info", {i[:2] for i in listed})
        try:
            with tool.extracted(remote.path, _UTIL_SPACE * remote.size) as (tree, complaints):
                self.staged.problems += [f"{where}: {TOOL} says: {c}" for c in complaints]
                found = {entry.path: entry for entry in tree.walk(["/"], skip=())}
                wanted = [(image, found.pop(image.path, None)) for image in listed]
                total = sum(entry.size for _, entry in wanted if entry)
                self.stage.require_space(total)
                self.progress.step(f"fetching what it made of {remote.name}", unit="bytes", total=total)
                count = Counter(self.progress, total)
                for image, entry in wanted:
                    if entry is None:
                        lost = IntegrityError(f"{where}: {TOOL} listed {shown(image.path)} but did not extract it")
                        self._check_extracted(gathered, image, lost)
                images = {entry.path: image for image, entry in wanted if entry}
                places = (
                    (entry, self.stage.file_for("util", f"{gathered.remote.path}\n{entry.path}"))
                    for _, entry in wanted
                    if entry
                )
                for entry, file in tree.fetch_all(places, count):
                    self._check_extracted(gathered, images[entry.path], file)
                self.staged.problems += tree.problems
                self.notes += [
                    f"{where}: {TOOL} also wrote {shown(path)}" for path in sorted(found)[:_SHOWN_DIFFERENCES]
                ]
        except NoSpaceError as error:
            if not with_raw:
                raise
            self.notes.append(f"{where}: not extracted in the guest too: {error}")

    def _check_extracted(self, gathered: _Cache, image: ListedImage, file: Path | SymcacheError) -> None:
        """Hold one image that the tool made against what the cache says of it."""
        path, uuid = image.path, image.uuid
        where = f"{shown(gathered.remote.path)}: {shown(path)}"
        try:
            if isinstance(file, SymcacheError):
                raise file
            slices = identify(file)
            if len(slices) != 1:
                raise IntegrityError(f"{where}: {TOOL} made a file of {len(slices)} images")
            found = slices[0]
            check_whole(file, found)
            if found.uuid != uuid:
                got = uuid_text(found.uuid) if found.uuid else "none"
                raise IntegrityError(f"{where}: {TOOL} made an image of UUID {got}, the cache lists another")
        except SymcacheError as error:
            self.problem(where, error)
            self._expect(gathered, path, uuid, gathered.remote.arch)
            return
        self._expect(gathered, path, uuid, found.arch)
        self._store(gathered, path, uuid, found.arch, file, found.size, TOOL)

    def _expect(self, gathered: _Cache, path: str, uuid: UUID | None, arch: str) -> None:
        # The cache's own table, where we have it, is not overruled by what the guest's tool lists.
        entry = ManifestEntry(path=path, arch=arch, uuid=uuid, origin=Origin.CACHE, cache_uuid=gathered.uuid)
        gathered.manifest.setdefault((path, uuid), entry)

    def _store(
        self, gathered: _Cache, path: str, uuid: UUID | None, arch: str, file: Path, size: int, extractor: str
    ) -> None:
        gathered.extracted.setdefault(extractor, set()).add((path, uuid))
        self.staged.objects.append(
            StagedObject(
                file,
                0,
                size,
                path,
                arch,
                uuid,
                kind=Kind.EXECUTABLE,
                origin=Origin.CACHE,
                cache_uuid=gathered.uuid,
                extractor=extractor,
                revision=REVISION if extractor == EXTRACTOR else 0,
            )
        )

    def _compare(self, gathered: _Cache) -> None:
        """Hold the two extractors' results against each other."""
        ours, theirs = gathered.extracted.get(EXTRACTOR), gathered.extracted.get(TOOL)
        if ours is not None and theirs is not None:
            self._differ(shown(gathered.remote.path), "symcache", ours, TOOL, theirs)

    def _differ(self, where: str, one: str, ones: set[Identity], other: str, others: set[Identity]) -> None:
        for name, missing in ((other, ones - others), (one, others - ones)):
            if missing:
                some = ", ".join(shown(path) for path, _ in sorted(missing, key=str)[:_SHOWN_DIFFERENCES])
                more = f" and {len(missing) - _SHOWN_DIFFERENCES} more" if len(missing) > _SHOWN_DIFFERENCES else ""
                self.staged.problems.append(f"{where}: {name} lacks, or has with another UUID: {some}{more}")

    # Everything else

    def files(self, roots: Iterable[str]) -> None:
        """Stage the Mach-O files outside the caches, slice by slice."""
        self.progress.step("copying Mach-O files outside the caches", unit="things")
        wanted = (
            (entry, self.stage.room_for(entry.size, "files", entry.path)) for entry in self.source.mach_o_files(roots)
        )
        for number, (entry, file) in enumerate(self.source.fetch_all(wanted), 1):
            self.progress.advance(number)
            where = shown(entry.path)
            try:
                if isinstance(file, SymcacheError):
                    raise file
                slices = identify(file)
            except SymcacheError as error:
                self.problem(where, error)
                continue
            for found in slices:
                if found.kind is None or (self.archs and found.arch not in self.archs):
                    continue
                self.staged.manifest.append(
                    ManifestEntry(path=entry.path, arch=found.arch, uuid=found.uuid, kind=found.kind)
                )
                self.staged.objects.append(
                    StagedObject(
                        file, found.offset, found.size, entry.path, found.arch, found.uuid, found.kind, Origin.FILE
                    )
                )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
