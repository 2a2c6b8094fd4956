"""`extract-cache BUNDLE CACHE FOLDER`, as Apple's extractor writes: pointers stay as the cache has them.

PLANT=extraction has one byte of code be another, and one of a segment of data.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from symcache.dyld import SharedCache, extract_image
from tests.dyld.macho_reader import read


def extract_as_apple(main: Path, folder: Path, planted: set[str]) -> None:
    """Extract all images of a cache; of each segment that is `planted`, the first has one byte that is another."""
    with SharedCache.open(main) as cache:
        for number, image in enumerate(cache.images, 1):
            target = folder / image.path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            extract_image(cache, image, target)
            written = bytearray(target.read_bytes())
            for segment in read(bytes(written)).segments:
                if segment.name not in {"__TEXT", "__LINKEDIT"} and segment.filesize:
                    raw = cache.space.view(segment.vmaddr, min(segment.filesize, segment.vmsize), segment.name)
                    written[segment.fileoff : segment.fileoff + len(raw)] = raw
                if segment.name in planted and segment.filesize:
                    written[segment.fileoff + segment.filesize // 16 * 8] ^= 0x10
                    planted.remove(segment.name)
            target.write_bytes(written)
            print(f"{number}/{len(cache.images)}")


if __name__ == "__main__":
    _, main, target = sys.argv[1:]
    extract_as_apple(
        Path(main), Path(target), {"__TEXT", "__DATA"} if os.environ.get("PLANT") == "extraction" else set()
    )
