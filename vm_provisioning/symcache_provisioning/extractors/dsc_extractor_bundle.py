"""`dsc_extractor.bundle` in the guest: the extractor that comes with macOS 11 and later, for its own caches.

It is a library, and macOS has no program that calls it: a small one is uploaded for each cache. Like
dyld_shared_cache_util it reports success for cut and missing images. Source: dyld's other-tools/dsc_extractor.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from symcache.dyld import HEAD_SIZE, SharedCache, tables_end
from symcache.errors import IntegrityError, NotFoundError, RemoteError, SharedCacheError, StorageError, UsageError
from symcache.text import excerpt
from symcache_provisioning.extractors.bundle_helper import HELPER, NOT_LOADED
from symcache_provisioning.extractors.guest_tool import (
    ListedImage,
    Listing,
    run_extractor,
    stderr_lines,
    temporary_folder,
)
from symcache_provisioning.sources.entries import Entry, RemoteCache
from symcache_provisioning.sources.machine import SshSource
from symcache_provisioning.ssh.transfer import MAX_FILE_SIZE

__all__ = ["BUNDLE", "BUNDLE_PATH", "CacheBundle"]

BUNDLE = "dsc_extractor.bundle"
"""Name in records of the extractor of its images."""
BUNDLE_PATH = f"/usr/lib/{BUNDLE}"
_IN_XCODE = f"/Applications/Xcode.app/Contents/Developer/Platforms/iPhoneOS.platform/usr/lib/{BUNDLE}"
_ARCH = "/usr/bin/arch"
_LONGEST_BEGINNING = 64 << 20
"""Bytes: many times the tables of any cache so far."""
_ROUNDS = 4


class CacheBundle:
    """dsc_extractor.bundle at a path on a machine."""

    name = BUNDLE
    advice = "name another bundle with --bundle-path, or harvest with --extractor raw"

    def __init__(self, source: SshSource, path: str) -> None:
        self._source, self.path = source, path

    @classmethod
    def find(cls, source: SshSource, path: str | None = None) -> CacheBundle:
        """Return the bundle at `path`, or that of macOS. Raises NotFoundError when it is not there."""
        bundle = path or BUNDLE_PATH
        if not bundle.startswith("/"):
            raise UsageError(f"{bundle}: a bundle is named by its absolute path there", hint=f"e.g. {BUNDLE_PATH}")
        if source.run(["/bin/test", "-f", bundle]).status != 0:
            older = "" if path else ": macOS comes with it since 11"
            raise NotFoundError(
                f"{source.name} has no {excerpt(bundle)}{older}",
                hint=f"name another with --bundle-path, e.g. Xcode's: {_IN_XCODE}; or use --extractor raw",
            )
        return cls(source, bundle)

    def list_images(self, cache: RemoteCache, folder: Path) -> Listing:
        """See GuestTool: from the cache's own image table, which is at the beginning of its main file."""
        where, doubts = excerpt(cache.path), []
        images = []
        file = folder / cache.name
        self._copy_tables(cache.files[0], file)
        with SharedCache.open(file, partial=True) as opened:
            if opened.uuid != cache.uuid:
                raise IntegrityError(f"{where}: has become another cache meanwhile", hint="harvest again")
            if opened.images and not opened.main.header.images_text_count:
                raise SharedCacheError(
                    f"{where}: has no table of UUIDs, as those before 10.12", hint="harvest with --extractor raw"
                )
            for image in opened.images:
                if not image.path.startswith("/") or ".." in image.path.split("/") or not image.path.isprintable():
                    doubts.append(f"{where}: lists {excerpt(image.path)!r}, which is no path of an image")
                else:
                    images.append(ListedImage(image.path, image.uuid, image.address))
        if not images:
            doubts.append(f"{where}: lists no image at all")
        return Listing("the cache's own table", images, doubts)

    def _copy_tables(self, entry: Entry, target: Path) -> None:
        """Copy the tables at the beginning of a main file; the rest of the copy is a hole."""
        where = excerpt(entry.path)
        if entry.size > MAX_FILE_SIZE:
            raise IntegrityError(f"{where}: claims {entry.size} bytes, more than any file of macOS has")
        length = min(HEAD_SIZE, entry.size)
        for _ in range(_ROUNDS):  # header, tables, paths
            beginning = self._source.read_head(entry.path, length)
            need = min(tables_end(beginning, where), entry.size)
            if need <= len(beginning):
                break
            if need > _LONGEST_BEGINNING:
                raise SharedCacheError(
                    f"{where}: its tables end at {need:#x} where at most {_LONGEST_BEGINNING:#x} was expected",
                    hint="harvest with --extractor raw",
                )
            length = need
        else:
            raise IntegrityError(f"{where}: changes while it is read", hint="harvest again")
        try:
            with target.open("wb") as file:
                file.write(beginning)
                os.truncate(file.fileno(), entry.size)
        except OSError as error:
            raise StorageError(
                f"{target}: cannot be written: {error.strerror}", hint="name another folder with --staging"
            ) from error

    @contextmanager
    def extract(self, cache: str, need: int) -> Iterator[tuple[SshSource, list[str]]]:
        """See GuestTool."""
        source = self._source
        with temporary_folder(source, need) as folder:
            helper, root = f"{folder}/{HELPER.name}", f"{folder}/images"
            source.session.upload(HELPER, helper)
            for argv in (["/bin/chmod", "700", helper], ["/bin/mkdir", root]):
                made = source.run(argv)
                if made.status != 0:
                    raise RemoteError(
                        f"{source.name}: {argv[0]} ended with {made.status}: {stderr_lines(made)[0]}",
                        hint="harvest with --extractor raw",
                    )
            argv = [helper, self.path, source.remote(cache).decode(), root]
            output = run_extractor(source, argv)
            if output.status == NOT_LOADED:
                # Newer ones are for arm64e and x86_64 only, and only Apple can build programs for arm64e.
                first = stderr_lines(output)[0]
                output = run_extractor(source, [_ARCH, "-x86_64", *argv])
                if output.status != 0:
                    raise RemoteError(
                        f"{BUNDLE} of {excerpt(cache)}: {first}; and as x86_64: ended with {output.status}:"
                        f" {stderr_lines(output)[0]}",
                        hint="install Rosetta there (softwareupdate --install-rosetta), name Xcode's bundle with"
                        " --bundle-path, or harvest with --extractor raw",
                    )
            if output.status != 0:
                raise RemoteError(
                    f"{BUNDLE} of {excerpt(cache)}: {HELPER.name} ended with {output.status}:"
                    f" {stderr_lines(output)[0]}",
                    hint="harvest with --extractor raw",
                )
            yield SshSource(source.session, root=root, limits=source.limits), stderr_lines(output, none=())
