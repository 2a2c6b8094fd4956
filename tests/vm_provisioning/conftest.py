"""Machines to harvest: real SSH servers, systems on them, and libraries to harvest into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from symcache.library import Library
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshSource, SshTarget
from symcache_provisioning.ssh.login import Timeouts
from tests.support.openssh import OpenSshServer, openssh
from tests.support.systems import make_system, make_util
from tests.support.toolchain import compile_image

__all__ = ["openssh"]

QUICK = Timeouts(connect=60, reply=60, attempts=3, backoff=0.05)
"""Tries again at once; but a busy machine may take its time to answer."""


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system of macOS 13 with two caches and Mach-O files outside of them. Nobody writes into it."""
    return make_system(tmp_path_factory.mktemp("systems") / "ventura")


@pytest.fixture(scope="session")
def util(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dyld_shared_cache_util for the real server."""
    return make_util(tmp_path_factory.mktemp("local") / "bin")


@pytest.fixture(scope="session")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mach-O file to have outside of caches. Nobody writes into it."""
    return compile_image(tmp_path_factory.mktemp("loose"), "libloose.dylib", "int loose(void) { return 1; }")


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", create=True) as opened:
        yield opened


def session_of(server: OpenSshServer, root: Path | str = "", *, port: int | None = None) -> SshSession:
    """Return a session, not yet connected, with a system on the server."""
    return SshSession(
        SshTarget.parse(server.url(root, port)),
        trust=HostKeyTrust(pin=server.fingerprint),
        login=Login(server.identity),
        timeouts=QUICK,
    )


@pytest.fixture
def source(openssh: OpenSshServer, system: Path) -> Iterator[SshSource]:
    """The system as the real server shows it."""
    with session_of(openssh, system) as session:
        yield SshSource(session)
