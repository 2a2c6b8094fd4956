"""What the steps of building one cache hand on to each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tests.cachewriter.layout import Layout
from tests.cachewriter.machinput import Image
from tests.cachewriter.mover import Mover
from tests.cachewriter.options import CacheOptions


@dataclass
class Work:
    """The state of one build."""

    options: CacheOptions
    images: list[Image]
    layout: Layout
    movers: list[Mover]
    missing: list[tuple[str, str]]
    uuids: dict[str, bytes]

    @property
    def base(self) -> int:
        return self.layout.regions[0].address

    @property
    def stub(self) -> str | None:
        """Suffix of the subcache of branch islands, of which a universal cache has one for each main file."""
        options = self.options
        wanted = options.development and options.suffixes and options.header_size > 0x1C8
        return f".{len(options.suffixes) + 1:02}" if wanted else None

    @property
    def stub_address(self) -> int:
        return max(r.address + r.size for r in self.layout.regions)

    @property
    def end(self) -> int:
        """Where the last mapping ends."""
        return self.stub_address + (self.options.page if self.stub else 0)

    def align(self, size: int) -> int:
        return (size + self.options.page - 1) // self.options.page * self.options.page


def file_uuids(options: CacheOptions, images: list[Image]) -> dict[str, bytes]:
    """A UUID for each file, of what it is made from and how."""
    seed = hashlib.sha256(repr(options).encode())
    for image in images:
        seed.update(image.path.encode() + b"\0" + hashlib.sha256(image.data).digest())

    def uuid(suffix: str) -> bytes:
        raw = bytearray(hashlib.sha256(seed.digest() + suffix.encode()).digest()[:16])
        raw[6], raw[8] = raw[6] & 0x0F | 0x30, raw[8] & 0x3F | 0x80
        return bytes(raw)

    stub = f".{len(options.suffixes) + 1:02}"
    others = (".symbols", ".development", stub, stub + ".development")
    return {suffix: uuid(suffix) for suffix in ("", *options.suffixes, *others)}
