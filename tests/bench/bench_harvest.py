"""Getting files off a machine: one large file against OpenSSH's sftp, a tree of small ones against tar over ssh.

Both over loopback to the same OpenSSH server, with the peers' default settings, contents that do not compress.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

from symcache_provisioning import HostKeyTrust, Login, SshSession, SshSource, SshTarget
from tests.bench.harness import Row, compare
from tests.support.openssh import OpenSshServer

_LARGE = 1 << 30
_FILES, _SMALL = 3000, 100_000
_PER_FOLDER = 30
_MACHO = bytes.fromhex("cffaedfe")


def run(scratch: Path) -> list[Row]:
    """Return megabytes a second."""
    server = OpenSshServer(scratch / "server")
    server.start()
    try:
        return [_large(server, scratch), _tree(server, scratch)]
    finally:
        server.stop()


def _session(server: OpenSshServer, root: Path) -> SshSession:
    target = SshTarget.parse(server.url(root))
    return SshSession(target, trust=HostKeyTrust(server.fingerprint), login=Login(server.identity))


def _options(server: OpenSshServer) -> list[str]:
    known = server.folder / "known_hosts"
    known.write_text(server.known_hosts_line())
    return ["-q", "-F", "none", "-i", str(server.identity), "-o", f"UserKnownHostsFile={known}"]


def _large(server: OpenSshServer, scratch: Path) -> Row:
    root, target = scratch / "large", scratch / "fetched"
    (root / "usr").mkdir(parents=True)
    with (root / "usr/cache").open("wb") as file:
        for _ in range(_LARGE >> 20):
            file.write(os.urandom(1 << 20))

    def ours() -> None:
        with _session(server, root) as session:
            source = SshSource(session)
            entry = source.lstat("/usr/cache")
            assert entry is not None
            source.fetch(entry, target / "ours")

    def sftp() -> None:
        remote = f"{server.user}@{server.address}:{root}/usr/cache"
        command = ["sftp", *_options(server), "-P", str(server.port), remote, str(target / "sftp")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    row = compare(
        "harvest one file of 1 GB over SSH",
        ours,
        "sftp",
        sftp,
        amount=_LARGE / 1e6,
        unit="MB/s",
        at_least=0.8,
        prepare=lambda: _empty(target),
    )
    shutil.rmtree(root)
    _empty(target)
    return row


def _tree(server: OpenSshServer, scratch: Path) -> Row:
    root, target = scratch / "tree", scratch / "fetched"
    content = random.Random(1).randbytes(_SMALL)
    for number in range(_FILES):
        folder = root / "usr/lib" / str(number // _PER_FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        shift = number * 7 % _SMALL
        (folder / f"lib{number}.dylib").write_bytes(_MACHO + content[shift:] + content[:shift])

    def ours() -> None:
        with _session(server, root) as session:
            source = SshSource(session)
            found = ((entry, target / f"{n}") for n, entry in enumerate(source.mach_o_files()))
            assert sum(isinstance(file, Path) for _, file in source.fetch_all(found)) == _FILES

    def tar() -> None:
        command = ["ssh", *_options(server), "-p", str(server.port), f"{server.user}@{server.address}"]
        with subprocess.Popen([*command, f"tar -C {root} -cf - ."], stdout=subprocess.PIPE) as sender:
            subprocess.run(["tar", "-C", str(target), "-xf", "-"], check=True, stdin=sender.stdout)
        assert sender.returncode == 0

    return compare(
        "harvest a tree of 3,000 files over SSH",
        ours,
        "tar over ssh",
        tar,
        amount=_FILES * _SMALL / 1e6,
        unit="MB/s",
        at_least=0.8,
        prepare=lambda: _empty(target),
    )


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
