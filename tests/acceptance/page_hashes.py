"""Raw shared caches, where macOS has them, against the page hashes of their code signatures."""

from __future__ import annotations

from symcache.dyld import check_pages
from symcache.errors import SharedCacheError
from symcache.model import uuid_text
from tests.acceptance.mac import Mac
from tests.acceptance.part import Part

__all__ = ["page_hashes"]


def page_hashes(mac: Mac, part: Part) -> None:
    """Every page of every file of every cache."""
    for cache, main in mac.caches():
        part.row(
            "caches",
            path=cache.path,
            arch=cache.arch,
            uuid=uuid_text(cache.uuid) if cache.uuid else "none",
            files=len(cache.files),
            bytes=cache.size,
        )
        part.check(not cache.missing, "companions are missing", path=cache.path, names=", ".join(cache.missing))
        with part.timed(f"hashing {cache.path}"):
            for entry in cache.files:
                with part.optional(entry.path):
                    try:
                        pages = check_pages(main.parent / entry.name)
                    except SharedCacheError as error:
                        part.check(False, "a signature cannot be read", path=entry.path, reason=str(error))
                        continue
                    if pages is None:
                        part.row("unsigned files", path=entry.path)
                        continue
                    part.check(not pages.damaged, "pages differ from their hashes", path=entry.path, pages=str(pages))
                    part.count("pages", pages.count)
