"""A share that the minidump scripts filled, imported; the tree is what those scripts lay out."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import NotFoundError, UsageError
from symcache.images import ImageRequest
from symcache.library import Library, ingest, stage_origin
from symcache.model import uuid_text
from tests.library.images import macho


def _write(path: Path, uuid: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(macho(UUID(int=uuid), pad=bytes([uuid])))
    return path


def _note(root: Path, uuid: int, target: str, *, split: bool = True) -> None:
    """Write the file of one UUID as RebuildUuidDatabase.py does (`split`), or flat."""
    text = uuid_text(UUID(int=uuid))
    parts = [text[0:4], *text[4:].split("-")] if split else [text]
    path = root.joinpath("symbols", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(target)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    root = tmp_path / "mnt" / "symbolcache"
    trees = root / "macOS Binaries"
    for build, first in (("13.6_22G120", 10), ("14.0_23A344", 20)):
        _write(trees / build / "usr/lib/dyld", first)
        _write(trees / build / "System/Library/dyld/dyld_shared_cache_arm64e/usr/lib/libz.1.dylib", first + 1)
        (trees / build / "usr/lib/readme.txt").write_text("text")
    _write(root / "builds/9.0/Ledger.app/Contents/MacOS/Ledger", 30)
    _write(root / "builds/9.0/Ledger.dSYM/Contents/Resources/DWARF/Ledger", 30)
    _write(root / "elsewhere/libother.dylib", 40)
    (root / "uuidsources.txt").write_text(
        "# what to index\nsymbolcache/macOS Binaries\nsymbolcache/builds/9.0\n\nsymbolcache/gone\n"
    )
    _note(root, 10, "symbolcache/macOS Binaries/13.6_22G120/usr/lib/dyld")
    _note(root, 40, "symbolcache/elsewhere/libother.dylib")
    _write(root / "elsewhere/libflat.dylib", 41)
    _note(root, 41, "symbolcache/elsewhere/libflat.dylib", split=False)
    _note(root, 42, "symbolcache/elsewhere/nothing.dylib")
    return root


def test_releases_own_binaries_and_named_files_are_imported(local: Library, share: Path) -> None:
    parts = stage_origin(share)
    assert [p.release.build if p.release else None for p in parts] == ["22G120", "23A344", None]
    for part in parts:
        ingest(local, part)
    assert [(r.version, r.build, r.sealed, r.images) for r in local.releases()] == [
        ("14.0", "23A344", False, 2),
        ("13.6", "22G120", False, 2),
    ]
    found = {n: local.resolve(ImageRequest(UUID(int=n))) for n in (10, 11, 20, 21, 30, 40, 41)}
    assert {n: f.path for n, f in found.items() if f} == {
        10: "/usr/lib/dyld",
        11: "/usr/lib/libz.1.dylib",
        20: "/usr/lib/dyld",
        21: "/usr/lib/libz.1.dylib",
        30: "9.0/Ledger.app/Contents/MacOS/Ledger",
        40: "symbolcache/elsewhere/libother.dylib",
        41: "symbolcache/elsewhere/libflat.dylib",
    }
    (extracted,) = local.variants(UUID(int=11))
    assert (extracted.origin, extracted.extractor) == ("cache", "dyld_shared_cache_util")


def test_the_file_of_a_uuid_may_be_the_binary_itself(share: Path) -> None:
    text = uuid_text(UUID(int=43))
    _write(share / "symbols" / text, 43)
    rest = stage_origin(share)[-1]
    assert [o.path for o in rest.objects if o.uuid == UUID(int=43)] == [text]
    assert not any(text in problem for problem in rest.problems)


def test_what_the_lists_name_but_is_not_there_is_said(share: Path) -> None:
    problems = stage_origin(share)[-1].problems
    assert len(problems) == 2
    assert "line 5: symbolcache/gone" in problems[0]
    assert "nothing.dylib" in problems[1]


def test_a_binary_that_is_not_the_named_uuid_is_said(share: Path) -> None:
    _write(share / "elsewhere/wrong.dylib", 50)
    _note(share, 51, "symbolcache/elsewhere/wrong.dylib")
    assert any("is not 00000000-0000-0000-0000-000000000033" in p for p in stage_origin(share)[-1].problems)


def test_the_share_may_be_mounted_under_another_name(share: Path) -> None:
    moved = share.rename(share.with_name("renamed"))
    assert "libother.dylib" in " ".join(o.path for o in stage_origin(moved)[-1].objects)


def test_lists_do_not_lead_out_of_the_share(share: Path, tmp_path: Path) -> None:
    _write(tmp_path / "secret/lib.dylib", 60)
    (share / "uuidsources.txt").write_text("../../secret\n")
    _note(share, 60, "../../secret/lib.dylib")
    assert UUID(int=60) not in {o.uuid for part in stage_origin(share) for o in part.objects}


def test_another_folder_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="uuidsources"):
        stage_origin(tmp_path)
    with pytest.raises(UsageError):
        stage_origin(tmp_path / "nowhere")


@pytest.mark.parametrize("named", ["x" * 5000, "symbolcache/a\0b", "\x7fELF\2\1\1\0\0\0"])
def test_a_file_of_a_uuid_that_names_no_path_is_said_and_costs_nothing_else(share: Path, named: str) -> None:
    _note(share, 60, named)
    rest = stage_origin(share)[-1]
    assert any("00000000003C: names" in p and "not there" in p for p in rest.problems)
    assert {UUID(int=40), UUID(int=41)} <= {o.uuid for o in rest.objects}


def test_a_share_may_be_named_by_a_relative_path_or_a_link(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(share / "elsewhere/libabsolute.dylib", 44)
    _note(share, 44, str(share / "elsewhere/libabsolute.dylib"))
    expected = [o.path for part in stage_origin(share) for o in part.objects]
    assert "symbolcache/elsewhere/libabsolute.dylib" in expected
    (tmp_path / "link").symlink_to(share)
    monkeypatch.chdir(share)
    for root in (Path(), Path("../symbolcache"), tmp_path / "link"):
        parts = stage_origin(root)
        assert [o.path for part in parts for o in part.objects] == expected
        assert {part.source for part in parts} == {"import of symbolcache"}
