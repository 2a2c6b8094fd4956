"""What is told of files that are no images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from symcache.errors import NotFoundError
from symcache.library import stage_paths
from symcache.library.other_files import instead
from tests.support.permissions import bound_by_modes


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("image.dmg", bytes(600) + b"koly" + bytes(508), ": it is a disk image"),
        ("nothing.dmg", b"koly" + bytes(508), ": it is a disk image"),  # a trailer of 512 bytes and nothing else
        ("other.dmg", b"koly" + bytes(509), ""),
        ("firmware.ipsw", b"PK\3\4", ": it is a restore image, which `symcache harvest` takes"),
        ("kernelcache", bytes.fromhex("3083a00000 1604") + b"IM4P" + bytes(99), ": it is an Image4 payload"),
        ("large", bytes(17) + bytes.fromhex("1604") + b"IM4P" + bytes(99), ""),
        ("libmine.a", b"!<arch>\nfoo", ": it is a static library"),
        ("cache", b"dyld_v1  arm64e\0", ": it is a file of a shared cache"),
        ("Info.plist", b"bplist00", ": it is a property list"),
        ("notes", b"about bplist00 and MZ", ""),
        ("empty", b"", ""),
    ],
)
def test_what_holds_nothing_usable_is_told_with_what_it_is(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(NotFoundError) as caught:
        stage_paths([path], tmp_path / "scratch")
    said, found, rest = str(caught.value).partition("no Mach-O found")
    assert (said, found) == (f"{path}: ", "no Mach-O found")
    assert rest.startswith(told) if told else not rest


def test_what_may_not_be_read_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"bplist00")
    path.chmod(0)
    with bound_by_modes():
        assert instead(path) == ": it is not readable"


def test_of_a_folder_the_first_file_that_is_known_is_told(tmp_path: Path) -> None:
    for name in ("b/1", "a/3", "a/2", "c/0"):
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text")
    (tmp_path / "list").write_bytes(b"bplist00")
    (tmp_path / "top/a/1").symlink_to(tmp_path / "list")  # of another folder
    os.mkfifo(tmp_path / "top/a/0")  # to be opened when somebody writes to it
    assert instead(tmp_path / "top") == " among its 6 files"
    for name in ("b/0", "a/5", "a/4", "c/0"):
        (tmp_path / "top" / name).write_bytes(b"\x7fELF" if name == "a/4" else b"bplist00")
    assert instead(tmp_path / "top") == ": it holds a/4, which is an ELF file"


def test_of_a_large_folder_only_the_first_files_are_looked_at(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:04}").touch()
    assert instead(tmp_path) == " among its 1000 files"
    (tmp_path / "list").write_bytes(b"bplist00")
    assert instead(tmp_path) == " among more than 1000 files"
