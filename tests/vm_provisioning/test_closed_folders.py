"""Folders that this user may not look into: what may hold the release is a problem, anything else a note."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from symcache.library import Library
from symcache_provisioning import DirectorySource, SshSource, harvest
from tests.support.openssh import SFTP_SERVER, OpenSshServer, need_openssh
from tests.support.permissions import bound_by_modes, bound_command
from tests.support.systems import CACHE_FOLDER, make_system
from tests.vm_provisioning.conftest import session_of

_CRYPTEXES = "System/Volumes/Preboot/Cryptexes"
_OLD_FOLDER = "System/Library/dyld"
CLOSED = [
    (_CRYPTEXES, 0o000),
    (f"{_CRYPTEXES}/OS", 0o000),
    (f"{_CRYPTEXES}/OS/System", 0o600),
    (CACHE_FOLDER, 0o000),
    (CACHE_FOLDER, 0o400),  # its names can be had, but nothing that they name
    ("System/DriverKit/System/Library/dyld", 0o100),
    ("System/Cryptexes/App", 0o000),
    ("usr/lib", 0o000),
]
"""Folders that every user can read on a Mac."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A system with a cache that can be read in any case."""
    root = make_system(tmp_path / "root", caches=("arm64e",), files=False)
    shutil.copytree(root / CACHE_FOLDER, root / _OLD_FOLDER)
    for folder in ("System/DriverKit/System/Library/dyld", "System/Cryptexes/App", "usr/lib/private"):
        (root / folder).mkdir(parents=True)
    yield root
    for folder, _, _ in os.walk(root):  # from the top, so that each can be listed
        Path(folder).chmod(0o755)


@pytest.mark.parametrize(("folder", "mode"), CLOSED)
def test_a_closed_folder_keeps_a_harvest_open(
    folder: str, mode: int, root: Path, library: Library, tmp_path: Path
) -> None:
    (root / folder).chmod(mode)
    with bound_by_modes():
        result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert not result.sealed
    assert result.problems
    for problem in result.problems:
        assert problem.startswith(f"/{folder}")
        assert "not readable for this user: run as a user who may read it" in problem
    (root / folder).chmod(0o755)
    with bound_by_modes():
        assert harvest(DirectorySource(root), library, staging=tmp_path / "staging").sealed


@pytest.mark.parametrize(
    ("place", "mode", "sealed"),
    [
        ("System/Library/CoreServices/Finder.app", 0o700, False),  # everybody runs it
        ("System/Library/Extensions/A.kext/Contents/MacOS", 0o711, False),
        ("System/Library/Extensions/A.kext.data", 0o700, True),
        ("usr/lib/private", 0o700, True),  # the system's own, as on every Mac
        ("usr/lib/private", 0o711, True),
        ("usr/lib/private", 0o000, False),  # no macOS has such
        ("usr/lib/system", 0o700, False),  # an image of the cache belongs there
        ("usr/bin/sudo", 0o4511, True),
        ("usr/bin/sudo", 0o000, False),
    ],
)
def test_what_no_user_of_a_mac_may_read_is_a_note(
    place: str, mode: int, sealed: bool, root: Path, library: Library, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of the system's")
    closed = root / place
    closed.parent.mkdir(parents=True, exist_ok=True)
    if closed.name == "sudo":
        closed.write_bytes(bytes(64))
    else:
        closed.mkdir(exist_ok=True)
    os.chown(closed, 1, 1)  # one of the system's accounts, and not who runs this
    closed.chmod(mode)
    with bound_by_modes():
        result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert result.sealed == sealed
    noted = any(f"/{place}: not readable for this user" in n for n in result.notes)
    assert noted == (mode != 0)
    assert [p.partition(": ")[0] for p in result.problems] == ([] if sealed else [f"/{place}"])


def test_what_is_not_there_is_no_problem(root: Path) -> None:
    shutil.rmtree(root / "System/DriverKit")
    (root / "System/DriverKit").write_text("a file")
    (root / "System/ExclaveKit").symlink_to("/nowhere")
    source = DirectorySource(root)
    assert len(source.caches()) == 1
    assert [*source.problems, *source.notes] == []


@pytest.mark.parametrize(
    ("folder", "sealed"),
    [
        (CACHE_FOLDER, False),
        # As on every Mac since 10.15, for root as well, with modes of 755.
        ("System/Library/Templates/Data/Library/Application Support/com.apple.TCC", True),
        ("System/Library/Templates/Data/private/var/db/oah", True),
    ],
)
def test_where_macos_itself_forbids_it_full_disk_access_is_the_way(
    folder: str, sealed: bool, root: Path, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Privacy protection says EPERM where modes say EACCES."""
    real: Callable[..., Any] = os.scandir
    forbidden = os.fsencode(root / folder)
    (root / folder).mkdir(parents=True, exist_ok=True)

    def scandir(path: Any) -> Any:
        if path == forbidden:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(path)

    monkeypatch.setattr("symcache_provisioning.sources.folder.os.scandir", scandir)
    result = harvest(DirectorySource(root), library, staging=tmp_path / "staging")
    assert result.sealed == sealed
    assert bool([p for p in result.problems if f"/{folder}: " in p and "Full Disk Access" in p]) != sealed
    assert bool([n for n in result.notes if n.startswith(f"/{folder}: ")]) == sealed


@pytest.fixture(scope="module")
def bound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSshServer]:
    """A server whose SFTP obeys modes, whoever runs the tests."""
    need_openssh()
    server = OpenSshServer(tmp_path_factory.mktemp("sshd") / "bound", sftp=bound_command(SFTP_SERVER))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(("folder", "mode"), CLOSED)
def test_the_same_over_ssh(
    folder: str, mode: int, root: Path, bound_server: OpenSshServer, library: Library, tmp_path: Path
) -> None:
    (root / folder).chmod(mode)
    with session_of(bound_server, root) as session:
        result = harvest(SshSource(session), library, staging=tmp_path / "staging", extractor="raw")
    assert not result.sealed
    assert result.problems
    for problem in result.problems:
        assert problem.startswith(f"{root}/{folder}")
        assert f"not readable for this user on {bound_server.address}: log in as a user who may read it" in problem
