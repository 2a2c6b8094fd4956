"""Images that are stored while others are copied: how that ends early."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.dyld import SharedCache
from symcache.errors import StorageError
from symcache.library import CacheImages, Library, Storing
from symcache_provisioning.extractors import local_extraction
from symcache_provisioning.progress import NoProgress, Whole
from symcache_provisioning.staging import Journal
from tests.dyld.tiny import Cache, Image
from tests.support.waiting import until


def test_a_harvest_that_ends_early_makes_no_more_images(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, asked = threading.Event(), threading.Event()

    def images(*_: Any, **__: Any) -> Iterator[CacheImages]:
        try:
            while True:
                yield CacheImages()
                asked.set()
        finally:
            ended.set()

    monkeypatch.setattr(local_extraction, "store_images", images)
    file = Cache([Image("/usr/lib/a", UUID(int=1))]).write(tmp_path)
    whole = Whole(NoProgress(), copies=True, keeps=True, in_guest=False)
    with Storing(library) as storing:
        with pytest.raises(KeyboardInterrupt), local_extraction.Extractions(storing, whole) as extractions:
            extraction = extractions.start(
                SharedCache.open(file), [0], Journal(tmp_path / "journal", ""), size=1, whole=False
            )
            assert asked.wait(10)
            raise KeyboardInterrupt
        assert ended.is_set()
        assert storing.done.stopped.is_set()  # which is what processes are stopped by
    del extraction


def test_images_that_the_store_refuses_end_the_harvest_at_the_next_file(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def images(*_: Any, **__: Any) -> Iterator[CacheImages]:
        raise StorageError("no space")
        yield

    monkeypatch.setattr(local_extraction, "store_images", images)
    file = Cache([Image("/usr/lib/a", UUID(int=1))]).write(tmp_path)
    whole = Whole(NoProgress(), copies=True, keeps=True, in_guest=False)
    with Storing(library) as storing, local_extraction.Extractions(storing, whole) as extractions:
        extraction = extractions.start(
            SharedCache.open(file), [0], Journal(tmp_path / "journal", ""), size=1, whole=False
        )
        until(extraction._future.done, "refusal")
        with pytest.raises(StorageError, match="no space"):
            storing.follow(file, 1, file)
