"""A real OpenSSH server on loopback: Debian's sshd as the current user, with keys and configuration of its own."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["SFTP_SERVER", "OpenSshServer", "openssh"]

_SSHD = "/usr/sbin/sshd"
SFTP_SERVER = "/usr/lib/openssh/sftp-server"


class OpenSshServer:
    """Started by `start`, ended by `stop`; keys stay the same in between."""

    def __init__(
        self, folder: Path, *, sftp: str = SFTP_SERVER, options: Sequence[str] = (), password: str = ""
    ) -> None:
        """Add `options` to the configuration; with `password`, the user has that one there, and nowhere else."""
        self.folder = folder
        self.user = getpass.getuser()
        self.address = "127.0.0.1"
        self.host_key = folder / "host_ed25519"
        self.identity = folder / "id_ed25519"
        self.stranger = folder / "id_stranger"
        """A key that is not let in."""
        self.log = folder / "sshd.log"
        folder.mkdir(parents=True, exist_ok=True)
        for key in (self.host_key, self.identity, self.stranger):
            keygen("-q", "-t", "ed25519", "-N", "", "-f", str(key))
        shutil.copy(self.identity.with_suffix(".pub"), folder / "authorized_keys")
        self.port = free_port()
        lines = [
            *options,  # the first of a name is the one that counts
            f"ListenAddress {self.address}",
            f"Port {self.port}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            f"PidFile {folder}/sshd.pid",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PrintMotd no",
            "SetEnv SHLVL=2",  # bash: it is not the first, and so reads no ~/.bashrc of whoever runs the tests
            "MaxStartups 100",
            "LogLevel VERBOSE",
            *([f"Subsystem sftp {sftp}"] if sftp else []),
        ]
        self.config = folder / "sshd_config"
        self.config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self._apart: list[str] = []
        """The command that runs another where it sees what `see` was told."""
        if password:
            self._give_password(password)

    def see(self, path: str, text: str) -> None:
        """Have it see a text in the place of a file of the system, from its start on. That needs root."""
        own = self.folder / Path(path).name
        own.write_text(text)
        shutil.copymode(path, own)
        bind = f'mount --bind {shlex.quote(str(own))} {shlex.quote(path)} && exec "$@"'
        self._apart += ["unshare", "--mount", "sh", "-c", bind, "sh"]

    def _give_password(self, password: str) -> None:
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", password], check=True, capture_output=True, text=True
        ).stdout
        self.see("/etc/shadow", f"{self.user}:{hashed.strip()}:20000:0:99999:7:::\n")
        if subprocess.run([*self._apart, "true"], check=False, capture_output=True).returncode:
            pytest.skip("a server cannot be given a password of its own here, which needs root")

    def start(self) -> None:
        """Start and wait until it answers."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd as root locks its children in
        command = [*self._apart, _SSHD, "-D", "-f", str(self.config), "-E", str(self.log)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        wait_for_sshd(self._process, self.address, self.port, self.log)

    def stop(self) -> None:
        """End the server; open connections are ended by whoever made them."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    @property
    def fingerprint(self) -> str:
        """Of the host key, as ssh-keygen prints it."""
        return keygen("-lf", str(self.host_key)).split()[1]

    def known_hosts_line(self) -> str:
        """Return the line that makes the server known to an SSH client."""
        kind, key, *_ = self.host_key.with_suffix(".pub").read_text().split()
        return f"[{self.address}]:{self.port} {kind} {key}\n"

    def url(self, root: Path | str = "", port: int | None = None) -> str:
        """Return the URL of a harvest of the folder `root` on this server."""
        return f"ssh://{self.user}@{self.address}:{port or self.port}{root}"

    def login(self) -> list[str]:
        """Return the options of `symcache harvest` that let it in."""
        return ["--identity", str(self.identity), "--host-key", self.fingerprint]


def wait_for_sshd(process: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    """Wait until an SSH server answers. Raises RuntimeError, with the end of its log, if it ends instead."""

    def answers_or_ended() -> bool:
        try:
            with socket.create_connection((address, port), timeout=5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return process.poll() is not None

    until(answers_or_ended, "sshd does not answer")
    if process.poll() is not None:
        raise RuntimeError(f"sshd did not start: {log.read_text()[-2000:]}")


def keygen(*arguments: str) -> str:
    """Run ssh-keygen and return what it prints."""
    return subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True, text=True).stdout


def need_openssh() -> None:
    """Skip, with the reason, where OpenSSH is not installed."""
    if not Path(_SSHD).exists() or not shutil.which("ssh-keygen"):
        pytest.skip("not installed: openssh-server openssh-client (apt-get install openssh-server openssh-client)")


@pytest.fixture(scope="session")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSshServer]:
    """One server for the whole session, killed at its end."""
    need_openssh()
    server = OpenSshServer(tmp_path_factory.mktemp("sshd") / "server")
    server.start()
    try:
        yield server
    finally:
        server.stop()
