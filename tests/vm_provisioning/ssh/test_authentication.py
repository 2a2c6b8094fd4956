"""Logging in to real SSH servers that count: what is tried, in which order, and what is said to have been tried."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import paramiko
import pytest

from symcache.errors import RemoteError
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshTarget
from symcache_provisioning.ssh import keys
from symcache_provisioning.ssh.login import load_key
from tests.support import hostile
from tests.support.hostile import HostileHost
from tests.support.openssh import OpenSshServer, keygen, need_openssh
from tests.vm_provisioning.conftest import QUICK

PASSWORD = "correct horse"
BY_PASSWORD = ["PasswordAuthentication yes"]
BY_PAM = ["UsePAM yes", "KbdInteractiveAuthentication yes", "PubkeyAuthentication no"]
"""How macOS asks for passwords: in words, and by PAM."""


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAC_PASSWORD", PASSWORD)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., OpenSshServer]]:
    """Start a server with options of its own."""
    need_openssh()
    servers: list[OpenSshServer] = []

    def start(*options: str, password: str = "") -> OpenSshServer:
        server = OpenSshServer(tmp_path / f"server-{len(servers)}", options=options, password=password)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A real agent with keys that no server knows, and those that a test adds."""
    folder = tmp_path / "agent"
    folder.mkdir()
    said = subprocess.run(["ssh-agent", "-s", "-a", folder / "s"], check=True, capture_output=True, text=True).stdout
    monkeypatch.setenv("SSH_AUTH_SOCK", str(folder / "s"))

    def add(*keys: Path, strangers: int = 0) -> None:
        for number in range(strangers):
            keys = (*keys, folder / f"id_{number}")
            keygen("-q", "-t", "ed25519", "-N", "", "-f", str(keys[-1]))
        subprocess.run(["ssh-add", "-q", *keys], check=True)

    yield add
    pid = re.search(r"SSH_AGENT_PID=(\d+)", said)
    assert pid
    os.kill(int(pid[1]), signal.SIGTERM)


def connect(server: OpenSshServer, login: Login) -> None:
    with SshSession(
        SshTarget.parse(server.url()), trust=HostKeyTrust(server.fingerprint), login=login, timeouts=QUICK
    ) as session:
        assert session.run(["/bin/echo", "in"]).stdout == b"in\n"


def session_of_host(host: HostileHost, login: Login) -> SshSession:
    target = SshTarget("127.0.0.1", "admin", host.port)
    return SshSession(target, trust=HostKeyTrust(host.fingerprint), login=login, timeouts=QUICK)


def refused(server: OpenSshServer, login: Login) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        connect(server, login)
    assert PASSWORD not in f"{raised.value} {raised.value.hint}"
    return raised.value


@pytest.mark.parametrize("options", [BY_PASSWORD, BY_PAM], ids=["password", "pam"])
def test_a_password_that_is_named_comes_before_an_agents_many_keys(
    options: list[str], serve: Callable[..., OpenSshServer], agent: Callable[..., None]
) -> None:
    server = serve(*options, "MaxAuthTries 2", password=PASSWORD)
    agent(strangers=4)
    connect(server, Login(password_env="MAC_PASSWORD"))
    assert "Failed publickey" not in server.log.read_text()


def test_a_key_that_is_named_comes_first(serve: Callable[..., OpenSshServer]) -> None:
    server = serve(*BY_PASSWORD, "MaxAuthTries 1")
    connect(server, Login(server.identity, password_env="MAC_PASSWORD"))


def test_a_host_that_wants_key_and_password_gets_both(
    serve: Callable[..., OpenSshServer], agent: Callable[..., None]
) -> None:
    server = serve(*BY_PASSWORD, "AuthenticationMethods publickey,password", password=PASSWORD)
    agent(server.identity)
    connect(server, Login(password_env="MAC_PASSWORD"))
    connect(server, Login(server.identity, password_env="MAC_PASSWORD"))


def test_what_was_not_tried_is_not_named(openssh: OpenSshServer, agent: Callable[..., None]) -> None:
    error = refused(openssh, Login(password_env="MAC_PASSWORD"))
    assert str(error).endswith(
        f"refused {openssh.user}: it takes publickey, and your agent's keys and those in ~/.ssh would be tried,"
        " but there are none"
    )
    agent(strangers=2)
    error = refused(openssh, Login(password_env="MAC_PASSWORD"))
    assert str(error).endswith(f"refused {openssh.user}: it did not accept 2 keys of your agent")
    error = refused(openssh, Login(openssh.stranger, password_env="MAC_PASSWORD"))
    assert str(error).endswith(f"it did not accept the key {openssh.stranger}")
    error = refused(openssh, Login(agent=False))
    assert str(error).endswith("it takes publickey, and nothing of that kind was named")


def test_a_wrong_password_is_told_and_kept_secret(
    serve: Callable[..., OpenSshServer], agent: Callable[..., None]
) -> None:
    server = serve(*BY_PASSWORD)
    error = refused(server, Login(server.stranger, password_env="MAC_PASSWORD"))
    assert f"it accepted neither the key {server.stranger} nor the password in MAC_PASSWORD" in str(error)
    assert server.log.read_text().count("Failed password") == 1
    agent(strangers=2)
    error = refused(server, Login(password_env="MAC_PASSWORD"))
    assert str(error).endswith("it accepted neither the password in MAC_PASSWORD nor 2 keys of your agent")


def test_a_password_is_said_once_and_never_where_it_would_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str] = []

    def ask(*_: object) -> paramiko.InteractiveQuery:
        return paramiko.InteractiveQuery("", "", ("User: ", True), ("Password: ", False), ("New password: ", False))

    def take(_: object, responses: list[str]) -> int:
        answers.extend(responses)
        return int(paramiko.AUTH_SUCCESSFUL)

    monkeypatch.setattr(hostile._Server, "get_allowed_auths", lambda *_: "keyboard-interactive")
    monkeypatch.setattr(hostile._Server, "check_auth_interactive", ask)
    monkeypatch.setattr(hostile._Server, "check_auth_interactive_response", take)
    with HostileHost() as host:
        session_of_host(host, Login(password_env="MAC_PASSWORD")).connect()
    assert answers == ["", PASSWORD, ""]


def test_a_host_that_hangs_up_when_it_is_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileHost() as host:
        monkeypatch.setattr(hostile._Server, "check_auth_none", lambda *_: host.connections[-1].close())
        with pytest.raises(
            RemoteError, match=r"refused admin: it would not say how to log in: Authentication failed[^,]*$"
        ):
            session_of_host(host, Login()).connect()


def test_a_connection_that_says_nothing_is_kept_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = threading.Event()
    monkeypatch.setattr(hostile._Server, "check_global_request", lambda *_: kept.set())
    with HostileHost() as host:
        session = session_of_host(host, Login(host.write_key(tmp_path / "id")))
        session.timeouts = dataclasses.replace(QUICK, keepalive=cast(int, 0.05))
        with session:
            assert kept.wait(20)


def test_a_host_that_ends_the_connection_has_it_told_after_how_many_tries(
    serve: Callable[..., OpenSshServer], agent: Callable[..., None]
) -> None:
    server = serve("MaxAuthTries 3")
    agent(strangers=5)
    error = refused(server, Login())
    assert str(error).endswith("it did not accept 3 keys of your agent, and ended the connection")
    assert "after a few tries, and this one had 3" in error.hint
    assert "--identity" in error.hint


def test_a_key_is_offered_once_though_agent_and_folder_have_it(
    serve: Callable[..., OpenSshServer], agent: Callable[..., None]
) -> None:
    server = serve()
    folder = Path("~/.ssh").expanduser()
    folder.mkdir(exist_ok=True)
    for name, passphrase in (("id_ed25519", ""), ("id_ecdsa", "secret")):
        keygen("-q", "-t", name.removeprefix("id_"), "-N", "", "-f", str(folder / name))
        agent(folder / name)
        if passphrase:
            keygen("-q", "-p", "-N", passphrase, "-P", "", "-f", str(folder / name))
    (folder / "id_ed25519.pub").unlink()
    error = refused(server, Login())
    assert str(error).endswith("it did not accept 2 keys of your agent")
    assert "passphrase" not in error.hint
    (folder / "id_ed25519").write_bytes(server.identity.read_bytes())
    connect(server, Login())


def test_keys_of_the_agent_come_before_those_of_the_folder(
    serve: Callable[..., OpenSshServer], agent: Callable[..., None]
) -> None:
    server = serve("MaxAuthTries 1")
    folder = Path("~/.ssh").expanduser()
    folder.mkdir(exist_ok=True)
    (folder / "id_ed25519").write_bytes(server.stranger.read_bytes())
    agent(server.identity)
    connect(server, Login())


def test_keys_in_the_users_folder_let_in_and_locked_ones_are_named(serve: Callable[..., OpenSshServer]) -> None:
    server = serve()
    folder = Path("~/.ssh").expanduser()
    folder.mkdir(exist_ok=True)
    keygen("-q", "-t", "ed25519", "-N", "secret", "-f", str(folder / "id_ed25519"))
    error = refused(server, Login())
    assert str(error) == f"{folder / 'id_ed25519'}: protected by a passphrase"
    keygen("-q", "-t", "ecdsa", "-N", "", "-f", str(folder / "id_ecdsa"))
    error = refused(server, Login())
    assert str(error).endswith(f"it did not accept the key {folder / 'id_ecdsa'}")
    assert f"{folder / 'id_ed25519'} was not tried, as a passphrase protects it" in error.hint
    (folder / "id_rsa").write_text("no key\n")
    (folder / "id_ecdsa.pub").unlink()
    (folder / "id_ecdsa").write_bytes(server.identity.read_bytes())
    connect(server, Login())


def test_an_agent_that_never_answers_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_AGENT_SECONDS", 0.05)
    with ThreadPoolExecutor() as pool, socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "s"))
        agent.listen()
        assert pool.submit(keys.user_agent, str(tmp_path / "s")).result(20) is None


def test_an_agent_may_ask_its_user_for_as_long_as_it_takes(agent: Callable[..., None]) -> None:
    agent(strangers=1)
    found = keys.user_agent("SSH_AUTH_SOCK")
    assert len(found.get_keys()) == 1
    assert found._conn.gettimeout() is None
    found.close()


@pytest.mark.usefixtures("agent")
def test_no_agent_is_none_whatever_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").symlink_to("agent/s")
    assert keys.user_agent("agent/s") is not None
    assert keys.user_agent("none") is None


def test_a_certificate_is_of_its_key_alone(tmp_path: Path) -> None:
    need_openssh()
    for name in ("ca", "mine", "other"):
        keygen("-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    for name in ("mine", "other"):
        keygen("-q", "-s", str(tmp_path / "ca"), "-I", "me", "-n", "admin", str(tmp_path / f"{name}.pub"))
    key = load_key(tmp_path / "mine")
    (tmp_path / "text").write_text("nothing\n")
    certified = keys.with_certificate(keys.without_certificate(key), tmp_path / "mine-cert.pub")
    assert certified.public_blob is not None
    assert keys.without_certificate(certified).public_blob is None
    for name in ("other-cert.pub", "mine.pub", "text", "missing"):
        assert keys.with_certificate(key, tmp_path / name) is None
