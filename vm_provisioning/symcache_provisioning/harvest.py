"""One harvest: from a source to a record in the library.

Errors with one image or one cache become problems, and the harvest goes on; so does the lack of a cache that every
harvest of the release must have. A harvest with problems is stored, but not sealed. After an error that affects
everything else, too (the host is gone, the disk is full), it ends, and the next run resumes with what was copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from symcache.dyld import EXTRACTOR, canonical_arch
from symcache.errors import NotFoundError, SymcacheError, UsageError
from symcache.library import IngestResult, Library, Staged, StagedObject, Storing, ingest
from symcache.macho import MH, identify
from symcache.model import ImageKey, ManifestEntry, Origin, Release, Trust
from symcache.text import excerpt
from symcache_provisioning.cache_results import CacheSummary, add_problem
from symcache_provisioning.caches import Caches
from symcache_provisioning.extractors.dsc_extractor_bundle import BUNDLE, CacheBundle
from symcache_provisioning.extractors.dyld_shared_cache_util import TOOL, CacheUtil
from symcache_provisioning.extractors.guest_tool import GuestTool
from symcache_provisioning.extractors.local_extraction import Extractions
from symcache_provisioning.progress import HarvestProgress, NoProgress, Whole
from symcache_provisioning.remarks import Problems
from symcache_provisioning.sources.entries import RemoteCache
from symcache_provisioning.sources.machine import SshSource
from symcache_provisioning.sources.required_caches import closed_folders, lacking_caches
from symcache_provisioning.sources.source import Source
from symcache_provisioning.staging import Staging

__all__ = ["Extractor", "HarvestResult", "harvest"]

Extractor = Literal["auto", "raw", "util", "bundle"]
_IN_GUEST = {"util": TOOL, "bundle": BUNDLE}


@dataclass(frozen=True, slots=True)
class HarvestResult:
    """Result of a harvest. Unless it is `sealed`, `missing` and `problems` say why."""

    release: Release | None
    """None where nobody says which one it is."""
    source: str
    extractor: str
    """What was used, e.g. `raw`, `util` or `raw+util`; empty if no image came of a cache."""
    record_id: str
    sealed: bool
    images: int
    """Images that the manifest lists."""
    stored: int
    skipped: int
    caches: list[CacheSummary]
    missing: list[ManifestEntry]
    problems: list[str]
    notes: list[str]
    """What was skipped, and does not keep a harvest from being sealed."""
    lacks: str = ""
    """What the source never has of a release, by what it is: the reason why nothing is sealed where all is well."""

    @property
    def whole(self) -> bool:
        """Return whether everything is stored that there was to take."""
        return self.sealed or bool(self.lacks and not self.problems and not self.missing)


def harvest(
    source: Source,
    library: Library,
    *,
    staging: Path,
    extractor: Extractor = "auto",
    roots: Iterable[str] | None = None,
    archs: Sequence[str] = (),
    wanted: tuple[Sequence[str], Sequence[str]] = ((), ()),
    keep_caches: bool = True,
    util_path: str | None = None,
    bundle_path: str | None = None,
    progress: HarvestProgress | None = None,
    trust: Trust = Trust.HARVEST,
) -> HarvestResult:
    """Harvest a source into a library, and return the result.

    `raw` copies the shared caches and extracts here; `util` has `dyld_shared_cache_util` extract them in the guest and
    checks the result, `bundle` does so with `dsc_extractor.bundle`; `auto` is `raw`, and `util` too if the guest has
    the tool, and compares both. `archs` restricts caches and slices to these architectures. `staging` keeps copies
    until the harvest is sealed.
    `wanted` are the architectures and families that the site wants, of which nothing may be lacking; all, if empty.
    `roots` are where Mach-O files outside of caches are looked for, by default wherever the system has them.

    Raises UsageError, NotFoundError when nothing is found, RemoteError and StorageError when it cannot go on.
    """
    if extractor not in {"auto", "raw", *_IN_GUEST}:
        raise UsageError(f"{extractor!r} is no extractor", hint="one of auto, raw, util, bundle")
    progress = progress or NoProgress()
    progress.step(f"asking {source.name} what it is")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    tool = _find_tool(source, extractor, util_path, bundle_path)
    raw = extractor not in _IN_GUEST
    release = source.identity()
    build = release.build if release else ""
    with (
        Staging(staging, source.name, build or "unknown") as stage,
        source.during_harvest(),
        contextlib.ExitStack() as context,
    ):
        narrowed = tuple(dict.fromkeys(canonical_arch(a) for a in archs))
        problems = Problems()
        staged = Staged(
            release,
            source.name,
            started=started,
            host=source.host(),
            archs=narrowed,
            trust=trust,
            sealable=not source.lacks and release is not None,
            lacks=source.lacks,
        )
        progress.step(f"looking for shared caches of {release or source.name}")
        all_caches = source.caches(build)
        caches = [c for c in all_caches if not archs or c.arch in narrowed]
        library.refresh()
        whole = Whole(progress, copies=not source.in_place, keeps=keep_caches, in_guest=tool is not None)
        whole.expect(sum(cache.size for cache in caches) if raw else 0)
        storing = context.enter_context(Storing(library, whole.kept))
        with Extractions(storing, whole) as extractions:
            run = Caches(source, stage, staged, problems, storing, extractions, whole, keep=keep_caches)
            for cache in caches:
                run.copy(cache, raw=raw, tool=tool)
            folders = source.discovery.roots(build) if roots is None else roots
            _files(source, stage, staged, storing, problems, folders, narrowed, whole)
            summaries = run.finish()
        staged.extractor = _extractors_of(staged, tool)
        _require_images(source, staged, problems)
        if source.lacks:
            _drop_doubles(staged)
        lacking = _lacking(source, staged, all_caches, caches, archs or wanted[0], wanted[1])
        staged.problems = list(dict.fromkeys([*lacking, *problems, *source.problems]))
        whole.step("storing")
        ingested: IngestResult = ingest(library, staged, lambda *_: whole.report(), storing)
        result = HarvestResult(
            release,
            source.name,
            staged.extractor,
            ingested.record_id,
            ingested.sealed,
            len({(m.path, m.arch, m.key) for m in staged.manifest}),
            ingested.stored,
            ingested.skipped,
            summaries,
            ingested.missing,
            ingested.problems,
            list(dict.fromkeys([*source.notes, *run.notes])),
            source.lacks,
        )
        if result.whole:
            stage.remove()
    return result


def _extractors_of(staged: Staged, tool: GuestTool | None) -> str:
    """Return which extractors any image came of, as records name them: `raw`, `util`, `raw+util` or `bundle`."""
    makers = {o.extractor for o in staged.objects} | {o.extractor for o in staged.stored}
    used = {"raw": EXTRACTOR} | {name: program for name, program in _IN_GUEST.items() if tool and tool.name == program}
    return "+".join(name for name, program in used.items() if program in makers)


def _require_images(source: Source, staged: Staged, problems: Problems) -> None:
    """Raise NotFoundError if the source holds nothing to harvest, unless problems may be the reason."""
    wrong = [*problems, *source.problems]
    if not staged.manifest and (source.lacks or not wrong):
        told = "".join(f": {text}" for text in wrong[:1])
        raise NotFoundError(
            f"{source.name}: this {source.what} holds no shared cache and no Mach-O{told}",
            hint="check --root and --arch, and the source",
        )


def _lacking(
    source: Source,
    staged: Staged,
    caches: Sequence[RemoteCache],
    taken: Sequence[RemoteCache],
    archs: Sequence[str],
    families: Sequence[str],
) -> Problems:
    """Return a problem for each thing that a harvest of the release must have, and this one lacks.

    `caches` are those that the source has, `taken` those that were harvested; nothing is required of other `archs` and
    `families` than these, if there are any.
    """
    lacking = Problems()
    if staged.release is not None and not source.lacks:
        lacking = lacking_caches(
            source,
            staged.release,
            caches,
            taken=taken,
            files={m.arch for m in staged.manifest if m.cache_uuid is None},
            host=staged.host,
            archs=archs,
            families=families,
        )
    lacking.update(closed_folders(source, staged.manifest))
    return lacking


def _drop_doubles(staged: Staged) -> None:
    """Leave out what Apple's extractor made of caches that are there themselves."""
    of_caches = {(o.path, o.uuid) for o in staged.objects if o.cache_uuid}
    of_caches |= {(o.path, o.uuid) for o in staged.stored}

    def double(entry: ManifestEntry | StagedObject) -> bool:
        return entry.cache_uuid is None and (entry.path, entry.uuid) in of_caches

    staged.objects = [o for o in staged.objects if not double(o)]
    staged.manifest = [m for m in staged.manifest if not double(m)]


def _find_tool(
    source: Source, extractor: Extractor, util_path: str | None, bundle_path: str | None
) -> GuestTool | None:
    if extractor == "raw":
        return None
    if not isinstance(source, SshSource):
        if extractor in _IN_GUEST:
            raise UsageError(
                f"{source.name}: {_IN_GUEST[extractor]} cannot run in a folder", hint="use --extractor raw"
            )
        return None
    if extractor == "bundle":
        return CacheBundle.find(source, bundle_path)
    tool = CacheUtil.find(source, util_path)
    if tool is None and extractor == "util":
        raise NotFoundError(
            f"{source.name} has no {TOOL}: macOS comes without it",
            hint="build it from Apple's dyld sources and name it with --util-path, or use --extractor bundle or"
            " --extractor raw",
        )
    return tool


def _files(
    source: Source,
    stage: Staging,
    staged: Staged,
    storing: Storing,
    problems: Problems,
    roots: Iterable[str],
    archs: Sequence[str],
    progress: Whole,
) -> None:
    """Stage the Mach-O files outside the caches, slice by slice."""
    progress.step("copying Mach-O files outside the caches")
    wanted = ((entry, stage.file_for_copy(entry.size, "files", entry.path)) for entry in source.mach_o_files(roots))
    for entry, file in source.fetch_all(wanted):
        progress.copied_file(entry.size)
        where = excerpt(entry.path)
        try:
            if isinstance(file, SymcacheError):
                raise file
            slices = identify(file)
        except SymcacheError as error:
            add_problem(problems, where, error)
            continue
        for image in slices:
            if image.kind is None or (archs and image.arch not in archs):
                continue
            if image.uuid is None:
                source.notes.append(f"{where} ({image.arch}): has no LC_UUID: it is stored, and nobody can ask for it")
            extracted = bool(source.extracted_by) and image.filetype in {MH.DYLIB, MH.BUNDLE}
            origin, maker = (Origin.CACHE, source.extracted_by) if extracted else (Origin.FILE, "")
            one = ManifestEntry(path=entry.path, arch=image.arch, uuid=image.uuid, kind=image.kind, origin=origin)
            staged.manifest.append(one)
            place = (file, image.offset, image.size, entry.path, image.arch, image.uuid)
            staged.objects.append(StagedObject(*place, kind=image.kind, origin=origin, extractor=maker))
            storing.begin(staged.objects[-1])
    progress.copied_all()
    # What lies in a prepared cryptex is mostly what lies in the one that is in use.
    listed = {(m.path, m.arch, m.key) for m in staged.manifest}
    again = {i for i in listed if (source.discovery.doubles(i[0]), *i[1:]) in listed}
    if again:
        staged.manifest = [m for m in staged.manifest if (m.path, m.arch, m.key) not in again]
        staged.objects = [
            o for o in staged.objects if (o.path, o.arch, ImageKey(o.uuid, o.kind, o.cache_uuid)) not in again
        ]
