"""What we leave in a guest, and for how long: temporary folders, and the program that keeps a Mac awake."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import typer

from symcache.cli import common
from symcache.cli.common import errors_to_exit
from symcache.errors import RemoteError
from symcache.library import Library
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshSource, SshTarget, harvest
from symcache_provisioning.extractors.dyld_shared_cache_util import CacheUtil
from symcache_provisioning.interrupts import Interrupted
from symcache_provisioning.sources import machine
from symcache_provisioning.ssh.guest_folder import guest_folder, sweep_guest_folders
from symcache_provisioning.ssh.session import RemoteOutput
from tests.support.hostile import HostileHost
from tests.support.openssh import OpenSshServer
from tests.support.processes import command_lines
from tests.support.waiting import until
from tests.vm_provisioning.conftest import session_of

_KILLED = """
import os, sys
from pathlib import Path
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshTarget
from symcache_provisioning.ssh.guest_folder import guest_folder

url, key, pin = sys.argv[1:]
with SshSession(SshTarget.parse(url), trust=HostKeyTrust(pin), login=Login(Path(key))) as session:
    with guest_folder("mac", session, session.run, print) as folder:
        print(folder, flush=True)
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def abandoned(openssh: OpenSshServer) -> Iterator[Path]:
    """The folder of a run that was killed."""
    arguments = [openssh.url(), str(openssh.identity), openssh.fingerprint]
    ran = subprocess.run([sys.executable, "-c", _KILLED, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == -9, ran.stderr
    folder = Path(ran.stdout.strip())
    (folder / "usr").mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def test_what_a_killed_run_left_goes_with_the_next_harvest(
    abandoned: Path, openssh: OpenSshServer, system: Path, library: Library, tmp_path: Path
) -> None:
    strange = Path("/tmp/symcache.0123456789")
    strange.mkdir()
    try:
        with (
            session_of(openssh) as other,
            guest_folder("mac", other, other.run, print) as alive,
            session_of(openssh, system) as session,
        ):
            harvest(SshSource(session), library, staging=tmp_path / "staging", extractor="raw", roots=["/usr/bin"])
            assert not abandoned.exists()
            assert Path(alive).exists(), "its run is not over"
            assert strange.exists(), "nobody here made it"
    finally:
        strange.rmdir()
    assert not Path(alive).exists()


def test_another_guest_is_not_asked_to_remove_it(abandoned: Path, openssh: OpenSshServer) -> None:
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> RemoteOutput:
        asked.append(argv)
        return RemoteOutput(b"", b"", 1)

    session = session_of(openssh, port=1)
    sweep_guest_folders(session, run)
    assert asked == []
    sweep_guest_folders(session_of(openssh), run)
    assert asked == [["/bin/rm", "-rf", str(abandoned)]]
    sweep_guest_folders(session_of(openssh), run)
    assert len(asked) == 2, "what could not be removed is tried again"
    records = platformdirs.user_state_path("symcache") / "guest-folders"
    assert records.stat().st_mode & 0o077 == 0
    (record,) = records.iterdir()
    for odd in (records / "0-other", record.with_name(f"{record.name}0")):
        odd.touch()
    sweep_guest_folders(session_of(openssh), run)
    assert asked[2:] == asked[:1], "nothing else is taken for a folder of ours"
    weeks = 7 * 24 * 3600
    for age, known in ((4 * weeks, True), (5 * weeks, False)):
        os.utime(record, (time.time() - age,) * 2)
        sweep_guest_folders(session, run)
        assert len(asked) == 3
        assert record.exists() == known, "nobody knows after a month which guest that was"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("/tmp/symcache.0123456789", 1),
        *((text, 0) for text in ("/etc", "/private/tmp/symcache.0123456789", "0123456789", "", "/tmp/symcache.")),
        *((f"/tmp/symcache.{name}", 0) for name in ("012345678", "01234567890", "../../etcs", "0123456789\n/etc")),
    ],
)
def test_only_a_folder_as_it_was_asked_for_is_ever_removed(said: str, status: int, tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def remove(argv: Sequence[str]) -> RemoteOutput:
        asked.append(argv)
        return RemoteOutput(b"", b"", 0)

    with HostileHost(programs=lambda _: (f"{said}\n".encode(), b"", status)) as host:
        target = SshTarget("127.0.0.1", "admin", host.port)
        login = Login(host.write_key(tmp_path / "id"))
        with (
            SshSession(target, trust=HostKeyTrust(host.fingerprint), login=login) as session,
            pytest.raises(RemoteError, match="mac: mktemp made no folder"),
            guest_folder("mac", session, remove, print),
        ):
            pass
    assert asked == []


def test_a_folder_is_recorded_as_long_as_it_is_there(openssh: OpenSshServer) -> None:
    records = platformdirs.user_state_path("symcache") / "guest-folders"
    left: list[str] = []

    def lost(_: Sequence[str]) -> RemoteOutput:
        raise RemoteError("the connection is lost")

    with session_of(openssh) as session:
        with guest_folder("mac", session, session.run, print), guest_folder("mac", session, lost, left.append) as kept:
            assert len(list(records.iterdir())) == 2
        assert [record.name[-10:] for record in records.iterdir()] == [kept[-10:]]
        assert left == [f"{kept} is left on mac: remove it there"]
        sweep_guest_folders(session, session.run)
    assert not Path(kept).exists()
    assert list(records.iterdir()) == []


def test_a_folder_without_a_record_is_one_all_the_same(openssh: OpenSshServer) -> None:
    state = platformdirs.user_state_path("symcache")
    state.parent.mkdir(parents=True)
    state.write_text("no folder")
    with session_of(openssh) as session, guest_folder("mac", session, session.run, print) as folder:
        assert Path(folder).is_dir()
    assert not Path(folder).exists()


@pytest.mark.parametrize("fails", [True, False])
def test_a_folder_that_cannot_be_removed_is_named(
    fails: bool, source: SshSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "dyld_shared_cache_util"
    tool.write_text(f'#!/bin/sh\necho "$2" > {tmp_path}/folder\nexit {int(fails)}\n')
    tool.chmod(0o755)
    run = SshSource.run

    def refuse(self: SshSource, argv: Sequence[str], **options: Any) -> RemoteOutput:
        return RemoteOutput(b"", b"", 1) if argv[0] == "/bin/rm" else run(self, argv, **options)

    monkeypatch.setattr(SshSource, "run", refuse)
    message = ""
    try:
        with CacheUtil(source, str(tool)).extract("/cache", 0):
            pass
    except RemoteError as error:
        message = str(error)
    monkeypatch.undo()
    folder = (tmp_path / "folder").read_text().strip()
    told = f"{folder} is left on {source.name}: remove it there"
    if fails:
        assert message.endswith(f"; {told}")
        assert "ended with 1" in message
    else:
        assert (message, source.notes) == ("", [told])
    Path(folder).rmdir()


def test_an_interrupted_command_names_it_too(
    source: SshSource, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common.console, "width", 1000)
    refuse = RemoteOutput(b"", b"", 1)
    with (
        pytest.raises(typer.Exit),
        errors_to_exit(),
        guest_folder("mac", source.session, lambda _: refuse, source.notes.append) as folder,
    ):
        raise Interrupted
    Path(folder).rmdir()
    assert f"interrupted; {folder} is left on mac" in capsys.readouterr().err


def test_a_mac_is_kept_awake_while_it_is_harvested(
    source: SshSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "caffeinate"
    program.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/started\nwhile :; do sleep 0.1; done\n")
    program.chmod(0o755)
    started = tmp_path / "started"
    monkeypatch.setattr(machine, "_STAY_AWAKE", (str(program), *machine._STAY_AWAKE[1:]))

    def awake() -> bool:
        return any(str(program) in command for command in command_lines())

    with source.during_harvest():
        until(started.exists)
        assert awake()
        source.session.close()  # as after a loss
        assert source.run(["/bin/echo", "again"]).stdout == b"again\n"
        until(lambda: len(started.read_text().splitlines()) == 2)
    until(lambda: not awake())
    assert started.read_text().splitlines() == ["-i -s"] * 2


def test_a_mac_without_that_program_is_harvested_all_the_same(source: SshSource) -> None:
    with source.during_harvest():
        assert source.run(["/bin/echo", "hello"]).stdout == b"hello\n"
        assert source.lstat("/usr") is not None
