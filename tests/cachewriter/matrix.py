"""Every variant of a shared cache that a reader must understand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.cachewriter.options import HEADER_SIZES, CacheOptions
from tests.cachewriter.samples import ALIASES

__all__ = ["matrix"]

_OS_VERSIONS = {
    0x138: (10, 15, 0), 0x140: (11, 0, 0), 0x1C8: (12, 0, 0), 0x200: (13, 5, 0), 0x208: (15, 0, 0), 0x228: (26, 0, 0),
    0x238: (27, 0, 0),
}  # fmt: skip


def _variants() -> Iterator[dict[str, Any]]:
    for size in HEADER_SIZES:
        yield {"arch": "x86_64", "header_size": size}
    # Architectures by era.
    for size in (0x28, 0x48, 0x68, 0x98, 0xF8):
        yield {"arch": "i386", "header_size": size}
    for size in (0x70, 0x98, 0x138, 0x140, 0x200, 0x228):
        yield {"arch": "x86_64h", "header_size": size, "layout_seed": 1}
    for size in (0x98, 0x138, 0x140, 0x1C8, 0x228):
        yield {"arch": "arm64", "header_size": size, "platform": 2}
        yield {"arch": "arm64e", "header_size": size, "layout_seed": 2, "authenticated": 0.4}
    yield {"arch": "arm64e", "header_size": 0x200}
    yield {"arch": "arm64e", "header_size": 0x208, "authenticated": 1.0}
    yield {"arch": "arm64ex1", "header_size": 0x238, "split": "v2-kinds", "authenticated": 0.4}
    for size in (0x138, 0x140, 0x200):
        yield {"arch": "arm64_32", "header_size": size, "platform": 4}
    # Slide info: versions, delta masks, page sizes, tags, extras.
    yield {"arch": "i386", "header_size": 0x98, "slide_version": 2, "delta_mask": 0xC0000000}
    yield {"arch": "i386", "header_size": 0x98, "slide_version": 2, "layout_seed": 4}
    yield {"arch": "arm64_32", "header_size": 0x200, "slide_version": 4, "platform": 4}
    yield {"arch": "x86_64", "header_size": 0x138, "slide_version": 1}
    yield {"arch": "x86_64", "header_size": 0x200, "delta_mask": 0x0003000000000000}
    yield {"arch": "x86_64", "header_size": 0x200, "slide_page_size": 0x4000, "high8": 0.5}
    yield {"arch": "arm64", "header_size": 0x200, "slide_version": 2, "high8": 0.5, "delta_mask": 0x00FFFF0000000000}
    yield {"arch": "arm64e", "header_size": 0x200, "slide_version": 3, "high8": 0.5, "authenticated": 0.5}
    yield {"arch": "arm64e", "header_size": 0x200, "slide_version": 3, "slide_page_size": 0x1000}
    yield {"arch": "arm64e", "header_size": 0x228, "slide_version": 5, "high8": 0.5, "authenticated": 0.5}
    yield {"arch": "arm64e", "header_size": 0x228, "slide_version": 5, "base": 0x1A0000000}
    # File sets.
    yield {"arch": "x86_64", "header_size": 0x1C8, "split": "v1"}
    yield {"arch": "arm64e", "header_size": 0x1C8, "split": (".1", ".2", ".3", ".4"), "authenticated": 0.3}
    yield {"arch": "x86_64", "header_size": 0x200, "split": (".01", ".02", ".03", ".04")}
    yield {"arch": "x86_64h", "header_size": 0x228, "split": "v2", "layout_seed": 5}
    yield {"arch": "arm64e", "header_size": 0x200, "split": "v2", "cache_type": 0}
    for seed in (0, 6):
        yield {"arch": "arm64e", "header_size": 0x228, "split": "v2-kinds", "layout_seed": seed, "authenticated": 0.3}
    yield {"arch": "x86_64", "header_size": 0x228, "split": "v2-kinds"}
    yield {"arch": "arm64e", "header_size": 0x238, "split": (".77", ".100", ".101.dylddata", ".strange-name")}
    yield {"arch": "arm64e", "header_size": 0x228, "split": (".01", ".02.dyldlinkedit")}
    yield {"arch": "arm64e", "header_size": 0x200, "split": "v2", "cache_type": 2, "development": True, "platform": 2}
    # Local symbols.
    for size in (0x68, 0x98, 0x138, 0x140):
        yield {"arch": "x86_64", "header_size": size, "unmapped_locals": "same-file"}
    yield {"arch": "i386", "header_size": 0x68, "unmapped_locals": "same-file"}
    yield {"arch": "arm64", "header_size": 0x138, "unmapped_locals": "same-file", "redact": False}
    yield {"arch": "arm64", "header_size": 0x228, "unmapped_locals": "same-file", "platform": 2}
    yield {"arch": "arm64_32", "header_size": 0x200, "unmapped_locals": ".symbols", "platform": 4}
    yield {"arch": "arm64", "header_size": 0x1C8, "unmapped_locals": ".symbols", "split": "v1", "platform": 2}
    yield {"arch": "arm64e", "header_size": 0x228, "unmapped_locals": ".symbols", "split": "v2-kinds", "platform": 2}
    yield {
        "arch": "arm64e", "header_size": 0x200, "unmapped_locals": ".symbols", "split": "v2-kinds", "cache_type": 2,
        "development": True, "platform": 2, "authenticated": 0.3,
    }  # fmt: skip
    # Others.
    yield {"arch": "x86_64", "header_size": 0x228, "driverkit": True, "platform": 10}
    yield {"arch": "arm64", "header_size": 0x228, "simulator": True, "platform": 7}
    yield {"arch": "x86_64", "header_size": 0x138, "simulator": True, "platform": 7}
    yield {"arch": "x86_64", "header_size": 0x228, "dylibs_trie": False}
    yield {"arch": "arm64e", "header_size": 0x228, "magic": "arm64e9"}
    yield {"arch": "x86_64", "header_size": 0x120}
    yield {"arch": "x86_64", "header_size": 0x1D0, "split": "v2"}


def _identity(values: dict[str, Any]) -> str:
    parts = [values["arch"], f"{values['header_size']:#x}"]
    for key, value in values.items():
        if key in ("arch", "header_size", "platform"):
            continue
        text = f"{value:#x}" if key in ("delta_mask", "base", "slide_page_size") else f"{value}"
        text = "".join(value) if isinstance(value, tuple) else text
        parts.append(text if key in ("split", "unmapped_locals", "magic") else f"{key}={text}")
    return "-".join(parts)


def matrix() -> Iterator[tuple[str, CacheOptions]]:
    """(id, options) of each variant; the images to fill it with are `samples.sample(options)`."""
    for values in _variants():
        newest = max((s for s in _OS_VERSIONS if s <= values["header_size"]), default=0x138)
        yield _identity(values), CacheOptions(**values, aliases=ALIASES, os_version=_OS_VERSIONS[newest])
