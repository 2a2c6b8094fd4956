"""A really running `symcache serve`, and libraries for it to serve."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from symcache.dyld import REVISION
from symcache.library import Library, Staged, StagedObject, ingest
from symcache.macho import identify
from symcache.model import Kind, ManifestEntry, Origin, Release
from tests.support.toolchain import compile_image, dsym

__all__ = [
    "BASES",
    "CACHES",
    "SHARED_UUID",
    "Samples",
    "Server",
    "homes",
    "make_samples",
    "move_image",
    "noise_image",
    "serve",
    "set_uuid",
    "stage_variant",
    "uuid_of",
]

CACHES = {
    "22G120": UUID("11111111-2222-3333-4444-555555555555"),
    "23A344": UUID("AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE"),
}
"""Shared cache of each sample release; the second is the newer one."""
SHARED_UUID = UUID("C0FFEE00-1234-3678-9ABC-DEF012345678")
"""Of the image that both caches hold."""
BASES = {"22G120": 0x1_8000_0000, "23A344": 0x1_9040_0000}
"""Where each cache lays it out."""


@dataclass
class Server:
    """A server process."""

    url: str
    process: subprocess.Popen[str]
    folder: Path
    first_line: dict[str, object] = field(default_factory=dict)

    def stop(self) -> int:
        """End it as an operator would, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


def homes(folder: Path) -> dict[str, str]:
    """Return the variables that have `symcache` keep everything below a folder, as the server does that runs in it."""
    return {f"XDG_{n}_HOME": str(folder / n.lower()) for n in ("DATA", "CONFIG", "CACHE", "STATE")}


@contextlib.contextmanager
def serve(library: str | Path, folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run `symcache serve` on a free port; its caches and logs go below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "symcache", "serve", "--port", "0", "--json", "--library", str(library), *options]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | homes(folder) | dict(env or {}),
        )
    try:
        timer = threading.Timer(60, process.kill)
        timer.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        timer.cancel()
        assert line, (folder / "stderr").read_text()
        first = json.loads(line)
        yield Server(first["url"], process, folder, first)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout:
            process.stdout.close()


@dataclass
class Samples:
    """What the sample library holds: files as the compiler made them."""

    folder: Path
    library: Path
    dylib: Path
    """Belongs to no release (added)."""
    dsym: Path
    """Its inner DWARF file."""
    variants: dict[str, Path]
    """Build to the image `SHARED_UUID` as its cache lays it out."""
    large: Path
    """In release 22G120 as a plain file; three megabytes."""

    @property
    def uuid(self) -> UUID:
        """Of `dylib`."""
        return uuid_of(self.dylib)


def uuid_of(image: Path) -> UUID:
    """Return the UUID of a thin image."""
    found = identify(image)[0].uuid
    assert found is not None
    return found


def set_uuid(image: Path, uuid: UUID) -> Path:
    """Give an image another UUID, in place."""
    data = image.read_bytes()
    old = uuid_of(image).bytes
    assert data.count(old) == 1
    image.write_bytes(data.replace(old, uuid.bytes))
    return image


def move_image(image: Path, base: int) -> None:
    """Move a 64-bit image by `base` as a shared cache would: segments, sections and symbols; nothing points in it.

    Source: struct segment_command_64, section_64, symtab_command, nlist_64.
    """
    data = bytearray(image.read_bytes())

    def add(offset: int) -> None:
        struct.pack_into("<Q", data, offset, struct.unpack_from("<Q", data, offset)[0] + base)

    position, count = 32, struct.unpack_from("<I", data, 16)[0]
    for _ in range(count):
        command, size = struct.unpack_from("<2I", data, position)
        if command == 0x19:  # LC_SEGMENT_64
            add(position + 24)
            for section in range(struct.unpack_from("<I", data, position + 64)[0]):
                add(position + 72 + 80 * section + 32)
        elif command == 0x2:  # LC_SYMTAB
            start, symbols = struct.unpack_from("<2I", data, position + 8)
            for entry in range(start, start + 16 * symbols, 16):
                if data[entry + 4] & 0x0E == 0x0E:  # N_SECT
                    add(entry + 8)
        position += size
    image.write_bytes(data)


def stage_variant(image: Path, build: str, cache: UUID | None, path: str, *, version: str = "13.6") -> Staged:
    """Stage one image as a harvest of `build` would."""
    found = identify(image)[0]
    origin = Origin.CACHE if cache else Origin.FILE
    staged = Staged(Release(version=version, build=build), "test", extractor="symcache" if cache else "")
    common = {"path": path, "arch": found.arch, "uuid": found.uuid, "kind": found.kind or Kind.EXECUTABLE}
    staged.manifest.append(ManifestEntry(**common, origin=origin, cache_uuid=cache))
    staged.objects.append(
        StagedObject(
            image,
            0,
            found.size,
            path,
            found.arch,
            found.uuid,
            common["kind"],
            origin,
            cache,
            staged.extractor,
            REVISION,
        )
    )
    return staged


def noise_image(folder: Path) -> Path:
    """Compile an image that compresses badly: its stored form has hundreds of kilobytes, too."""
    return _data_image(folder / "noise", "libnoise.dylib", random.Random(1).randbytes(300_000))


def _data_image(folder: Path, name: str, data: bytes) -> Path:
    """Compile an image that holds `data`, as the assembler takes it: the compiler would take seconds to read it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = folder / "data"
    content.write_bytes(data)
    source = f'__asm__(".section __TEXT,__const\\n.globl _data\\n_data:\\n.incbin \\"{content}\\"\\n.text");\n'
    return compile_image(folder, name, source)


def make_samples(folder: Path) -> Samples:
    """Compile images and make a library of them."""
    from symcache.library import stage_paths

    source = "int answer(int x) { return x * 42; }\nint other(int x) { return answer(x) + 1; }\n"
    dylib = compile_image(folder / "own", "libanswer.dylib", source)
    bundle = dsym(dylib)
    inner = next((bundle / "Contents" / "Resources" / "DWARF").iterdir())
    shared = "int moved(int x) { return x * 7; }\n"
    variants = {}
    for build, base in BASES.items():
        image = compile_image(folder / build, "libmoved.dylib", shared)
        move_image(image, base)
        variants[build] = set_uuid(image, SHARED_UUID)
    data = bytes(n * 2654435761 % 251 for n in range(3_000_000))
    large = _data_image(folder / "large", "liblarge.dylib", data)
    library = Library.open(folder / "library", create=True)
    with library:
        ingest(library, stage_paths([dylib, bundle], folder / "scratch"))
        for build, version in (("22G120", "13.6"), ("23A344", "14.0")):
            staged = stage_variant(variants[build], build, CACHES[build], "/usr/lib/libmoved.dylib", version=version)
            ingest(library, staged)
        ingest(library, stage_variant(large, "22G120", None, "/usr/lib/liblarge.dylib"))
    return Samples(folder, folder / "library", dylib, inner, variants, large)
