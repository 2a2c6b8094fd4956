"""The stand-in host: a real SSH server to OpenSSH's own clients, and shut in its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from symcache.demo.guest_files import GuestFiles
from symcache.demo.standin import StandInHost
from symcache.errors import HostKeyError, RemoteError
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshTarget
from symcache_provisioning.ssh.login import Timeouts
from symcache_provisioning.ssh.packets import NoAccessError
from tests.support.openssh import keygen, need_openssh
from tests.support.systems import BUILD, make_system

_TOOL = "/usr/local/bin/dyld_shared_cache_util"
_CACHE = "/System/Cryptexes/OS/System/Library/dyld/dyld_shared_cache_arm64e"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInHost]:
    root = make_system(tmp_path_factory.mktemp("standin") / "root", caches=("arm64e",))
    (root.parent / "secret").write_text("not yours")
    (root / "out").symlink_to("../secret")
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "loop").symlink_to("loop")
    (root / "link").symlink_to("/usr/bin/tool")
    os.mkfifo(root / "fifo")
    with StandInHost(root) as started:
        yield started


@pytest.fixture
def session(host: StandInHost) -> Iterator[SshSession]:
    target = SshTarget(host.address, host.username, host.port)
    with SshSession(target, trust=HostKeyTrust(host.fingerprint), login=Login(host.identity_file)) as connected:
        yield connected


def options(host: StandInHost, tmp_path: Path) -> list[str]:
    need_openssh()
    known = tmp_path / "known_hosts"
    scanned = subprocess.run(
        ["ssh-keyscan", "-p", str(host.port), host.address], check=True, capture_output=True, text=True
    ).stdout
    known.write_text(scanned)
    assert host.fingerprint in keygen("-lf", str(known))
    return ["-F", "none", "-q", "-i", str(host.identity_file), "-o", f"UserKnownHostsFile={known}"]


def test_openssh_runs_programs_there(host: StandInHost, tmp_path: Path) -> None:
    command = ["ssh", *options(host, tmp_path), "-p", str(host.port), f"{host.username}@{host.address}"]
    ran = subprocess.run([*command, "/bin/sh -c 'exec /usr/bin/sw_vers'"], check=True, capture_output=True, text=True)
    assert ran.stdout == f"ProductName:\t\tmacOS\nProductVersion:\t\t28.0\nBuildVersion:\t\t{BUILD}\n"
    failed = subprocess.run([*command, "/bin/ls"], check=False, capture_output=True, text=True)
    assert failed.returncode == 2


def test_openssh_fetches_files(host: StandInHost, tmp_path: Path) -> None:
    target = f"{host.username}@{host.address}:{_CACHE}"
    command = ["sftp", *options(host, tmp_path), "-P", str(host.port), target, str(tmp_path / "got")]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "got").read_bytes() == host.files.place(_CACHE).read_bytes()


def test_another_key_is_refused(host: StandInHost, tmp_path: Path) -> None:
    key = tmp_path / "id"
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(key))
    target, once = SshTarget(host.address, host.username, host.port), Timeouts(attempts=1)
    with pytest.raises(RemoteError, match="did not accept the key"):
        SshSession(target, trust=HostKeyTrust(host.fingerprint), login=Login(key), timeouts=once).connect()
    with pytest.raises(HostKeyError):
        SshSession(target, trust=HostKeyTrust("SHA256:" + "A" * 43), login=Login(key), timeouts=once).connect()


@pytest.mark.parametrize("path", [b"/out", b"/absolute", b"/../secret", b"/usr/../../secret", b"/loop", b"/fifo", b"/"])
def test_nothing_outside_and_nothing_but_files_can_be_opened(session: SshSession, path: bytes) -> None:
    with pytest.raises(RemoteError):
        list(session.sftp.read(path, 0, 10))


def test_links_lead_to_files_inside(session: SshSession) -> None:
    assert b"".join(d for _, d in session.sftp.read(b"/link", 0, 4)) == bytes.fromhex("cffaedfe")
    assert session.sftp.readlink(b"/link") == b"/usr/bin/tool"


def test_it_is_read_only(host: StandInHost, tmp_path: Path) -> None:
    before = sorted(host.files.root.rglob("*"))
    batch = tmp_path / "batch"
    (tmp_path / "new").write_text("new")
    lines = [f"-put {tmp_path}/new /usr/lib/new", "-rm /usr/bin/tool", "-mkdir /usr/new", "-rename /usr/bin /usr/other"]
    batch.write_text("\n".join([*lines, "-symlink /etc /usr/etc", "-chmod 777 /usr/bin/tool"]) + "\n")
    command = ["sftp", *options(host, tmp_path), "-P", str(host.port), "-b", str(batch)]
    subprocess.run([*command, f"{host.username}@{host.address}"], check=False, capture_output=True)
    assert sorted(host.files.root.rglob("*")) == before
    assert host.files.place("/usr/bin/tool").stat().st_mode & 0o777 != 0o777


@pytest.mark.parametrize(
    "argv",
    [
        ["/bin/rm", "-rf", "/usr"],
        ["/bin/rm", "-rf", "/tmp/../usr"],
        ["/bin/rm", "-rf", "/tmp"],
        ["/usr/bin/mktemp", "-d", "/usr/lib/x.XXXXXX"],
        ["/usr/bin/mktemp", "-d", "/tmp/../usr/x.XXXXXX"],
        [_TOOL, "-extract", "/usr/lib", _CACHE],
        [_TOOL, "-extract", "/tmp/../../out", _CACHE],
        [_TOOL, "-list", "/../secret"],
        ["/bin/cat", "/etc/passwd"],
        ["/bin/df", "-kP", "/nowhere"],
    ],
)
def test_programs_write_below_tmp_only(host: StandInHost, session: SshSession, argv: list[str]) -> None:
    def everything() -> list[Path]:
        return sorted(p for p in host.files.root.parent.rglob("*") if p.name != "tmp")

    before = everything()
    assert session.run(argv).status != 0
    assert everything() == before


def test_the_tool_extracts_into_a_folder_of_its_own(host: StandInHost, session: SshSession) -> None:
    made = session.run(["/usr/bin/mktemp", "-d", "/tmp/symcache.XXXXXXXXXX"])
    folder = made.stdout.decode().strip()
    assert session.run([_TOOL, "-extract", folder, _CACHE]).status == 0
    assert (host.files.place(folder) / "usr/lib/libSystem.B.dylib").is_file()
    assert session.run(["/bin/rm", "-rf", folder]).status == 0
    assert not host.files.place(folder).exists()


def test_without_the_tool_it_is_as_a_mac_comes(host: StandInHost) -> None:
    with StandInHost(host.files.root, util=False) as bare:
        target = SshTarget(bare.address, bare.username, bare.port)
        with SshSession(target, trust=HostKeyTrust(bare.fingerprint), login=Login(bare.identity_file)) as session:
            assert session.run([_TOOL]).status == 127


def test_with_a_layout_it_is_closed_where_a_mac_is(tmp_path: Path) -> None:
    (tmp_path / "root/usr/lib").mkdir(parents=True)
    (tmp_path / "root/usr/lib/libc.dylib").write_bytes(b"code")
    (tmp_path / "root/usr/lib/libc.dylib").chmod(0o600)  # as an installer with another umask leaves it
    protected = b"/System/Library/Templates/Data/Library/Application Support/com.apple.TCC"
    with StandInHost(tmp_path / "root", layout="26") as host:
        target = SshTarget(host.address, host.username, host.port)
        with SshSession(target, trust=HostKeyTrust(host.fingerprint), login=Login(host.identity_file)) as session:
            assert b"".join(d for _, d in session.sftp.read(b"/usr/lib/libc.dylib", 0, 4)) == b"code"
            assert session.sftp.lstat(b"/usr/bin/sudo").mode & 0o7777 == 0o4511
            for closed in (b"/usr/bin/sudo", b"/private/var/root/x"):
                with pytest.raises(NoAccessError):
                    list(session.sftp.read(closed, 0, 4))
            assert session.sftp.lstat(protected).mode & 0o777 == 0o755
            with pytest.raises(NoAccessError):
                list(session.sftp.scan(protected))
            assert session.sftp.readlink(b"/tmp") == b"private/tmp"
            assert session.sftp.readlink(b"/System/Volumes/Data/usr/local") == b"../../../../usr/local"
            assert session.run(["/usr/sbin/sysctl", "-n", "hw.model"]).stdout == b"Mac15,12\n"
            assert session.run(["/bin/df", "--portability"]).status == 64


def test_it_leaves_nothing_running(host: StandInHost, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(host.files.root / "usr", root / "usr")
    with StandInHost(root) as short:
        port, key = short.port, short.identity_file
        assert key.stat().st_mode & 0o077 == 0
    assert not key.exists()
    target = SshTarget(short.address, short.username, port)
    with pytest.raises(RemoteError, match="cannot be reached"):
        SshSession(target, trust=HostKeyTrust(short.fingerprint), timeouts=Timeouts(attempts=1)).connect()


def test_paths_end_at_the_folder(tmp_path: Path) -> None:
    (tmp_path / "root/a").mkdir(parents=True)
    files = GuestFiles(tmp_path / "root")
    assert files.place("/../../etc") == tmp_path / "root/etc"
    assert files.place("a/../../..") == tmp_path / "root"
    assert files.guest_path(files.place("/a")) == "/a"
    assert files.guest_path(files.place("/")) == "/"
    assert files.guest_path(files.place("/.file")) == "/.file"
