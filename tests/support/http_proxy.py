"""A real HTTP proxy on loopback that wants a password, and an authority whose certificates no system trusts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.support.waiting import until

__all__ = ["Certificates", "HttpProxy", "http_proxy", "make_certificates"]


@dataclass(frozen=True)
class HttpProxy:
    """A proxy process."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        """With the password that it wants."""
        return f"http://user:secret@127.0.0.1:{self.port}"

    def passed(self, line: str) -> int:
        """Return how many requests it let through that its log tells of in this way."""
        return sum(line in each for each in self.log.read_text().splitlines())


@contextlib.contextmanager
def http_proxy(folder: Path) -> Iterator[HttpProxy]:
    """Run proxy.py; the process writes its log, and its port when it listens, into `folder`."""
    port, log = folder / "port", folder / "log"
    command = [
        *(sys.executable, "-m", "proxy", "--port", "0", "--port-file", port, "--log-file", log),
        *("--basic-auth", "user:secret", "--num-workers", "1", "--num-acceptors", "1"),
    ]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        until(lambda: port.exists() and bool(port.read_text().strip()), "the proxy does not start")
        yield HttpProxy(int(port.read_text()), log)
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: the authority's certificate, and certificate and key of 127.0.0.1."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority, and a certificate by it."""
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(made.authority))
    issued.cert_chain_pems[0].write_to_path(str(made.certificate))
    issued.private_key_pem.write_to_path(str(made.key))
    return made
