"""Who is believed: pins, known_hosts files, trust on first use, and logins that are refused."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest

from symcache.errors import HostKeyError, RemoteError, StorageError, UsageError
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshTarget
from symcache_provisioning.ssh.known_hosts import known_keys
from symcache_provisioning.ssh.probe import server_host_key, speaks_ssh
from tests.support.openssh import OpenSshServer, keygen, need_openssh
from tests.support.waiting import until
from tests.vm_provisioning.conftest import QUICK


def session(
    server: OpenSshServer, trust: HostKeyTrust, login: Login | None = None, announced: list[str] | None = None
) -> SshSession:
    return SshSession(
        SshTarget.parse(server.url()),
        trust=trust,
        login=login or Login(server.identity),
        timeouts=QUICK,
        announce=(announced if announced is not None else []).append,
    )


@pytest.fixture
def renewed(openssh: OpenSshServer, tmp_path: Path) -> Iterator[OpenSshServer]:
    """A server of its own, whose host key a test may change."""
    need_openssh()
    server = OpenSshServer(tmp_path / "renewed")
    server.start()
    yield server
    server.stop()


def test_a_host_that_nobody_knows_is_refused(openssh: OpenSshServer, tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(HostKeyError, match="is not known here") as raised:
        session(openssh, HostKeyTrust(store=tmp_path / "store")).connect()
    until(lambda: set(threading.enumerate()) <= threads, "a connection goes on")
    assert openssh.fingerprint in str(raised.value)
    assert f"--host-key {openssh.fingerprint}" in raised.value.hint
    assert not (tmp_path / "store").exists()


def test_what_a_server_shows_is_told_without_a_login(openssh: OpenSshServer) -> None:
    threads = set(threading.enumerate())
    assert server_host_key("127.0.0.1", openssh.port) == openssh.fingerprint
    until(lambda: set(threading.enumerate()) <= threads, "a connection goes on")


def test_only_an_ssh_server_is_one(openssh: OpenSshServer) -> None:
    assert speaks_ssh("127.0.0.1", openssh.port, 10)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for said in (b"SSH/2.0", b""):
            with ThreadPoolExecutor() as pool:
                asked = pool.submit(speaks_ssh, "127.0.0.1", port, 10)
                with listener.accept()[0] as connection:
                    connection.sendall(said)
                assert asked.result() is False
    assert speaks_ssh("127.0.0.1", port, 10) is False
    with pytest.raises(RemoteError, match=f"port {port} shows no host key: .*refused"):
        server_host_key("127.0.0.1", port)


def test_the_right_pin_is_enough(openssh: OpenSshServer) -> None:
    with session(openssh, HostKeyTrust(openssh.fingerprint)) as connected:
        assert connected.run(["/bin/echo", "hello"]).stdout == b"hello\n"


def test_a_wrong_pin_is_refused_whatever_is_known_otherwise(openssh: OpenSshServer, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(openssh.known_hosts_line())
    pin = keygen("-lf", str(openssh.stranger)).split()[1]
    with pytest.raises(HostKeyError, match="not the host that was pinned"):
        session(openssh, HostKeyTrust(pin, trust_new=True, known_hosts=(known,))).connect()


@pytest.mark.parametrize("pin", ["SHA256:short", "MD5:aa:bb", "", "SHA256:" + "!" * 43])
def test_what_is_no_fingerprint_is_wrong_use(pin: str) -> None:
    with pytest.raises(UsageError, match="not the fingerprint of a host key"):
        HostKeyTrust(pin)


def test_the_users_known_hosts_are_believed(openssh: OpenSshServer, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(
        "# a comment\n\n@revoked * ssh-rsa AAAA\nbroken ssh-rsa AAAA\n* nonsense\n" + openssh.known_hosts_line()
    )
    with session(openssh, HostKeyTrust(known_hosts=(known,))) as connected:
        assert connected.connected


@pytest.mark.parametrize("trust_new", [False, True])
def test_a_revoked_key_is_refused_though_it_is_known(trust_new: bool, openssh: OpenSshServer, tmp_path: Path) -> None:
    known, store = tmp_path / "known_hosts", tmp_path / "store"
    kind, key = openssh.known_hosts_line().split()[1:]
    known.write_text(openssh.known_hosts_line() + f"@revoked * {kind} {key}\n")
    with pytest.raises(HostKeyError, match="marks as revoked"):
        session(openssh, HostKeyTrust(trust_new=trust_new, known_hosts=(known,), store=store)).connect()
    assert not store.exists()


def test_a_revoked_key_makes_its_host_one_that_nobody_knows(openssh: OpenSshServer, tmp_path: Path) -> None:
    """What the host has in its place may be trusted anew."""
    known = tmp_path / "known_hosts"
    kind, key = openssh.stranger.with_suffix(".pub").read_text().split()[:2]
    known.write_text(f"{openssh.known_hosts_line().split()[0]} {kind} {key}\n@revoked * {kind} {key}\n")
    with pytest.raises(HostKeyError, match="is not known here"):
        session(openssh, HostKeyTrust(known_hosts=(known,))).connect()


def test_the_key_that_was_expected_is_named(openssh: OpenSshServer, tmp_path: Path) -> None:
    """That of the same type, if there is one."""
    known, other = tmp_path / "known_hosts", tmp_path / "ecdsa"
    keygen("-q", "-t", "ecdsa", "-N", "", "-f", str(other))
    host = openssh.known_hosts_line().split()[0]
    text = ""
    for key in (other, openssh.stranger):
        text += f"{host} {' '.join(Path(f'{key}.pub').read_text().split()[:2])}\n"
        known.write_text(text)
        with pytest.raises(HostKeyError, match="is not the host we know") as raised:
            session(openssh, HostKeyTrust(known_hosts=(known,))).connect()
        kind, expected = text.split()[-2], keygen("-lf", str(key)).split()[1]
        assert str(raised.value).endswith(f"where the {kind} key {expected} was expected")


def test_markers_may_end_with_a_tab(openssh: OpenSshServer, tmp_path: Path) -> None:
    """As in OpenSSH's check_markers (hostfile.c)."""
    _, kind, key = openssh.known_hosts_line().split()[:3]
    (tmp_path / "known").write_text(f"@revoked\t*\t{kind}\t{key}\n@cert-authority\tmac\t{kind}\t{key}\n")
    found = known_keys(tmp_path / "known", "mac")
    assert [(k.revoked, k.authority) for k in found] == [(True, False), (False, True)]


def test_markers_that_nobody_here_knows_or_that_mark_nothing_are_skipped(
    openssh: OpenSshServer, tmp_path: Path
) -> None:
    _, kind, key = openssh.known_hosts_line().split()[:3]
    (tmp_path / "known").write_text(f"@revoked\n@strange mac {kind} {key}\n")
    assert known_keys(tmp_path / "known", "mac") == []


def test_what_is_commented_out_is_not_known(openssh: OpenSshServer, tmp_path: Path) -> None:
    _, kind, key = openssh.known_hosts_line().split()[:3]
    (tmp_path / "known").write_text(f"#old,mac {kind} {key}\n  #old,mac {kind} {key}\n")
    assert known_keys(tmp_path / "known", "mac") == []


def test_a_file_that_cannot_be_read_is_not_taken_for_empty(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read: Is a directory"):
        known_keys(tmp_path, "mac")


def test_hashed_names_are_understood(openssh: OpenSshServer, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(openssh.known_hosts_line())
    keygen("-H", "-f", str(known))
    assert "127.0.0.1" not in known.read_text()
    with session(openssh, HostKeyTrust(known_hosts=(known,))) as connected:
        assert connected.connected


def test_trust_on_first_use_is_said_remembered_and_kept_to(renewed: OpenSshServer, tmp_path: Path) -> None:
    store = tmp_path / "data" / "known_hosts"
    said: list[str] = []
    with session(renewed, HostKeyTrust(trust_new=True, store=store), announced=said):
        assert store.stat().st_mode & 0o077 == 0
    assert len(said) == 1
    assert renewed.fingerprint in said[0]
    assert str(store) in said[0]
    with session(renewed, HostKeyTrust(store=store), announced=said):
        pass  # known now, without being asked to trust anybody
    assert len(said) == 1
    renewed.stop()
    old = renewed.fingerprint
    for file in renewed.folder.glob("host_ed25519*"):
        file.unlink()
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(renewed.host_key))
    renewed.start()
    for trust_new in (False, True):  # a changed key is no new host
        with pytest.raises(HostKeyError, match="is not the host we know") as raised:
            session(renewed, HostKeyTrust(trust_new=trust_new, store=store)).connect()
        assert renewed.fingerprint in str(raised.value)
        assert old in str(raised.value)
        assert str(store) in raised.value.hint


def test_trust_is_given_with_and_without_a_place_to_keep_it(openssh: OpenSshServer, tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "file"
    for store, kept in ((None, ""), (file, f", kept in {file}")):
        with session(openssh, HostKeyTrust(trust_new=True, store=store), announced=said) as connected:
            assert connected.host_key == openssh.fingerprint
        assert said.pop().endswith(f"{openssh.fingerprint}{kept}")
    with pytest.raises(StorageError, match="new host key cannot be stored: Not a directory"):
        session(openssh, HostKeyTrust(trust_new=True, store=file / "folder" / "known"), announced=said).connect()
    assert said == []


def test_openssh_reads_what_is_stored(openssh: OpenSshServer) -> None:
    store = platformdirs.user_data_path("symcache") / "known_hosts"
    with session(openssh, HostKeyTrust.for_user(trust_new=True)):
        pass
    assert openssh.known_hosts_line().split()[2] in keygen("-F", f"[127.0.0.1]:{openssh.port}", "-f", str(store))


def test_nothing_is_sent_to_a_host_that_is_not_believed(openssh: OpenSshServer, tmp_path: Path) -> None:
    before = openssh.log.read_text()
    with pytest.raises(HostKeyError):
        session(openssh, HostKeyTrust(store=tmp_path / "none")).connect()
    said = openssh.log.read_text()[len(before) :]
    assert "Accepted" not in said
    assert "Failed publickey" not in said


def test_a_wrong_key_is_refused_in_one_sentence(openssh: OpenSshServer) -> None:
    with pytest.raises(RemoteError, match=r"refused \w+: it did not accept the key") as raised:
        session(openssh, HostKeyTrust(openssh.fingerprint), Login(openssh.stranger)).connect()
    assert "--identity" in raised.value.hint


def test_a_password_that_is_not_set_is_wrong_use(openssh: OpenSshServer) -> None:
    with pytest.raises(UsageError, match="NO_SUCH_VARIABLE holds no password"):
        session(openssh, HostKeyTrust(openssh.fingerprint), Login(password_env="NO_SUCH_VARIABLE")).connect()


def test_nothing_to_log_in_with(openssh: OpenSshServer) -> None:
    with pytest.raises(RemoteError, match=r"agent's keys and those in ~/\.ssh"):
        session(openssh, HostKeyTrust(openssh.fingerprint), Login()).connect()


@pytest.mark.parametrize("form", ["RFC4716", "PEM"])
def test_a_locked_key_says_what_to_do(form: str, openssh: OpenSshServer, tmp_path: Path) -> None:
    key = tmp_path / "locked"
    keygen("-q", "-t", "ecdsa", "-m", form, "-N", "secret", "-f", str(key))
    with pytest.raises(RemoteError, match="protected by a passphrase") as raised:
        session(openssh, HostKeyTrust(openssh.fingerprint), Login(key)).connect()
    assert "ssh-add" in raised.value.hint


@pytest.mark.parametrize("kind", ["public", "text", "missing", "folder"])
def test_what_is_no_private_key_is_wrong_use(kind: str, openssh: OpenSshServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    if kind == "public":
        shutil.copy(openssh.identity.with_suffix(".pub"), key)
    elif kind == "text":
        key.write_text("hello\n")
    elif kind == "folder":
        key.mkdir()
    with pytest.raises(UsageError, match=r"not a private SSH key|no such file|Is a directory") as raised:
        session(openssh, HostKeyTrust(openssh.fingerprint), Login(key)).connect()
    assert str(key) in str(raised.value)


def test_a_host_where_nothing_listens(openssh: OpenSshServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = SshTarget("127.0.0.1", openssh.user, closed.getsockname()[1])
        with pytest.raises(RemoteError, match="cannot be reached: Connection refused") as raised:
            SshSession(target, trust=HostKeyTrust(openssh.fingerprint), timeouts=QUICK).connect()
    assert "Remote Login" in raised.value.hint


_ODD = b"\x14" + bytes(16) + b"\0\0\0\2\xff\xff"
"""A KEXINIT whose first name is not UTF-8."""


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"", "did not complete the SSH handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "did not complete the SSH handshake"),
        (b"SSH-1.0-old\r\n", "speaks no SSH algorithm that is still thought safe"),
        (b"\xff" * 9000, "did not complete the SSH handshake"),
        (b"SSH-2.0-odd\r\n" + struct.pack(">IB", 28, 4) + _ODD + bytes(4), "does not speak SSH as it should"),
        (b"SSH-2.0-cut\r\n", "cannot be reached: it closed the connection"),
    ],
)
def test_what_listens_is_no_ssh_server(greeting: bytes, said: str) -> None:
    def serve(listener: socket.socket) -> None:
        for _ in range(QUICK.attempts):
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.sendall(greeting)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        target = SshTarget("127.0.0.1", "admin", port)
        with pytest.raises(RemoteError) as raised:
            SshSession(target, trust=HostKeyTrust(trust_new=True), timeouts=QUICK).connect()
    assert raised.value.exit_code == 3
    assert str(raised.value).startswith(f"127.0.0.1 port {port} {said}")
    assert str(raised.value).isprintable()
    assert raised.value.hint


def test_a_host_without_sftp(openssh: OpenSshServer, tmp_path: Path) -> None:
    del openssh
    server = OpenSshServer(tmp_path / "bare", sftp="")
    server.start()
    try:
        with session(server, HostKeyTrust(server.fingerprint)) as connected:
            with pytest.raises(RemoteError, match="offers no SFTP") as raised:
                connected.sftp.lstat(b"/")
            assert connected.run(["/bin/echo", "hello"]).stdout == b"hello\n"
        assert "Subsystem sftp" in raised.value.hint
    finally:
        server.stop()


@pytest.mark.parametrize(
    "url",
    [
        *("http://host", "ssh://", "ssh://user:secret@host", "ssh://host:0", "ssh://host:99999", "ssh://ho st"),
        *("ssh://-oProxyCommand=x@host", "ssh://a@-host", "ssh://host/a/../b", "ssh://host/%1b", "ssh://host?x=1"),
    ],
)
def test_urls_that_name_no_host(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        SshTarget.parse(url)
    assert str(raised.value).isprintable()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "target", "shown"),
    [
        ("ssh://admin@mac.example", SshTarget("mac.example", "admin"), "ssh://admin@mac.example"),
        ("ssh://admin@10.0.0.7:2222/", SshTarget("10.0.0.7", "admin", 2222), "ssh://admin@10.0.0.7:2222"),
        (
            "ssh://a@[fe80::1]:22/Volumes/Old%20System",
            SshTarget("fe80::1", "a", 22, "/Volumes/Old System"),
            "ssh://a@[fe80::1]/Volumes/Old System",
        ),
    ],
)
def test_urls_that_do(url: str, target: SshTarget, shown: str) -> None:
    assert SshTarget.parse(url) == target
    assert str(target) == shown
