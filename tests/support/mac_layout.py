"""The disk of a Mac, laid out for a test: with caches of Apple's builder where there are such, else of our own.

How many images each holds is known from elsewhere than the code under test.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path

from symcache.demo.layouts import LAYOUTS, PREBOOT, Cache, Layout, furnish
from tests.cachewriter import CacheOptions, build_cache
from tests.cachewriter.samples import sample
from tests.support.systems import system_version

__all__ = ["image_count", "lay_out", "put_cache"]

_APPLE = [
    ("i386", "system", (10, 13), "macos10.14-i386"),
    ("x86_64", "system", (10, 13), "macos10.14-x86_64-locals-apart"),
    ("x86_64", "system", (11,), "macos11-x86_64"),
    ("x86_64", "system", (12,), "v1-entries-x86_64-split"),
    ("x86_64", "system", (13,), "x86_64-mac"),
    ("x86_64h", "system", (11,), "macos26-x86_64h-mixed"),
    ("arm64e", "system", (11,), "arm64e-mac"),
    ("arm64e", "system", (12,), "macos12-arm64e"),
    ("arm64e", "system", (13,), "arm64e-split"),
    ("arm64e", "system", (26,), "macos26-arm64e-objc-swift-tpro"),
    ("arm64e", "driverkit", (12,), "driverkit-arm64e"),
    ("x86_64", "x86support", (27,), "x86_64-split"),
]
"""From which macOS on which cache that Apple's builder made is taken; the last one that fits."""
_IMAGES = 3
"""In each of our own."""
_SEEDS = {"system": 0, "driverkit": 2, "exclavekit": 3, "x86support": 1}
_MAGICS = {"arm64e_x1": "arm64ex1", "arm64e_x3": "arm64ex3"}


def _apples(layout: Layout, cache: Cache) -> Path | None:
    root = os.environ.get("SYMCACHE_TEST_CACHES")
    fitting = [
        name
        for arch, family, since, name in _APPLE
        if (arch, family) == (cache.arch, cache.family) and layout.number >= since
    ]
    return Path(root) / fitting[-1] if root and fitting else None


@functools.cache
def _files(arch: str, family: str, sub_caches: int) -> dict[str, bytes]:
    split: str | tuple[str, ...] = tuple(f".{n:02}" for n in range(1, sub_caches + 1)) or "v2"
    # A cache of another family must differ from the system's.
    seed = _SEEDS.get(family, len(family)) + 10 * len(arch)
    options = CacheOptions(
        arch="arm64e" if arch in _MAGICS else arch, magic=_MAGICS.get(arch), split=split, layout_seed=seed
    )
    built = build_cache(sample(options)[:_IMAGES], options)
    return {f"dyld_shared_cache_{arch}{suffix}": data for suffix, data in built.files.items()}


def put_cache(root: Path, layout: Layout, cache: Cache, *, sub_caches: int = 0) -> None:
    """Write the files of one cache into its folder; with `sub_caches`, one of ours with so many."""
    folder = root / cache.folder
    folder.mkdir(parents=True, exist_ok=True)
    apples = None if sub_caches else _apples(layout, cache)
    if apples is not None:
        for file in apples.glob("dyld_shared_cache_*"):
            shutil.copyfile(file, folder / file.name)
        return
    for name, data in _files(cache.arch, cache.family, sub_caches).items():
        (folder / name).write_bytes(data)


def image_count(layout: Layout, cache: Cache, *, sub_caches: int = 0) -> int:
    """Return how many images a cache holds."""
    apples = None if sub_caches else _apples(layout, cache)
    return len(json.loads((apples / "expected.json").read_text())["images"]) if apples else _IMAGES


def lay_out(root: Path, layout: Layout | str, *, loose: Path | None = None, sub_caches: int = 0) -> Path:
    """Lay a system out with all its caches, or with ours of so many sub-caches.

    `loose` is a Mach-O file to have outside of them, in the system and in every cryptex.
    """
    layout = LAYOUTS[layout] if isinstance(layout, str) else layout
    plist = system_version(ProductName=layout.product, ProductVersion=layout.version, ProductBuildVersion=layout.build)
    _put(root, plist)
    for cache in layout.caches:
        put_cache(root, layout, cache, sub_caches=sub_caches)
    cryptexes = root / PREBOOT
    for place in [root, *(cryptexes.iterdir() if cryptexes.is_dir() else ())]:
        if loose is not None:
            (place / "usr/lib").mkdir(parents=True, exist_ok=True)
            shutil.copy(loose, place / "usr/lib")
    if (cryptexes / "OS").is_dir():
        _put(cryptexes / "OS", plist)
        # As on a Mac where nothing is pending: the same once more.
        shutil.copytree(cryptexes / "OS", cryptexes / "Incoming/OS")
    furnish(root, layout)
    return root


def _put(system: Path, plist: bytes) -> None:
    services = system / "System/Library/CoreServices"
    services.mkdir(parents=True, exist_ok=True)
    (services / "SystemVersion.plist").write_bytes(plist)
