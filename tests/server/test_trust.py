"""What somebody pushed, added, or has on another server, under the UUID of what was harvested: nothing tells of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from symcache.library import Library, ingest, stage_paths
from symcache.model import Trust
from tests.client.lying_server import LyingServer
from tests.server.convert.breakpad_file import SymbolFile, parse
from tests.support.http import request
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, serve, set_uuid, stage_variant, uuid_of
from tests.support.toolchain import compile_image, dsym

PINS = ["", *(f"/cache/{cache}" for cache in CACHES.values()), *(f"/build/{build}" for build in CACHES)]


def _paths(uuid: UUID) -> list[str]:
    """What only a dSYM has."""
    base = f"/buildid/{uuid.hex}"
    return [f"{base}/debuginfo", f"/_.dwarf/mach-uuid-sym-{uuid.hex}/_.dwarf", f"{base}/section/__debug_info"]


def _symbols(server: Server, uuid: UUID, pin: str = "") -> SymbolFile:
    answer = request(server.url, f"{pin}/libx.dylib/{uuid.hex.upper()}0/libx.dylib.sym")
    assert answer.status == 200
    return parse(answer.body)


def _own(folder: Path, name: str) -> tuple[Path, Path]:
    """Return a binary with one function, and its dSYM's inner file."""
    image = compile_image(folder / name, f"lib{name}.dylib", f"int {name}(int x) {{ return x * 7; }}\n")
    return image, next((dsym(image) / "Contents" / "Resources" / "DWARF").iterdir())


def _forged(samples: Samples, folder: Path, uuid: UUID) -> Path:
    """Return a dSYM with functions of its own under a UUID."""
    folder.mkdir(parents=True, exist_ok=True)
    return set_uuid(Path(shutil.copy(samples.dsym, folder / f"dsym-{uuid.hex}")), uuid)


def _put(library: Library, trust: Trust, scratch: Path, *files: Path) -> None:
    staged = stage_paths(files, scratch)
    staged.trust = trust
    assert ingest(library, staged).sealed


@pytest.fixture(scope="module")
def twins(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, UUID]]]:
    """Serve the sample library with dSYMs of each trust; and UUIDs by the trust of binary and dSYM."""
    folder = tmp_path_factory.mktemp("twins")
    shutil.copytree(samples.library, folder / "library")
    uuids: dict[str, UUID] = {}
    with Library.open(folder / "library") as library:
        _put(library, Trust.PUSHED, folder / "scratch", _forged(samples, folder / "pushed", SHARED_UUID))
        forged = _forged(samples, folder / "added", SHARED_UUID)
        forged.write_bytes(forged.read_bytes() + b"another")
        _put(library, Trust.ADDED, folder / "scratch", forged)
        image, inner = _own(folder, "harvested")
        uuids["harvested"] = uuid_of(image)
        ingest(library, stage_variant(image, "22G120", CACHES["22G120"], "/usr/lib/libharvested.dylib"))
        ingest(library, stage_variant(inner, "22G120", None, "/usr/lib/libharvested.dylib.dSYM/libharvested.dylib"))
        _put(library, Trust.PUSHED, folder / "scratch", _forged(samples, folder / "pushed", uuids["harvested"]))
        image, inner = _own(folder, "pushed")
        uuids["pushed"] = uuid_of(image)
        _put(library, Trust.PUSHED, folder / "scratch", image, inner)
    with serve(folder / "library", folder / "server") as server:
        yield server, uuids


def test_a_dsym_of_less_trust_is_no_answer(twins: tuple[Server, dict[str, UUID]]) -> None:
    server, _ = twins
    for pin in PINS:
        assert [request(server.url, pin + path).status for path in _paths(SHARED_UUID)] == [404] * 3, pin


def test_a_dsym_of_less_trust_changes_no_symbol_file(twins: tuple[Server, dict[str, UUID]], server: Server) -> None:
    changed, _ = twins
    for pin in PINS:
        # As from the library that has no other dSYM.
        assert _symbols(changed, SHARED_UUID, pin) == _symbols(server, SHARED_UUID, pin), pin
        assert set(_symbols(changed, SHARED_UUID, pin).names()) == {"moved"}


def test_what_has_one_trust_goes_together(twins: tuple[Server, dict[str, UUID]]) -> None:
    server, uuids = twins
    for name, pins in (("pushed", PINS), ("harvested", ["", f"/cache/{CACHES['22G120']}", "/build/22G120"])):
        for pin in pins:
            assert [request(server.url, pin + path).status for path in _paths(uuids[name])] == [200] * 3, (name, pin)
            assert {f.name for f in _symbols(server, uuids[name], pin).functions} == {name}, (name, pin)


def test_other_servers_are_trusted_least(samples: Samples, server: Server, tmp_path: Path) -> None:
    """One has dSYMs for whatever is asked, another has a release that is not here."""
    own = compile_image(tmp_path / "own", "libown.dylib", "int own(int x) { return x * 3; }\n")
    dsyms = {uuid.hex: _forged(samples, tmp_path, uuid).read_bytes() for uuid in (SHARED_UUID, uuid_of(own))}

    async def answer(asked: web.Request) -> web.StreamResponse:
        found = next((data for uuid, data in dsyms.items() if asked.path.endswith(f"/{uuid}/debuginfo")), None)
        return web.Response(body=found) if found else web.Response(status=404)

    with Library.open(tmp_path / "library", create=True) as library:
        ingest(
            library, stage_variant(samples.variants["22G120"], "22G120", CACHES["22G120"], "/usr/lib/libmoved.dylib")
        )
        _put(library, Trust.PUSHED, tmp_path / "scratch", own)
    with (
        LyingServer(answer) as other,
        serve(tmp_path / "library", tmp_path / "s", "--upstream", other.url, "--upstream", server.url) as front,
    ):
        here = f"/cache/{CACHES['22G120']}"
        for uuid, pins in ((SHARED_UUID, ["", here, "/build/22G120"]), (uuid_of(own), PINS)):
            for pin in pins:
                assert [request(front.url, pin + path).status for path in _paths(uuid)] == [404] * 3, pin
        assert _symbols(front, SHARED_UUID, here).functions == []
        assert other.requests == []
        # Of a release that is not here others may tell, but nothing that is of none.
        there = f"/cache/{CACHES['23A344']}"
        image = request(front.url, f"{there}/buildid/{SHARED_UUID.hex}/executable")
        assert image.body == samples.variants["23A344"].read_bytes()
        assert [request(front.url, there + path).status for path in _paths(SHARED_UUID)] == [404] * 3
        assert _symbols(front, SHARED_UUID, there).functions == []
        assert other.requests != []


def test_a_universal_file_has_no_slice_of_less_trust(samples: Samples, tmp_path: Path) -> None:
    source = "int own(int x) { return x * 3; }\n"
    archs = ("arm64", "x86_64")
    own, forged = (compile_image(tmp_path / arch, "libown.dylib", source, arch=arch) for arch in archs)
    set_uuid(forged, SHARED_UUID)
    both = tmp_path / "libown.dylib"
    subprocess.run(["llvm-lipo-19", "-create", own, forged, "-output", both], check=True)
    shutil.copytree(samples.library, tmp_path / "library")
    with Library.open(tmp_path / "library") as library:
        _put(library, Trust.PUSHED, tmp_path / "scratch", both)
    with serve(tmp_path / "library", tmp_path / "server") as server:
        answer = request(server.url, f"/buildid/{uuid_of(own).hex}/executable?universal")
        assert (answer.status, answer.body) == (200, own.read_bytes())
