"""Records and contents that no harvest of ours writes: findings, which end no check, and lead out of no folder."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from symcache.library import Library
from symcache.model import Kind
from symcache.store import blob_key, put_blob
from symcache.verify import Finding, FindingCode
from symcache.verify.contents import Content, ContentError, check_content, read_head
from symcache.verify.holdings import RawFile, Unit
from symcache.verify.raw_cache import check_files, materialised
from tests.library.images import macho
from tests.store.test_local_store import BadSectors

CACHE = UUID(int=7)
MAIN = "dyld_shared_cache_arm64e"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", create=True) as opened:
        yield opened


def stored(library: Library, data: bytes) -> tuple[str, int]:
    file = Path(library.store.location).parent / "content"
    file.write_bytes(data)
    return put_blob(library.store, file)[:2]


def test_the_beginning_of_what_is_stored_in_several_frames_is_read_as_of_one(library: Library, tmp_path: Path) -> None:
    data = bytes(range(250)) * 12
    (tmp_path / "raw").write_bytes(data)
    sha256, size, _ = put_blob(library.store, tmp_path / "raw", frame_size=1000)
    assert read_head(library.store, sha256, size, 1500) == data[:1500]


def opened(library: Library, unit: Unit, scratch: Path, findings: list[Finding]) -> list[FindingCode]:
    """Return what is found wrong with a raw cache that cannot be opened, with what was found before."""
    scratch.mkdir()
    with ThreadPoolExecutor(1) as pool, materialised(library, "22G120", unit, scratch, findings, pool) as cache:
        assert cache is None
    assert list(scratch.iterdir()) == []
    return [finding.code for finding in findings]


@pytest.mark.parametrize("name", ["../../outside", "{}/outside", "..", "a\0b", "x" * 300, ""])
def test_no_name_of_a_raw_file_leads_out_of_its_folder(library: Library, tmp_path: Path, name: str) -> None:
    raw = RawFile(name.format(tmp_path), "/System/cache", *stored(library, b"content"))
    before = {p for p in tmp_path.rglob("*") if "outside" in p.name}
    unit = Unit("system", "arm64e", CACHE, raw={raw.name: [raw]})
    codes = opened(library, unit, tmp_path / "scratch", check_files(library, "22G120", unit))
    assert FindingCode.CACHE_UNREADABLE in codes
    assert {p for p in tmp_path.rglob("*") if "outside" in p.name} == before


def test_a_main_file_of_which_only_another_content_is_whole_is_not_opened(library: Library, tmp_path: Path) -> None:
    one, other = (RawFile(MAIN, f"/System/{n}", *stored(library, n * 5000)) for n in (b"1", b"2"))
    path = Path(library.store.location) / blob_key(one.sha256)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the checksum, which headers do not tell
    path.chmod(0o644)
    path.write_bytes(data)
    unit = Unit("system", "arm64e", CACHE, raw={MAIN: [one, other]})
    assert FindingCode.DAMAGED in opened(library, unit, tmp_path / "scratch", [])


def test_an_empty_head_beside_a_main_file_that_is_none_is_not_opened(library: Library, tmp_path: Path) -> None:
    junk, head = (RawFile(MAIN, f"/System/{n}", *stored(library, n * 5000)) for n in (b"1", b""))
    unit = Unit("system", "arm64e", CACHE, raw={MAIN: [junk]}, heads=[head])
    found = check_files(library, "22G120", unit)
    assert [(f.code, f.path) for f in found] == [(FindingCode.CACHE_UNREADABLE, junk.path)]
    assert opened(library, unit, tmp_path / "scratch", found) == [FindingCode.CACHE_UNREADABLE]


@pytest.mark.parametrize("claimed", [0xFFFF_FFF0, 0x10000], ids=["endless", "beyond the end"])
@pytest.mark.parametrize("every_byte", [True, False])
def test_a_content_that_claims_more_load_commands_than_there_are_is_malformed(
    library: Library, every_byte: bool, claimed: int
) -> None:
    image = bytearray(macho(UUID(int=1)))
    struct.pack_into("<I", image, 20, claimed)  # sizeofcmds
    content = Content(*stored(library, bytes(image)), UUID(int=1), Kind.EXECUTABLE, "arm64e")
    assert [code for code, _ in check_content(library, content, every_byte=every_byte)] == [FindingCode.MALFORMED]


def test_a_blob_that_the_disk_cannot_read_is_damaged(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256, size = stored(library, macho(UUID(int=1)))
    content = Content(sha256, size, UUID(int=1), Kind.EXECUTABLE, "arm64e")
    monkeypatch.setattr(library.store, "open", lambda _: BadSectors())
    for every_byte in (True, False):
        assert [code for code, _ in check_content(library, content, every_byte=every_byte)] == [FindingCode.DAMAGED]
    with pytest.raises(ContentError, match="Input/output error"):
        read_head(library.store, sha256, size, 100)
