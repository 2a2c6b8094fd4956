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
        f"# what to index {'-' * 5000}\nsymbolcache/macOS Binaries\nsymbolcache/builds/9.0\n\nsymbolcache/gone\n"
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


def test_an_image_is_of_a_cache_where_it_lies_in_the_folder_of_one(share: Path) -> None:
    tree, dyld = share / "macOS Binaries/13.6_22G120", "System/Library/dyld"
    folder = f"{dyld}/dyld_shared_cache_arm64e"
    files = (f"{folder}/top.dylib", f"{dyld}/dyld_shared_cache_tool", f"{dyld}/tools/usr/lib/a", f"usr/{folder}/b")
    for number, file in enumerate(files):
        _write(tree / file, 100 + number)
    release = stage_origin(share)[0]
    expected = {
        "/usr/lib/dyld": "file",
        "/usr/lib/libz.1.dylib": "cache",
        "/top.dylib": "cache",
        **{f"/{file}": "file" for file in files[1:]},
    }
    assert {o.path: o.origin for o in release.objects} == expected
    assert {m.path: m.origin for m in release.manifest} == expected


def test_a_release_is_a_folder_of_its_name_in_the_share_or_one_further_down(share: Path) -> None:
    _write(share / "macOS Binaries/15.0_24A335", 100)
    _write(share / "macOS Binaries/old/12.7_21G816/usr/lib/dyld", 101)
    _write(share / "11.7_20G817/10.15.7_19H2026/usr/lib/dyld", 102)
    parts = {p.release.build: p for p in stage_origin(share) if p.release}
    assert sorted(parts) == ["20G817", "22G120", "23A344"]
    assert [o.path for o in parts["20G817"].objects] == ["/10.15.7_19H2026/usr/lib/dyld"]


def test_a_binary_that_is_named_more_than_once_is_imported_once(share: Path) -> None:
    _note(share, 30, "symbolcache/builds/9.0/Ledger.app/Contents/MacOS/Ledger")
    _note(share, 40, "symbolcache/elsewhere/libother.dylib", split=False)
    (share / "uuidsources.txt").write_text("symbolcache/builds/9.0\nsymbolcache/builds\n")
    *_, rest = stage_origin(share)
    assert sorted(o.uuid.int for o in rest.objects if o.uuid) == [30, 40, 41]


def test_the_file_of_a_uuid_may_be_the_binary_itself(share: Path) -> None:
    text = uuid_text(UUID(int=43))
    _write(share / "symbols" / text, 43)
    rest = stage_origin(share)[-1]
    assert [o.path for o in rest.objects if o.uuid == UUID(int=43)] == [text]
    assert not any(text in problem for problem in rest.problems)


def test_what_the_lists_name_but_is_not_there_is_said(share: Path) -> None:
    with (share / "uuidsources.txt").open("a") as sources:
        sources.write("missing\n")
    (share / "symbols/readme.txt").write_text("no UUID")
    for number in range(5, 0, -1):
        _note(share, number << 112, f"nothing-{number}.dylib")
    problems = stage_origin(share)[-1].problems
    gone = ["line 5: symbolcache/gone: not", "line 6: missing: not", "nothing.dylib"]
    gone += [f"nothing-{number}.dylib" for number in range(1, 6)]
    assert len(problems) == len(gone)
    assert all(name in problem for name, problem in zip(gone, problems, strict=True))


def test_a_binary_that_is_not_the_named_uuid_is_said(share: Path) -> None:
    _write(share / "elsewhere/wrong.dylib", 50)
    _note(share, 51, "symbolcache/elsewhere/wrong.dylib")
    damaged = share / "symbols" / uuid_text(UUID(int=52))
    damaged.write_bytes(macho(UUID(int=52))[:64])
    problems = stage_origin(share)[-1].problems
    assert any("is not 00000000-0000-0000-0000-000000000033" in p for p in problems)
    assert any(p.startswith(f"{damaged}: {damaged} is not ") for p in problems)
    assert not any(p.startswith(f"{damaged}: names ") for p in problems)


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
    (tmp_path / "link").symlink_to(share)
    _write(share / "elsewhere/liblinked.dylib", 45)
    _note(share, 45, str(tmp_path / "link/elsewhere/liblinked.dylib"))
    expected = [o.path for part in stage_origin(share) for o in part.objects]
    assert {f"symbolcache/elsewhere/lib{name}.dylib" for name in ("absolute", "linked")} <= set(expected)
    monkeypatch.chdir(share)
    for root in (Path(), Path("../symbolcache"), tmp_path / "link"):
        parts = stage_origin(root)
        assert [o.path for part in parts for o in part.objects] == expected
        assert {part.source for part in parts} == {"import of symbolcache"}
