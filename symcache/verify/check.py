"""`verify`: one release after another, each content once, over threads."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from symcache.catalog import Catalog, Occurrence
from symcache.errors import NotFoundError, SharedCacheError, StorageError
from symcache.library import Library
from symcache.model import MACOS, ReleaseId
from symcache.scratch import ScratchFolder
from symcache.verify.catalog_level import check_images, check_release, summary_of
from symcache.verify.contents import Content, check_content
from symcache.verify.expectations import Expectations
from symcache.verify.findings import Finding, FindingCode, Level, VerifyReport
from symcache.verify.holdings import ReleaseHoldings, gather
from symcache.verify.layout import Problem
from symcache.verify.raw_cache import RawCache, check_files, materialised

__all__ = ["verify"]

_REMOTE_JOBS = 16
Progress = Callable[[int, int], None]
"""Called with (contents done, contents known of so far or expected)."""


def verify(
    library: Library,
    builds: Sequence[str] = (),
    *,
    level: Level = Level.BLOBS,
    expectations: Expectations | None = None,
    scratch: Path | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check the named releases; without any, all that the library holds and all that the site's table expects.

    Each is named by its build, or `PRODUCT:BUILD`: raises UsageError for a build of several systems.

    An empty library, an absent build and a record that cannot be read are findings, never a silent pass. Level `bytes`
    writes each kept raw cache in turn to a folder below `scratch` (default: the system's temporary folder). Nothing is
    ever written to the library. Raises StorageError when the store or the scratch folder cannot be used.
    """
    expectations = expectations or Expectations.load()
    report = VerifyReport(level)
    with _from_records(library, level, scratch) as checked:
        unreadable = library.unreadable | checked.unreadable
        report.add(Finding(FindingCode.UNREADABLE_RECORD, f"{k}: {why}") for k, why in sorted(unreadable.items()))
        report.add(Finding(FindingCode.RECORD_MISSING, reason) for _, reason in sorted(library.lost().items()))
        held = {r.id: r.listed for r in checked.releases()}
        wanted, absent = _wanted(checked, builds, held, expectations)
        report.add(_absent(name, held if builds else ()) for name in absent)
        if not wanted and not absent:
            report.add([Finding(FindingCode.EMPTY_LIBRARY, f"{library.store.location}: no release was ever harvested")])
        run = _Run(checked, level, report, progress, sum(held.get(r, 0) for r in wanted))
        # Decoding and hashing leave the interpreter alone, so threads do; an object store is waited for, not computed.
        threads = jobs or (_REMOTE_JOBS if "://" in library.store.location else os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="verify") as run.pool:
            try:
                for release in wanted:
                    _release(run, release, expectations, scratch)
            except BaseException:
                run.pool.shutdown(cancel_futures=True)
                raise
    return report


@contextmanager
def _from_records(library: Library, level: Level, scratch: Path | None) -> Iterator[Library]:
    """Return the library, at level bytes over a catalog made now: only the records are the truth."""
    if level is not Level.BYTES:
        yield library
        return
    with ScratchFolder("verify", scratch) as folder, ExitStack() as stack:
        try:
            catalog = stack.enter_context(closing(Catalog(Path(folder) / "catalog.db")))
            fresh = Library(library.store, catalog)
        except StorageError as error:
            hint = "name another folder with --scratch, or use --level blobs"
            raise StorageError(f"{folder}: no room for a catalog: {error}", hint=hint) from error
        yield fresh


def _wanted(
    library: Library, names: Sequence[str], held: Iterable[ReleaseId], expectations: Expectations
) -> tuple[list[ReleaseId], list[str]]:
    """Return the releases to look at, and the names of which the library has nothing. Raises UsageError."""
    wanted, absent = dict.fromkeys([] if names else held), dict[str, None]()
    for name in names:
        try:
            wanted[library.release_id(name)] = None
        except NotFoundError:
            absent[name] = None
    if not names:
        expected = map(str, expectations.expected_releases)
        absent = dict.fromkeys(name for name in expected if not any(r.is_meant_by(name) for r in wanted))
    return list(wanted), list(absent)


def _absent(name: str, held: Iterable[ReleaseId] = ()) -> Finding:
    """Return that nothing of a release is there; `held` are those that may have been meant."""
    product, _, build = name.rpartition(":")
    name = build if product in {"", MACOS} else name
    text = f"{name}: expected, but nothing of it was harvested"
    similar = difflib.get_close_matches(build, {r.build for r in held} - {build}, 3, 0.7)
    step = f"harvest it; or did you mean {' or '.join(similar)}?" if similar else ""
    return Finding(FindingCode.NO_HARVEST, text, build, product=product, step=step)


def _release(run: _Run, wanted: ReleaseId, expectations: Expectations, scratch: Path | None) -> None:
    release = gather(run.library, wanted)
    if release is None:
        run.report.add([_absent(str(wanted))])
        return
    run.report.releases.append(summary_of(release))
    findings, notes = check_release(release, expectations)
    run.report.add(findings, release.product)
    run.report.notes += notes
    run.release(release, scratch)


@dataclass
class _Run:
    """What one call of `verify` carries along."""

    library: Library
    level: Level
    report: VerifyReport
    progress: Progress | None
    expected: int
    done: int = 0
    pool: ThreadPoolExecutor = field(init=False)
    good: set[int] = field(default_factory=set)
    """Hashes of the contents that were found good: releases share most of theirs."""
    bad: dict[int, list[Problem]] = field(default_factory=dict)

    def release(self, release: ReleaseHoldings, scratch: Path | None) -> None:
        """Check the images of one release."""
        findings, stored = check_images(release)
        self.report.add(findings, release.product)
        if self.level is Level.CATALOG:
            self._advance(len(stored), 0)
            return
        raw = [unit for unit in release.units if unit.kept]
        files = {id(unit): check_files(self.library, release.build, unit) for unit in raw}
        self.report.add((finding for found in files.values() for finding in found), release.product)
        if self.level is Level.BYTES and raw:
            with ScratchFolder("verify", scratch) as folder:
                for unit in raw:
                    found = files[id(unit)]
                    with materialised(self.library, release.build, unit, Path(folder), found, self.pool) as cache:
                        self.report.add(found, release.product)
                        if cache is None:
                            continue
                        mine = [o for o in stored if o.cache_uuid == unit.cache_uuid]
                        stored = [o for o in stored if o.cache_uuid != unit.cache_uuid]
                        self._contents(release.id, mine, cache, len(stored))
        self._contents(release.id, stored, None, 0)

    def _contents(self, release: ReleaseId, stored: Iterable[Occurrence], cache: RawCache | None, later: int) -> None:
        """Check each content once; say of every image that has a bad one what is wrong with it."""
        by_content: dict[int, list[Occurrence]] = {}
        for occurrence in stored:
            by_content.setdefault(_identity(occurrence, cache is not None), []).append(occurrence)
        fresh = {k: v[0] for k, v in by_content.items() if k not in self.good and k not in self.bad}
        self._advance(len(by_content) - len(fresh), len(fresh) + later)

        def check(item: tuple[int, Occurrence]) -> tuple[int, list[Problem]]:
            return item[0], self._check(item[1], cache)

        for left, (key, problems) in enumerate(self.pool.map(check, fresh.items()), 1):
            if problems:
                self.bad[key] = problems
            else:
                self.good.add(key)
            self._advance(1, len(fresh) - left + later)
        for key, occurrences in by_content.items():
            for code, text in self.bad.get(key, ()):
                self.report.add(
                    (
                        Finding.of_image(code, text, release.build, o.path, o.arch, o.uuid, o.cache_uuid)
                        for o in occurrences
                    ),
                    release.product,
                )

    def _check(self, o: Occurrence, cache: RawCache | None) -> list[Problem]:
        content = Content(o.sha256, o.size, o.uuid, o.kind, o.arch)
        reference, problems = None, []
        if cache is not None:
            try:
                reference = cache.reference(o.path, o.uuid)
            except SharedCacheError as error:
                problems.append((FindingCode.CACHE_UNREADABLE, str(error)))
        problems += check_content(
            self.library, content, every_byte=self.level is Level.BYTES, reference=reference, extractor=o.extractor
        )
        return problems

    def _advance(self, count: int, left: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, max(self.expected, self.done + left))


def _identity(o: Occurrence, compared: bool) -> int:
    """Return a hash of all that a check of this content depends on; `compared` with its raw shared cache, or not."""
    cache: UUID | None = o.cache_uuid
    return hash((o.sha256, o.size, o.uuid, o.kind, o.arch, o.extractor, cache, o.path if cache else "", compared))
