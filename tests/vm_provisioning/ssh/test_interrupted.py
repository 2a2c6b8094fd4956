"""Signals at the worst moment: what was begun in the guest, or by a driver, is still known and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paramiko
import pytest

from symcache_provisioning import SshSession, SshSource
from symcache_provisioning.drivers.programs import Program
from symcache_provisioning.extractors.dyld_shared_cache_util import CacheUtil
from symcache_provisioning.interrupts import Interrupted, Interrupts
from symcache_provisioning.ssh.session import RemoteOutput
from tests.support.openssh import OpenSshServer
from tests.support.waiting import until
from tests.vm_provisioning.conftest import session_of


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _tool(folder: Path, text: str) -> str:
    tool = folder / "dyld_shared_cache_util"
    tool.write_text(f"#!/bin/sh\n{text}\n")
    tool.chmod(0o755)
    return str(tool)


def test_a_folder_in_the_guest_is_known_before_a_signal_is_heeded(
    source: SshSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    run = SshSession.run

    def hit(self: SshSession, argv: Sequence[str], **options: Any) -> RemoteOutput:
        output = run(self, argv, **options)
        if argv[0].endswith("mktemp"):
            made.append(Path(output.stdout.decode().strip()))
            assert made[0].is_dir()
            _terminate()
        return output

    monkeypatch.setattr(SshSession, "run", hit)
    with (
        pytest.raises(Interrupted),
        Interrupts(),
        CacheUtil(source, _tool(tmp_path, "exit 3")).extract("/cache", 0),
    ):
        pass
    assert not made[0].exists()


def test_a_second_signal_does_not_keep_a_folder_from_being_removed(
    source: SshSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SshSession.run

    def hit(self: SshSession, argv: Sequence[str], **options: Any) -> RemoteOutput:
        if argv[0].endswith("rm"):
            _terminate()
        return run(self, argv, **options)

    monkeypatch.setattr(SshSession, "run", hit)
    mark = tmp_path / "folder"
    tool = CacheUtil(source, _tool(tmp_path, f'echo "$2" > {mark}'))
    with pytest.raises(Interrupted), Interrupts(), tool.extract("/cache", 0):
        _terminate()
    assert not Path(mark.read_text().strip()).exists()


def test_a_tool_that_takes_its_time_to_end_leaves_nothing(source: SshSource, tmp_path: Path) -> None:
    """One that is told to end may still write what it has begun."""
    mark, ended = tmp_path / "folder", tmp_path / "ended"
    tool = _tool(
        tmp_path,
        f"folder=$2; trap 'sleep 1; mkdir -p \"$folder/usr\"; touch {ended}; exit 1' TERM\n"
        f'echo "$2" > {mark}.part; mv {mark}.part {mark}; while :; do sleep 0.1; done',
    )

    def interrupt() -> None:
        until(mark.exists)
        _terminate()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted), Interrupts(), CacheUtil(source, tool).extract("/cache", 0):
        pass
    assert ended.exists()
    assert not Path(mark.read_text().strip()).exists()


def test_programs_that_end_at_once_do_not_end_the_connection(
    openssh: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where this thread is not run for a moment just before it sends that there is no input."""
    send = paramiko.Transport._send_user_message

    def late(self: paramiko.Transport, message: paramiko.Message) -> None:
        if message.asbytes()[:1] == paramiko.common.cMSG_CHANNEL_EOF and threading.current_thread() is not self:
            pause.wait(0.5)
        send(self, message)

    monkeypatch.setattr(paramiko.Transport, "_send_user_message", late)
    pause = threading.Event()
    with session_of(openssh) as session:
        for word in ("one", "two", "three"):
            assert session.run(["/bin/echo", word]).stdout.decode() == f"{word}\n"
            assert not pause.wait(0.2)  # what the server thinks of it is heard a moment later
            assert session.connected


def test_a_signal_within_popen_itself_leaves_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "drive"
    script.write_text("#!/bin/sh\nexec sleep 300\n")
    script.chmod(0o755)
    start = subprocess.Popen.__init__

    class Lock:
        """Of what waits for a process; a signal comes as soon as it is held."""

        def __init__(self) -> None:
            self._lock, self._told = threading.Lock(), False

        def acquire(self, blocking: bool = True) -> bool:
            got = self._lock.acquire(blocking)
            if not self._told:
                self._told = True
                _terminate()
            return got

        def release(self) -> None:
            self._lock.release()

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(self, *_: object) -> None:
            self.release()

    def made(self: subprocess.Popen[bytes], *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        self._waitpid_lock = Lock()  # type: ignore[attr-defined]

    monkeypatch.setattr(subprocess.Popen, "__init__", made)
    with pytest.raises(Interrupted), Interrupts():
        Program(str(script), hint="make it").run("list", timeout=30)
