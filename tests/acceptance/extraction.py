"""Every image of a shared cache: as we extract it, and as the extractor does that comes with this macOS."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from symcache.dyld import Image, SharedCache, extract_image
from symcache.errors import SymcacheError
from symcache.model import uuid_text
from symcache_provisioning.extractors.bundle_helper import HELPER, NOT_LOADED
from tests.acceptance.image_differences import image_differences
from tests.acceptance.mac import Mac
from tests.acceptance.part import Part, SkippedError
from tests.dyld.macho_reader import read

__all__ = ["extraction"]

BUNDLE = "/usr/lib/dsc_extractor.bundle"
_SIZES = 2
"""What Apple's extractor writes is not that many times as large as the cache."""
_EXTRACT_SECONDS = 3600
_BATCH = 64
_FEW = 64
"""Images for which no further processes are worth it."""
_HEADER = struct.Struct("<7I")


def extraction(mac: Mac, part: Part) -> None:
    """One cache after the other, as what Apple's extractor makes of one takes gigabytes."""
    bundle = mac.at(BUNDLE)
    if not bundle.is_file():
        raise SkippedError(f"{BUNDLE} is not there", "nothing can be done: macOS 11 and later come with it")
    for cache, main in mac.caches():
        with part.optional(cache.path):
            mac.need_time()
            mac.need_space(cache.size * _SIZES, f"what {bundle.name} makes of {cache.path}")
            with TemporaryDirectory(prefix="apples-", dir=mac.work) as folder:
                with part.timed(f"Apple's extractor, {cache.path}"):
                    said = _extract_by_bundle(mac, bundle, main, Path(folder))
                for line in said[:5]:
                    part.row("the bundle says", path=cache.path, line=line)
                with part.timed(f"extracting and comparing {cache.path}"):
                    _compare_all(mac, part, cache.path, main, Path(folder))


def _extract_by_bundle(mac: Mac, bundle: Path, cache: Path, folder: Path) -> list[str]:
    """Have the bundle extract into `folder`, and return what it says about errors."""
    if HELPER.name in mac.programs:
        ways = [mac.command(HELPER.name)]
    else:
        helper = mac.work / HELPER.name
        shutil.copyfile(HELPER, helper)
        helper.chmod(0o700)
        # Newer bundles are for arm64e and x86_64 only, and only Apple can build programs for arm64e.
        ways = [[str(helper)], ["/usr/bin/arch", "-x86_64", str(helper)]]
    for way in ways:
        done = mac.run_command([*way, str(bundle), str(cache), str(folder)], _EXTRACT_SECONDS)
        if done.returncode != NOT_LOADED:
            break
    else:
        raise SkippedError(
            f"{bundle.name} cannot be loaded: {done.stderr.strip()[:200]}",
            "install Rosetta: softwareupdate --install-rosetta",
        )
    if done.returncode:
        raise OSError(f"{HELPER.name} ended with {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stderr.splitlines()


def _compare_all(mac: Mac, part: Part, path: str, main: Path, apples: Path) -> None:
    with SharedCache.open(main) as cache:
        images = cache.images
    batches = [
        (main, apples, mac.work, [i.index for i in images[n : n + _BATCH]]) for n in range(0, len(images), _BATCH)
    ]
    found = 0
    for identity, differences in _in_processes(batches) if len(images) > _FEW else map_batches(batches):
        found += 1
        if not differences:
            part.check(True, "")
        for kind, about in differences:
            part.check(False, kind, cache=path, **identity, **about)
    part.row("images", cache=path, images=len(images), compared=found)
    wrote = {f"/{f.relative_to(apples)}" for f in apples.rglob("*") if f.is_file() and not f.is_symlink()}
    more = wrote - {i.path for i in images}
    part.check(not more, "Apple's extractor wrote more", cache=path, files=len(more))


Batch = tuple[Path, Path, Path, list[int]]
Compared = tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]


def map_batches(batches: list[Batch]) -> Iterator[Compared]:
    """Compare all images here."""
    for batch in batches:
        yield from compare_batch(batch)


def _in_processes(batches: list[Batch]) -> Iterator[Compared]:
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        for compared in pool.map(compare_batch, batches):
            yield from compared


def compare_batch(batch: Batch) -> list[Compared]:
    """Extract some images of a cache, each for as long as it is compared, and return what differs."""
    main, apples, work, indexes = batch
    with SharedCache.open(main) as cache, TemporaryDirectory(prefix="ours-", dir=work) as folder:
        return [_compare(cache, cache.images[index], apples, Path(folder) / "image") for index in indexes]


def _compare(cache: SharedCache, image: Image, apples: Path, ours: Path) -> Compared:
    identity = {"image": image.path, "uuid": uuid_text(image.uuid) if image.uuid else "none"}
    theirs = apples / image.path.lstrip("/")
    if not theirs.is_file():
        return identity, [("Apple's extractor left an image out", {})]
    try:
        ours.unlink(missing_ok=True)
        extract_image(cache, image, ours)
    except SymcacheError as error:
        return identity, [("not extracted here", {"reason": str(error)})]
    *_, commands, _ = _HEADER.unpack(cache.space.view(image.address, _HEADER.size, image.path))
    try:
        return identity, list(image_differences(read(ours), read(theirs), cache.base, 32 + commands))
    except (AssertionError, IndexError, struct.error, ValueError) as error:
        return identity, [("a table cannot be read", {"reason": f"{type(error).__name__}: {error}"})]
