"""Small Mach-O files made to order, and harvests of them."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from symcache.library import Staged, StagedCacheFile, StagedObject
from symcache.model import Kind, ManifestEntry, Origin, Release, SourceNote, Trust

__all__ = ["Image", "harvest", "macho"]

ARM64E = (0x0100_000C, 0x8000_0002)


def macho(
    uuid: UUID, *, code: bytes = b"\xc0\x03\x5f\xd6", symbols: int = 0, pad: bytes = b"", filetype: int = 6
) -> bytes:
    """Return a thin arm64e image: __TEXT,__text holds `code`, the symbol table `symbols` entries, `pad` follows."""
    commands_size = 24 + 24 + 152
    start = 32 + commands_size
    section = b"__text".ljust(16, b"\0") + b"__TEXT".ljust(16, b"\0")
    section += struct.pack("<2Q8I", start, len(code), start, 2, 0, 0, 0, 0, 0, 0)
    segment = struct.pack("<2I", 0x19, 152) + b"__TEXT".ljust(16, b"\0")
    segment += struct.pack("<4Q4I", 0, 0x4000, 0, start + len(code), 5, 5, 1, 0) + section
    table = start + len(code)
    symtab = struct.pack("<6I", 2, 24, table, symbols, table + 16 * symbols, 1)
    header = struct.pack("<8I", 0xFEEDFACF, *ARM64E, filetype, 3, commands_size, 0, 0)
    uuid_command = struct.pack("<2I", 0x1B, 24) + uuid.bytes
    return header + uuid_command + symtab + segment + code + bytes(16 * symbols + 1) + pad


class Image:
    """One image of a harvest."""

    def __init__(
        self,
        path: str,
        uuid: int,
        *,
        seed: int = 0,
        cache: int | None = None,
        extractor: str = "",
        revision: int = 0,
        code: bytes = b"\xc0\x03\x5f\xd6",
        symbols: int = 0,
        size: int = 2000,
        kind: Kind = Kind.EXECUTABLE,
        sources: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.path, self.uuid, self.kind = path, UUID(int=uuid), kind
        self.cache = UUID(int=cache) if cache else None
        self.extractor, self.revision = extractor, revision
        self.sources = tuple(SourceNote(recorded=recorded, place=place) for recorded, place in sources)
        pad = random.Random(seed * 7919 + uuid).randbytes(size) if seed >= 0 else b""
        filetype = 10 if kind is Kind.DEBUGINFO else 6
        self.data = macho(self.uuid, code=code, symbols=symbols, pad=pad, filetype=filetype)

    @property
    def entry(self) -> ManifestEntry:
        """What the manifest says of it."""
        origin = Origin.CACHE if self.cache else Origin.FILE
        return ManifestEntry(
            path=self.path, arch="arm64e", uuid=self.uuid, kind=self.kind, origin=origin, cache_uuid=self.cache
        )


def harvest(
    folder: Path,
    images: Sequence[Image],
    *,
    build: str | None = "22G120",
    version: str = "13.6",
    product: str = "macOS",
    lost: Sequence[Image] = (),
    trust: Trust = Trust.HARVEST,
    source: str = "test",
    problems: Sequence[str] = (),
    raw: Sequence[tuple[str, int, bytes]] = (),
) -> Staged:
    """Return a staged harvest of `images`; `lost` are in the manifest only; `raw` are (name, cache, bytes)."""
    folder.mkdir(parents=True, exist_ok=True)
    release = Release(product=product, version=version, build=build) if build else None
    staged = Staged(release, source, trust=trust, problems=list(problems))
    staged.manifest = [i.entry for i in [*images, *lost]]
    for number, image in enumerate(images):
        file = folder / f"{number}"
        file.write_bytes(image.data)
        e = image.entry
        staged.objects.append(
            StagedObject(
                *(file, 0, len(image.data), e.path, e.arch, e.uuid, e.kind, e.origin, e.cache_uuid),
                extractor=image.extractor,
                revision=image.revision,
                sources=image.sources,
            )
        )
    for name, cache, data in raw:
        file = folder / name
        file.write_bytes(data)
        staged.cache_files.append(StagedCacheFile(file, name, f"/System/{name}", "arm64e", UUID(int=cache)))
    return staged
