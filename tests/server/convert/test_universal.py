"""Universal files are put together for those who ask, and for nobody else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from symcache.library import Library, ingest, stage_paths
from tests.support.http import request
from tests.support.servers import serve, uuid_of
from tests.support.toolchain import compile_image, dsym


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("slices")
    source = "int answer(int x) { return x * 42; }\n"
    return {arch: compile_image(folder / arch, "libboth.dylib", source, arch=arch) for arch in ("arm64", "x86_64")}


def _lipo(*arguments: str | Path) -> str:
    return subprocess.run(["llvm-lipo-19", *arguments], capture_output=True, text=True, check=True).stdout


def test_all_slices_of_the_file_come_together_again(slices: dict[str, Path], tmp_path: Path) -> None:
    fat, alone = tmp_path / "libboth.dylib", tmp_path / "alone" / "libboth.dylib"
    _lipo("-create", *slices.values(), "-output", fat)
    alone.parent.mkdir()
    source = "int other(int x) { return x; }\n"
    alone.write_bytes(compile_image(tmp_path / "other", "libboth.dylib", source).read_bytes())
    with Library.open(tmp_path / "library", create=True) as library:
        for number, path in enumerate((fat, alone)):
            scratch = tmp_path / f"scratch{number}"
            scratch.mkdir()
            ingest(library, stage_paths([path], scratch))
    with serve(tmp_path / "library", tmp_path / "server") as server:
        bodies, tags = set(), set()
        for image in slices.values():
            path = f"/buildid/{uuid_of(image).hex}/executable"
            thin = request(server.url, path)
            assert (thin.status, thin.body) == (200, image.read_bytes())
            whole = request(server.url, f"{path}?universal")
            assert whole.headers["x-symcache-arch"] == "arm64 x86_64"
            assert whole.headers["content-length"] == whole.headers["x-symcache-size"] == str(len(whole.body))
            bodies.add(whole.body)
            tags.add(whole.headers["etag"])
            assert (
                request(server.url, f"{path}?universal", headers={"If-None-Match": whole.headers["etag"]}).status == 304
            )
            ranged = request(server.url, f"{path}?universal", headers={"Range": "bytes=4-99"})
            assert (ranged.status, ranged.body) == (206, whole.body[4:100])
        # Whichever slice was asked for, it is one file, and LLVM finds both in it as they were.
        assert len(bodies) == len(tags) == 1
        got = tmp_path / "got"
        got.write_bytes(bodies.pop())
        assert set(_lipo("-archs", got).split()) == {"arm64", "x86_64"}
        for arch, image in slices.items():
            _lipo("-thin", arch, got, "-output", tmp_path / arch)
            assert (tmp_path / arch).read_bytes() == image.read_bytes()
        # What came alone has the same path, but is no slice of that file.
        only = request(server.url, f"/buildid/{uuid_of(alone).hex}/executable?universal")
        assert (only.status, only.body) == (200, alone.read_bytes())


def test_a_universal_dsym_too(slices: dict[str, Path], tmp_path: Path) -> None:
    bundle = tmp_path / "libboth.dylib.dSYM"
    inner = bundle / "Contents/Resources/DWARF/libboth.dylib"
    inner.parent.mkdir(parents=True)
    parts = [next((dsym(image) / "Contents/Resources/DWARF").iterdir()) for image in slices.values()]
    _lipo("-create", *parts, "-output", inner)
    with Library.open(tmp_path / "library", create=True) as library:
        (tmp_path / "scratch").mkdir()
        ingest(library, stage_paths([bundle], tmp_path / "scratch"))
    uuid = uuid_of(slices["arm64"])
    with serve(tmp_path / "library", tmp_path / "server") as server:
        whole = request(server.url, f"/buildid/{uuid.hex}/debuginfo?universal")
        got = tmp_path / "got"
        got.write_bytes(whole.body)
        for arch, part in zip(slices, parts, strict=True):
            _lipo("-thin", arch, got, "-output", tmp_path / arch)
            assert (tmp_path / arch).read_bytes() == part.read_bytes()
        assert request(server.url, f"/buildid/{uuid.hex}/executable?universal").status == 404
