"""Names of a thousand addresses in each of some images, against those that `atos` gives.

`atos` is asked for the image by its path, as the system has it in its cache, and for the file that we extract. No name
is written down: where in which image they differ is enough to look them up.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from symcache.dyld import Image, SharedCache, extract_image
from symcache.model import uuid_text
from tests.acceptance.mac import Mac
from tests.acceptance.part import Part, SkippedError
from tests.acceptance.symbol_names import atos_names, judge, our_names, symbols_at
from tests.dyld.macho_reader import MachO, read

__all__ = ["AGAINST_US", "names"]

AGAINST_US = {"another function", "another name", "no name here"}
_WELL_KNOWN = (
    "libobjc.A.dylib",
    "libsystem_c.dylib",
    "libc++.1.dylib",
    "CoreFoundation",
    "libswiftCore.dylib",
    "AppKit",
)


def names(mac: Mac, part: Part) -> None:
    """So many images of each cache."""
    mac.command("atos")
    for cache, main in mac.caches():
        with part.optional(cache.path), part.timed(cache.path), SharedCache.open(main) as opened:
            for image in _chosen(opened.images, mac.options.images):
                mac.need_time()
                with part.optional(image.path), TemporaryDirectory(prefix="names-", dir=mac.work) as folder:
                    _of_image(mac, part, opened, image, Path(folder) / image.path.rpartition("/")[2])


def _chosen(images: list[Image], count: int) -> list[Image]:
    """Return the well-known ones and others at random, always the same of one cache."""
    known = [i for i in images if i.path.rpartition("/")[2] in _WELL_KNOWN]
    others = [i for i in images if i not in known]
    chosen = [*known, *random.Random(len(images)).sample(others, len(others))][:count]
    if not chosen:
        raise SkippedError("the cache has no image", "nothing can be done")
    return chosen


def _of_image(mac: Mac, part: Part, cache: SharedCache, image: Image, file: Path) -> None:
    arch = extract_image(cache, image, file).arch
    extracted = read(file)
    offsets = _offsets(extracted, mac.options.addresses)
    if not offsets:
        return
    ours = our_names(mac, file, image.uuid, offsets)
    known = symbols_at(extracted)
    for way, asked in (("by its path", mac.at(image.path)), ("by our file", file)):
        theirs = atos_names(mac, asked, arch, image.address, offsets)
        if not any(theirs):
            part.row("atos named nothing", image=image.path, way=way)
            continue
        counts: Counter[str] = Counter()
        for offset, our, their in zip(offsets, ours, theirs, strict=True):
            kind = judge(our, their, known)
            counts[kind] += 1
            part.check(
                kind not in AGAINST_US,
                kind,
                image=image.path,
                uuid=uuid_text(image.uuid) if image.uuid else "none",
                arch=arch,
                asked=way,
                offset=offset,
                ours_begins=our.start if our else None,
                theirs_begins=their.start if their else None,
            )
        for kind, count in counts.items():
            part.count(f"{way}: {kind}", count)


def _offsets(image: MachO, count: int) -> list[int]:
    """Return places in the code of an image, from its header, at random, always the same of one."""
    header = image.segment("__TEXT").vmaddr
    code = [s for segment in image.segments for s in segment.sections if s.name == "__text" and s.size >= 4]
    step = 4 if image.cputype & 0xFF == 12 else 1
    chosen = {s.addr + n * step for s in code for n in random.Random(s.size).choices(range(s.size // step), k=count)}
    return sorted(address - header for address in chosen)
