"""Temporary folders end with their process, however it ends, and never while somebody uses them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from symcache.scratch import ScratchFolder, memory_folder

# A user of a folder that says where it is, and works until it is ended.
USER = """
import sys, time
from pathlib import Path
from symcache.scratch import ScratchFolder, memory_folder
with ScratchFolder("test") as folder:
    Path(folder, "deep", "er").mkdir(parents=True)
    Path(folder, "deep", "er", "file").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(100)
"""


def _user() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", USER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_what_a_killed_process_left_goes_with_the_next_folder(temporary: Path) -> None:
    for name in ("symcache-reextract-0", "symcache-scratch-file", "other"):
        (temporary / name).write_text("of somebody else")
    (temporary / "symcache-scratch-link").symlink_to(temporary.parent, target_is_directory=True)
    before = set(temporary.iterdir())
    (killed, abandoned), (running, used) = _user(), _user()
    with killed, running:
        killed.kill()
        killed.wait()
        assert set(temporary.iterdir()) - before == {abandoned, used}
        with ScratchFolder("test") as folder:
            assert set(temporary.iterdir()) - before == {used, Path(folder)}
            assert (used / "deep/er/file").exists()
            with ScratchFolder("other"):
                assert Path(folder).exists()
        running.kill()
    ScratchFolder("test").cleanup()
    assert set(temporary.iterdir()) == before
    assert temporary.parent.exists()


def test_a_folder_that_is_taken_for_abandoned_is_made_again(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open
    taken = []

    def open_late(path: str, flags: int, *rest: int, **more: int) -> int:
        descriptor = opened(path, flags, *rest, **more)
        if not taken and "symcache-scratch-late" in str(path):
            taken.append(path)
            monkeypatch.undo()
            ScratchFolder("faster", temporary).cleanup()  # before the lock was had
        return descriptor

    monkeypatch.setattr(os, "open", open_late)
    with ScratchFolder("late") as folder:
        assert taken
        assert folder not in taken
        assert [p.name for p in temporary.iterdir()] == [Path(folder).name]


@pytest.mark.skipif(memory_folder() is None, reason="no place in memory, or little room there")
def test_a_place_in_memory_is_used_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScratchFolder("test", memory_folder()) as folder:
        kind = subprocess.check_output(["stat", "--file-system", "--format=%T", folder], text=True)
        assert kind.strip() == "tmpfs"
    assert not Path(folder).exists()
    monkeypatch.setattr("symcache.scratch._LEAST_ROOM", 1 << 62)
    assert memory_folder() is None
