"""Sessions with real SSH servers that grant little."""

from __future__ import annotations

import os
import pwd
import threading
from pathlib import Path
from typing import Any

import pytest

from symcache.errors import RemoteError, UsageError
from symcache_provisioning import SshSource
from symcache_provisioning.extractors.dyld_shared_cache_util import CacheUtil
from tests.support.openssh import OpenSshServer, need_openssh
from tests.support.waiting import until
from tests.vm_provisioning.conftest import session_of


def test_a_host_that_grants_one_channel_to_a_connection_is_enough(tmp_path: Path) -> None:
    need_openssh()
    server = OpenSshServer(tmp_path / "server", options=["MaxSessions 1"])
    server.start()
    tool = tmp_path / "dyld_shared_cache_util"
    tool.write_text('#!/bin/sh\nmkdir "$2/usr"\n')
    tool.chmod(0o755)
    try:
        with session_of(server) as session:
            source = SshSource(session)
            for _ in range(2):  # beside the channel of SFTP, which stays open
                assert source.lstat(str(tool)) is not None
                assert source.run(["/bin/echo", "hello"]).stdout == b"hello\n"
                with CacheUtil(source, str(tool)).extract("/cache", 0) as (extracted, _):
                    assert b"usr" in [name for name, _ in extracted.scan("/")]
            session.upload(tool, str(tmp_path / "uploaded"))
            assert (tmp_path / "uploaded").read_bytes() == tool.read_bytes()
            assert (tmp_path / "uploaded").stat().st_mode & 0o777 == 0o600
            with pytest.raises(RemoteError, match="uploaded cannot be written: "):
                session.upload(tool, str(tmp_path / "uploaded"))
            assert server.log.read_text().count("Accepted publickey") <= 4
        with session_of(server) as session:
            before = server.log.read_text().count("Accepted publickey")
            channels: list[Any] = []
            for further in range(4):
                channels.append(session._open_channel())
                assert server.log.read_text().count("Accepted publickey") == before + further
            with pytest.raises(RemoteError, match="opens no channel"):
                session._open_channel()
    finally:
        server.stop()


def test_a_host_that_grants_no_channel_at_all_is_told(tmp_path: Path) -> None:
    need_openssh()
    server = OpenSshServer(tmp_path / "server", options=["MaxSessions 0"])
    server.start()
    try:
        with session_of(server) as session:
            with pytest.raises(RemoteError, match="opens no channel") as raised:
                session.run(["/bin/echo"])
            assert "MaxSessions" in raised.value.hint
            with session.running(["/bin/sleep", "9"]):
                pass  # which is no error
    finally:
        server.stop()


@pytest.mark.parametrize("watched", [False, True])
def test_what_the_login_shell_says_as_it_starts_is_not_taken_for_the_programs(tmp_path: Path, watched: bool) -> None:
    need_openssh()
    shell = Path(pwd.getpwuid(os.getuid()).pw_shell).name
    if shell not in ("bash", "zsh"):
        pytest.skip(f"{shell} reads no file as it starts: needs an account with bash or zsh")
    (tmp_path / ".zshenv").write_text("echo 'nvm: no such version' >&2\n")
    files = f"BASH_ENV={tmp_path}/.zshenv ZDOTDIR={tmp_path}"
    server = OpenSshServer(tmp_path / "server", options=[f"SetEnv {files}"])
    server.start()
    try:
        with session_of(server) as session:
            said = session.run(["/bin/ls", "/nonexistent"], watched=watched).stderr
            assert said.startswith(b"/bin/ls: cannot access '/nonexistent'")
            assert session.run(["/bin/echo", "x"], watched=watched).stderr == b""
    finally:
        server.stop()


def test_a_program_that_a_signal_ends_is_told_from_one_that_is_cut_off(openssh: OpenSshServer) -> None:
    with session_of(openssh) as session:
        ended = session.run(["/bin/sh", "-c", "echo so far; kill -9 $$"])
        assert (ended.stdout, ended.status) == (b"so far\n", -1)
        assert session.run(["/bin/sh", "-c", "exit 3"]).status == 3


def test_a_program_is_given_up_in_its_time_and_runs_to_its_end(openssh: OpenSshServer, tmp_path: Path) -> None:
    script = f"while [ ! -e {tmp_path}/gate ]; do sleep 0.05; done; touch {tmp_path}/ended"
    with session_of(openssh) as session:
        with pytest.raises(RemoteError, match="/bin/sh did not finish in its time"):
            session.run(["/bin/sh", "-c", script], timeout=0.1)
        (tmp_path / "gate").touch()
        until((tmp_path / "ended").exists)


def test_a_program_has_no_input(openssh: OpenSshServer) -> None:
    with session_of(openssh) as session:
        assert session.run(["/bin/cat"]).stdout == b""


@pytest.mark.parametrize("argv", [[], ["ls"], ["bin/ls"]])
def test_programs_are_named_by_their_absolute_path(argv: list[str], openssh: OpenSshServer) -> None:
    with pytest.raises(UsageError, match="absolute path"):
        session_of(openssh).run(argv)


def test_requests_that_were_answered_are_waited_for_no_more(openssh: OpenSshServer) -> None:
    """Or the channel would be closed when their time is over."""
    with session_of(openssh) as session:
        session.sftp.lstat(b"/")
        session.run(["/bin/echo"])
        until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
