"""What people have in hand besides machines, as they name it: harvested, added, looked at, exported."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from symcache.model import uuid_text
from tests.library.images import macho
from tests.support.apple_folders import finish, put_raw, uuids_of
from tests.support.commands import answer_here, end_here

_CACHE = "driverkit-arm64e"
_UUID = UUID(int=1)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "1000")


def test_of_all_device_support_what_is_finished_is_harvested_and_the_rest_named(tmp_path: Path) -> None:
    xcode = tmp_path / "Xcode"
    half = xcode / "iOS DeviceSupport/26.2 (23B87)"
    (half / "Symbols/usr/lib").mkdir(parents=True)
    (half / "Symbols/usr/lib/libobjc.A.dylib").write_bytes(macho(_UUID))
    done = xcode / "watchOS DeviceSupport/Watch4,2 26.1 (23S36)"
    put_raw(done / "Symbols/System/Library/Caches/com.apple.dyld", _CACHE)
    finish(done)
    ran = end_here("harvest", xcode, code=1)
    assert "watchOS 26.1 (23S36): stored, never sealed" in ran.stdout
    assert f"{half}: Xcode was not through with it" in ran.stderr
    assert [r["build"] for r in answer_here("releases")] == ["23S36"]
    assert uuids_of(_CACHE) == {r["uuid"] for r in answer_here("lookup", "*")}


def test_a_bare_cache_is_harvested_under_its_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = put_raw(tmp_path / "caches", _CACHE)
    monkeypatch.chdir(main.parent)
    told = answer_here("harvest", main.name, "--build", "21A559")
    assert (told["release"]["build"], told["sealed"], bool(told["lacks"])) == ("21A559", False, True)


def test_caches_of_no_known_build_are_added_as_own_files_are(tmp_path: Path) -> None:
    main = put_raw(tmp_path / "caches", _CACHE)
    (main.parent / "mine.dylib").write_bytes(macho(_UUID))
    told = answer_here("add", main.parent)
    assert [i["uuid"] for i in told["images"]] == [uuid_text(_UUID)]
    assert [s["release"] for s in told["sources"]] == [None]
    assert {(r["trust"], r["build"]) for r in answer_here("lookup", "*")} == {("added", None)}


def test_build_is_for_what_does_not_say_it(tmp_path: Path) -> None:
    (tmp_path / "mine.dylib").write_bytes(macho(_UUID))
    for command in ("add", "harvest"):
        assert "--build" in end_here(command, tmp_path, "--build", "21A559", code=2).stderr


@pytest.mark.parametrize("build", ["../../x", "a b", "2" * 65, "22G120\n"])
def test_a_build_that_can_be_none_is_wrong_use(tmp_path: Path, build: str) -> None:
    main = put_raw(tmp_path / "caches", _CACHE)
    for command in ("add", "harvest"):
        for path in (main, main.parent):
            ran = end_here(command, path, "--build", build, code=2)
            assert ": is no build: " in ran.stderr
            assert "sw_vers" in ran.stderr
    assert not (tmp_path / "library/records").exists()


def _no_uuid() -> bytes:
    """A dylib (MH_DYLIB of arm64) without load commands."""
    return bytes.fromhex("cffaedfe 0c000001 00000000 06000000 00000000 00000000 00000000 00000000") + bytes(100)


def test_a_binary_without_uuid_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "nameless.dylib").write_bytes(_no_uuid())
    assert "mine/nameless.dylib (arm64): has no LC_UUID" in end_here("add", folder, code=1).stderr
    (folder / "named.dylib").write_bytes(macho(_UUID))
    assert "mine/nameless.dylib (arm64): has no LC_UUID" in end_here("add", folder).stderr
    assert len(answer_here("lookup", "*")) == 1
