"""The shared caches of a harvest: copied and extracted here, extracted in the guest, and compared.

Results are checked after all caches were copied: while one cache is extracted here, the next one is being copied.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

from symcache.dyld import EXTRACTOR, REVISION, SharedCache, SignedPages, check_pages
from symcache.errors import (
    IntegrityError,
    RemoteError,
    SharedCacheError,
    SymcacheError,
)
from symcache.library import Staged, StagedCacheFile, StagedObject, Storing
from symcache.macho import Slice
from symcache.model import Kind, ManifestEntry, Origin
from symcache.text import excerpt
from symcache_provisioning.cache_heads import copy_head
from symcache_provisioning.cache_results import FATAL, CacheResults, CacheSummary, Identity, add_problem
from symcache_provisioning.extractors.guest_tool import (
    EXTRACTED_SIZE,
    GuestTool,
    ListedImage,
    NoSpaceError,
    check_image,
)
from symcache_provisioning.extractors.local_extraction import Extraction, Extractions
from symcache_provisioning.progress import Whole
from symcache_provisioning.remarks import ANOTHER_MAC, CLEAR_THERE, Problems
from symcache_provisioning.sources.entries import Entry, RemoteCache
from symcache_provisioning.sources.source import Source
from symcache_provisioning.staging import Staging

__all__ = ["Caches"]

_OTHER_EXTRACTOR = f"harvest with --extractor bundle, too; if that fails as well, {ANOTHER_MAC}"
_ONE_EXTRACTOR = "see which one is right, and harvest with that alone (--extractor)"
_LISTED_DIFFERENCES = 5
_LONGEST_REASON = 1000


class Caches:
    """The caches of one harvest: `copy` each, then `finish`."""

    def __init__(
        self,
        source: Source,
        stage: Staging,
        staged: Staged,
        problems: Problems,
        storing: Storing,
        extractions: Extractions,
        progress: Whole,
        *,
        keep: bool,
    ) -> None:
        self.source, self.stage, self.staged, self.progress = source, stage, staged, progress
        self.problems = problems
        self.keep = keep
        self.storing = storing
        self.notes: list[str] = []
        self._extractions = extractions
        self._results: list[CacheResults] = []
        self._images = 0
        """Images that the tables of all caches list."""

    def copy(self, remote: RemoteCache, *, raw: bool, tool: GuestTool | None) -> None:
        """Copy one shared cache, and what the tool in the guest extracts from it."""
        results = CacheResults(remote, remote.uuid)
        self._results.append(results)
        where = excerpt(remote.path)
        for name in remote.missing:
            self.problems.add(
                f"{where}: its companion {name} is missing or unreadable on {self.source.name}", ANOTHER_MAC
            )
        if raw:
            try:
                self._copy_raw(results)
            except SymcacheError as error:
                add_problem(self.problems, where, error)
        if tool is not None:
            try:
                self._extract_in_guest(results, tool, optional=raw)
            except SymcacheError as error:
                if not raw or not results.listed or isinstance(error, FATAL):
                    add_problem(self.problems, where, error)
                    return
                self._leave_out(results, error)

    def finish(self) -> list[CacheSummary]:
        """Wait for the extractions, check their images, and stage them."""
        return [self._finish(results) for results in self._results]

    def _finish(self, results: CacheResults) -> CacheSummary:
        remote = results.remote
        if results.extraction is not None:
            try:
                self._stage_extracted(results, results.extraction)
            except SymcacheError as error:
                add_problem(self.problems, excerpt(remote.path), error)
        self._stage_from_tool(results)
        ours, theirs = results.extracted.get(EXTRACTOR), results.extracted.get(results.tool)
        if ours is not None and theirs is not None:
            self._compare(excerpt(remote.path), "symcache", ours, results.tool, theirs)
        self.staged.manifest += results.manifest.values()
        return CacheSummary(remote.path, remote.arch, results.uuid, len(results.manifest))

    def _copy_raw(self, results: CacheResults) -> None:
        remote = results.remote
        folder = self.stage.folder_for("caches", remote.path)
        if not self.source.in_place:
            self.stage.require_space(remote.size - sum(f.stat().st_size for f in folder.iterdir()))
        self.progress.step(f"copying {remote.name}")
        files: dict[Entry, Path] = {}
        with ThreadPoolExecutor(1, thread_name_prefix="pages") as pool:
            pages: dict[Entry, Future[SignedPages | None]] = {}
            for entry in remote.files:
                try:
                    files[entry] = self._fetch(entry, folder / entry.name)
                except SymcacheError as error:
                    if not files:
                        raise
                    add_problem(self.problems, excerpt(entry.path), error)
                else:
                    pages[entry] = pool.submit(check_pages, files[entry])
            damage = [self._prove(entry, files[entry], job) for entry, job in pages.items()]
        cache = SharedCache.open(files[remote.files[0]], partial=True)
        self._images += len(cache.images)
        if self._images > self.source.limits.images:
            cache.close()
            raise SharedCacheError(
                f"its caches list more than {self.source.limits.images} images: this one was not read", hint=CLEAR_THERE
            )
        results.cut = [m.reason for m in cache.missing if not m.companion.optional]
        for reason in results.cut:
            if not any(name in reason for name in remote.missing):  # said already
                text = f"{excerpt(remote.path)}: {excerpt(reason, _LONGEST_REASON)}: what lies in it is missing"
                self.problems.add(text, ANOTHER_MAC)
        indexes = [image.index for image in cache.images if _is_text(image.path)]
        files_are = ", ".join(f"{e.name} {e.size} {e.mtime}" for e in files)
        # Once damaged pages are mended, the same files have other images.
        subject = f"{EXTRACTOR} {REVISION}: {cache.uuid}: {files_are}: {bool(results.cut)}: {damage}"
        journal = self.stage.journal_for("images", remote.path, subject)
        self.progress.opened(len(indexes))
        results.extraction = self._extractions.start(cache, indexes, journal, size=remote.size, whole=bool(results.cut))
        results.uuid = cache.uuid
        results.listed = {(cache.images[index].path, cache.images[index].uuid) for index in indexes}
        self.notes += [w for w in cache.warnings if w not in results.cut]
        if not cache.images:
            self.problems.add(f"{excerpt(remote.path)}: lists no image at all", ANOTHER_MAC)
        for entry, file in files.items():
            stored = file if self.keep else copy_head(cache, file, self.stage.folder_for("heads", remote.path))
            one = StagedCacheFile(stored, entry.name, entry.path, cache.arch, cache.uuid, partial=not self.keep)
            self.staged.cache_files.append(one)
            self.storing.begin(one)

    def _fetch(self, entry: Entry, local: Path) -> Path:
        """Fetch one file of a cache; if it is kept, it is stored while it comes."""
        begun = False

        def growing(part: Path) -> None:
            nonlocal begun
            if not begun and self.keep:  # else it goes on where a lost connection has left it
                self.storing.follow(part, entry.size, local)
                begun = True

        try:
            file = self.source.fetch(entry, local, self.progress.copied, growing)
        except SymcacheError:
            self.storing.give_up(local)
            raise
        if self.keep:
            if not begun:
                self.storing.follow(file, entry.size, file)
            self.storing.be_whole(file)
        return file

    def _prove(self, entry: Entry, file: Path, pages: Future[SignedPages | None]) -> str:
        """Hold every page of a cache file against the code signature that it carries; once more for a bad copy.

        Returns what is wrong with it, if anything.
        """
        try:
            found = pages.result()
            if found and found.damaged and self.stage.holds(file):
                file.unlink()
                found = check_pages(self._fetch(entry, file))
        except SharedCacheError as error:
            text = str(error)
        else:
            if not (found and found.damaged):
                return ""
            text = f"{found} are not what its code signature says: it is damaged on {self.source.name}"
        self.problems.add(f"{excerpt(entry.path)}: {text}", ANOTHER_MAC)
        return text

    def _stage_extracted(self, results: CacheResults, extraction: Extraction) -> None:
        """Note what was extracted here, and is stored."""
        where, cache = excerpt(results.remote.path), extraction.cache
        found = extraction.result()
        results.extracted[EXTRACTOR] = set()
        for image in cache.images:
            if not _is_text(image.path):
                self.problems.add(f"{where}: an image's path is not UTF-8: {excerpt(image.path)}", ANOTHER_MAC)
                continue
            stored = found.stored.get(image.index)
            self._expect(results, image.path, image.uuid, stored.arch if stored else cache.arch)
            if stored:
                results.extracted[EXTRACTOR].add((image.path, image.uuid))
                self.staged.stored.append(stored)
        if not results.cut:  # else it is said what they lie in, and they are listed as missing
            for index, reason in sorted(found.failed.items()):
                text = f"{where}: {excerpt(cache.images[index].path)}: {excerpt(reason)}"
                self.problems.add(text, _OTHER_EXTRACTOR)

    def _extract_in_guest(self, results: CacheResults, tool: GuestTool, *, optional: bool) -> None:
        remote, where = results.remote, excerpt(results.remote.path)
        results.tool = tool.name
        self.progress.step(f"{tool.name} extracts {remote.name} in the guest")
        listing = tool.list_images(remote, self.stage.empty_folder_for("tables", remote.path))
        listed = {image[:2] for image in listing.images}
        if optional and results.listed and (listing.doubts or listed != results.listed):
            raise RemoteError(f"{listing.origin} is not what the cache's own table says")
        for doubt in listing.doubts:
            self.problems.add(doubt, tool.advice)
        try:
            with tool.extract(remote.path, EXTRACTED_SIZE * remote.size) as (tree, errors):
                if errors and optional and results.listed:
                    raise RemoteError(f"it says: {errors[0]}")
                for line in errors:
                    self.problems.add(f"{where}: {tool.name} says: {line}", tool.advice)
                extracted = {entry.path: entry for entry in tree.walk(["/"], skip=())}
                wanted = [(image, extracted.pop(image.path, None)) for image in listing.images]
                total = sum(entry.size for _, entry in wanted if entry)
                self.stage.require_space(total)
                self.progress.step(f"fetching what it made of {remote.name}")
                for image, entry in wanted:
                    if entry is None:
                        text = f"{excerpt(image.path)} is in {listing.origin}, but {tool.name} did not extract it"
                        lost = IntegrityError(f"{where}: {text}", hint=tool.advice)
                        results.from_tool.append((image, lost))
                images = {entry.path: image for image, entry in wanted if entry}
                copies = (
                    (entry, self.stage.file_for(tool.name, f"{remote.path}\n{entry.path}"))
                    for _, entry in wanted
                    if entry
                )
                for entry, file in tree.fetch_all(copies, self.progress.copied_file):
                    results.from_tool.append((images[entry.path], file))
                self.problems.update(tree.problems)
                self.notes += [
                    f"{where}: {tool.name} also wrote {excerpt(path)}"
                    for path in sorted(extracted)[:_LISTED_DIFFERENCES]
                ]
        except NoSpaceError as error:
            if not optional:
                raise
            self.notes.append(f"{where}: not extracted in the guest too: {error}")

    def _leave_out(self, results: CacheResults, error: SymcacheError) -> None:
        """Note that the tool takes no part in a cache, which was extracted here: it may well be an old one."""
        results.from_tool = []
        self.notes.append(
            f"{excerpt(results.remote.path)}: {results.tool} there was not used: {error}: is it older than the system?"
            " Build it from the sources of that release, or harvest with --extractor raw"
        )

    def _stage_from_tool(self, results: CacheResults) -> None:
        """Stage what the tool extracted; all or nothing of it, where the same was extracted here."""
        optional = bool(results.extracted.get(EXTRACTOR))
        checked: list[tuple[ListedImage, Path, Slice]] = []
        for image, file in results.from_tool:
            where = f"{excerpt(results.remote.path)}: {excerpt(image.path)}"
            try:
                if isinstance(file, SymcacheError):
                    raise file
                checked.append((image, file, check_image(file, image, results.remote.arch, results.tool)))
            except SymcacheError as error:
                if optional and not isinstance(error, FATAL):
                    self._leave_out(results, error)
                    return
                add_problem(self.problems, where, error)
                self._expect(results, image.path, image.uuid, results.remote.arch)
        for image, file, extracted in checked:
            self._expect(results, image.path, image.uuid, extracted.arch)
            self._store(results, image, extracted.arch, file, extracted.size)

    def _expect(self, results: CacheResults, path: str, uuid: UUID | None, arch: str) -> None:
        # The cache's own table, if there is one, takes precedence over the list of the guest's tool.
        entry = ManifestEntry(path=path, arch=arch, uuid=uuid, origin=Origin.CACHE, cache_uuid=results.uuid)
        results.manifest.setdefault((path, uuid), entry)

    def _store(self, results: CacheResults, image: ListedImage, arch: str, file: Path, size: int) -> None:
        """Stage an image that the tool in the guest extracted."""
        results.extracted.setdefault(results.tool, set()).add((image.path, image.uuid))
        one = StagedObject(
            file,
            0,
            size,
            image.path,
            arch,
            image.uuid,
            kind=Kind.EXECUTABLE,
            origin=Origin.CACHE,
            cache_uuid=results.uuid,
            extractor=results.tool,
        )
        self.staged.objects.append(one)
        self.storing.begin(one)

    def _compare(self, where: str, one: str, ones: set[Identity], other: str, others: set[Identity]) -> None:
        for name, missing in ((other, ones - others), (one, others - ones)):
            if missing:
                some = ", ".join(excerpt(path) for path, _ in sorted(missing, key=str)[:_LISTED_DIFFERENCES])
                more = f" and {len(missing) - _LISTED_DIFFERENCES} more" if len(missing) > _LISTED_DIFFERENCES else ""
                self.problems.add(f"{where}: {name} lacks, or has with another UUID: {some}{more}", _ONE_EXTRACTOR)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
