"""How many images a release has: harvest, releases, stats, verify and server count the same."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from symcache.library import Library, ingest, stats
from symcache.verify import verify
from symcache_provisioning import DirectorySource, harvest
from symcache_server.api import models
from tests.library.images import Image
from tests.library.images import harvest as stage
from tests.support.commands import answer_here
from tests.support.toolchain import compile_image, dsym
from tests.verify.releases import BUILD

_LC_UUID, _LC_NOTHING = 0x1B, 0x7F


def _without_uuid(file: Path) -> Path:
    """Rename the command that holds the UUID to one that nobody knows. Source: struct uuid_command."""
    data = bytearray(file.read_bytes())
    position = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<2I", data, position)
        if command == _LC_UUID:
            struct.pack_into("<I", data, position, _LC_NOTHING)
        position += size
    file.write_bytes(data)
    return file


def test_images_are_counted_alike(systems: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(systems[BUILD], tmp_path / "system")
    folder = root / "usr/libexec"
    folder.mkdir()
    shutil.copy(root / "usr/bin/tool", folder / "again")  # the same file at another path
    shutil.copy(root / "usr/bin/tool", folder / "anonymous")
    _without_uuid(folder / "anonymous")
    library_file = compile_image(tmp_path / "own", "libown.dylib", "int own(void) { return 1; }\n")
    shutil.copy(library_file, folder / "libown.dylib")
    shutil.copytree(dsym(library_file), folder / "libown.dylib.dSYM")
    # Three caches of seven images, whose aliases are none; dyld for two architectures, the tool, and the four above.
    images = 3 * 7 + 2 + 1 + 4
    broken = root / "usr/lib/libbroken.dylib"
    broken.write_bytes(library_file.read_bytes()[:200])
    with Library.open(tmp_path / "library", create=True) as library:
        partial = harvest(DirectorySource(root), library, staging=tmp_path / "staging", extractor="raw")
        assert (partial.sealed, partial.images) == (False, images)
        assert [r.listed for r in library.releases()] == [images]
        broken.unlink()
        whole = harvest(DirectorySource(root), library, staging=tmp_path / "staging", extractor="raw")
        assert (whole.sealed, whole.images) == (True, images)
        # Of another source something more: of what was harvested whole, that says nothing; of arm64e files it is all.
        other = stage(tmp_path / "other", [Image("/usr/lib/more", 77)], build=BUILD, source="other", problems=["cut"])
        other.manifest.append(other.manifest[0].model_copy(update={"arch": "x86_64"}))
        ingest(library, other)
        images += 1
        # And an imported release, which has no manifest.
        imported = stage(tmp_path / "imported", [Image("/usr/lib/a", 1), Image("/usr/lib/b", 1)], build="21G1")
        imported.manifest.clear()
        ingest(library, imported)
        row = next(r for r in library.releases() if r.build == BUILD)
        report = verify(library, [BUILD])
        total = {r.build: r.listed for r in library.releases()}
        api = models.Release.model_validate(row)
        assert stats(library).listed == sum(total.values())
    assert row.harvests == 2
    assert row.listed == report.images == report.releases[0].images == api.listed == images
    assert api.images == row.images < images
    shown = answer_here("releases", "--library", tmp_path / "library")
    assert [r["listed"] for r in shown if r["build"] == BUILD] == [images]
