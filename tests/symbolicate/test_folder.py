"""The folder of artifacts: made once, made anew when it was deleted or damaged, and failures are remembered."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from symcache.errors import IntegrityError, MachOError, StorageError
from symcache.macho import identify
from symcache.symbolicate import Content, NamesFolder
from symcache.symbolicate import folder as folder_module
from symcache.symbolicate.builder import build
from tests.support.toolchain import compile_image

_SOURCE = "int data = 1; static int two(int x) { return x + data; } int one(int x) { return two(x) * 2; }"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_image(tmp_path_factory.mktemp("image"), "libone.dylib", _SOURCE)


def _uuid(image: Path) -> UUID:
    uuid = identify(image)[0].uuid
    assert uuid
    return uuid


class _Opened:
    """A content that counts how often it is opened."""

    def __init__(self, file: Path) -> None:
        self._file, self.times = file, 0
        self.content = Content(hashlib.sha256(file.read_bytes()).hexdigest(), self._open)

    def _open(self) -> int:
        self.times += 1
        return os.open(self._file, os.O_RDONLY)


def _artifacts(folder: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")]


def test_many_that_want_one_image_have_it_read_once(image: Path, tmp_path: Path) -> None:
    opened, uuid = _Opened(image), _uuid(image)
    folders = [NamesFolder(tmp_path, 1 << 30) for _ in range(3)]
    assert not folders[0].is_built(uuid, [opened.content])
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda folder: folder.open(uuid, [opened.content]), folders * 2))
    assert len(made) == 6
    assert opened.times == 1
    assert folders[2].is_built(uuid, [opened.content])
    assert [f.stat().st_mode & 0o777 for f in _artifacts(tmp_path)] == [0o600]


def test_a_folder_that_was_deleted_or_damaged_is_filled_again(image: Path, tmp_path: Path) -> None:
    opened, uuid, place = _Opened(image), _uuid(image), tmp_path / "names"
    names = NamesFolder(place, 1 << 30).open(uuid, [opened.content])
    shutil.rmtree(place)
    offsets = np.arange(0, 4096)
    told = names.look_up(offsets)  # it is still mapped
    assert any(told)
    assert NamesFolder(place, 1 << 30).open(uuid, [opened.content]).look_up(offsets) == told
    (file,) = _artifacts(place)
    for damaged in (b"", file.read_bytes()[:-20], b"x" * 9000):
        file.write_bytes(damaged)
        assert NamesFolder(place, 1 << 30).open(uuid, [opened.content]).look_up(offsets) == told
    assert opened.times == 5


def test_what_cannot_be_read_is_not_read_again_for_an_hour(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bad := tmp_path / "bad").write_bytes(image.read_bytes()[:64])
    cut, good, folder = _Opened(bad), _Opened(image), NamesFolder(tmp_path / "names", 1 << 30)
    for _ in range(2):
        with pytest.raises(
            IntegrityError, match=r"reading its symbols failed: its file: .* do not fit into an image of 64 bytes"
        ):
            folder.open(UUID(int=1), [cut.content])
        assert folder.is_built(UUID(int=1), [cut.content])
    assert cut.times == 1
    names = folder.open(_uuid(image), [cut.content, good.content])  # of the dSYM nothing, but all of the binary
    assert any(names.look_up(np.arange(4096)))
    now = time.time
    monkeypatch.setattr(folder_module.time, "time", lambda: now() + 3601)
    assert not folder.is_built(UUID(int=1), [cut.content])


def test_a_file_that_is_gone_is_no_matter_of_the_folder(image: Path, tmp_path: Path) -> None:
    def gone() -> int:
        raise FileNotFoundError(2, "No such file or directory")

    lost, uuid, folder = Content("0" * 64, gone), _uuid(image), NamesFolder(tmp_path / "names", 1 << 30)
    folder.build_small([(UUID(int=n), lost) for n in range(8)])
    with pytest.raises(IntegrityError, match="its file cannot be opened: No such file or directory"):
        folder.open(uuid, [lost])
    assert any(folder.open(uuid, [lost, _Opened(image).content]).look_up(np.arange(4096)))


def test_who_stops_waits_for_no_image_and_remembers_no_failure(image: Path, tmp_path: Path) -> None:
    opened, uuid = _Opened(image), _uuid(image)
    folder = NamesFolder(tmp_path / "names", 1 << 30)
    folder.stop()
    with pytest.raises(StorageError):
        folder.open(uuid, [opened.content])
    assert any(NamesFolder(tmp_path / "names", 1 << 30).open(uuid, [opened.content]).look_up(np.arange(4096)))


def test_damaged_images_tell_less_or_nothing(image: Path, tmp_path: Path) -> None:
    whole, chance = image.read_bytes(), random.Random(5)
    for turn in range(150):
        data = bytearray(whole)
        for _ in range(1 + turn % 9):
            place = chance.randrange(len(data) if turn % 3 else 2048)
            data[place : place + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, chance.randbytes(4)])
        file = tmp_path / "damaged"
        file.write_bytes(data[: len(data) if turn % 5 else chance.randrange(len(data))])
        try:
            build(_uuid(image), str(file), BytesIO())
        except MachOError:
            continue
