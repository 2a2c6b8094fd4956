"""What a UUID and a build can stand for, and how they are written; without records, which take time to import."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

__all__ = ["MACOS", "SIMULATOR", "Kind", "ReleaseId", "canonical_product", "uuid_text"]


class Kind(StrEnum):
    """What can be asked for under one UUID; named as in debuginfod's paths."""

    EXECUTABLE = "executable"
    """The image itself: executable, dylib, bundle, dylinker, kext."""
    DEBUGINFO = "debuginfo"
    """Its dSYM companion (`MH_DSYM`): same UUID, other content."""


def uuid_text(uuid: UUID) -> str:
    """Return a UUID the way Apple's tools print it: upper case, 8-4-4-4-12."""
    return str(uuid).upper()


MACOS = "macOS"
"""What a release is of where nobody says otherwise."""
_PRODUCTS = {
    "Mac OS X": MACOS, "OS X": MACOS, "iPhone OS": "iOS", "Watch OS": "watchOS", "Apple TVOS": "tvOS",
    "xrOS": "visionOS", "BridgeOS": "bridgeOS",
}  # fmt: skip
"""What systems say of themselves (ProductName of SystemVersion.plist), and what Xcode and caches call them."""
SIMULATOR = " simulator"
"""Ends the product of what simulators have: mostly under the build number of the device's system."""


def canonical_product(product: str) -> str:
    """Return the one name of a system that Apple calls by several: `Mac OS X` is macOS, `iPhone OS` iOS."""
    name = product.removesuffix(SIMULATOR)
    return _PRODUCTS.get(name, name) + product[len(name) :]


class ReleaseId(NamedTuple):
    """What a release is known by: several systems may have the same build number."""

    product: str
    """By its one name, see `canonical_product`."""
    build: str

    def __str__(self) -> str:
        """Return what commands know it by, if the build alone will not do: `macOS:22G120`."""
        return f"{self.product}:{self.build}"

    def is_meant_by(self, name: str) -> bool:
        """Return whether a build, or `PRODUCT:BUILD` in any case and by any name of the product, means this one."""
        product, _, build = name.rpartition(":")
        return build == self.build and (not product or canonical_product(product).lower() == self.product.lower())
