"""The whole release into a library: from the running system as a folder, and as a guest sees it, over SSH."""

from __future__ import annotations

import shutil
from collections import Counter

from symcache.errors import SymcacheError
from symcache.library import Library
from symcache.verify import Expectations, Level, verify
from symcache_provisioning import (
    DirectorySource,
    HarvestResult,
    HostKeyTrust,
    Login,
    Source,
    SshSession,
    SshSource,
    SshTarget,
    harvest,
)
from symcache_provisioning.ssh.login import Timeouts
from tests.acceptance.mac import GIB, Mac
from tests.acceptance.part import Part, SkippedError

__all__ = ["harvests", "own_login"]

_PLENTY = 80 * GIB
"""With less, raw caches are not kept, and one architecture's library makes room for the next."""
_REMOTE_LOGIN = (
    "turn on System Settings > General > Sharing > Remote Login, and have a key of yours let in (ssh-copy-id),"
    " or name the variable with a password with --password-env"
)
_REST = 3 * GIB
"""Files of a system outside of caches, compressed, and what a harvest keeps beside them."""


def harvests(mac: Mac, part: Part) -> None:
    """One architecture at a time, that of the Mac's own programs last, as other parts use its library."""
    archs = [a for a in dict.fromkeys(c.arch for c, _ in mac.caches()) if a != mac.native_arch] + [mac.native_arch]
    for arch in archs:
        size = sum(c.size for c, _ in mac.caches() if c.arch == arch)
        with part.optional(f"harvest of {arch}"):
            mac.need_time()
            if mac.free < _PLENTY:
                while mac.libraries:
                    shutil.rmtree(mac.libraries.popitem()[1])
            keep = mac.free >= _PLENTY
            mac.need_space(2 * size + (size if keep else 0) + _REST, f"a harvest of {arch}")
            library = mac.work / f"library-{arch}"
            mac.libraries[arch] = library
            with Library.open(library, create=True) as opened:
                _harvest(mac, part, "/", DirectorySource(mac.root), opened, arch, keep=keep)
                with part.optional(f"verify {arch}"), part.timed(f"verify {arch}"):
                    _verify(mac, part, opened, arch)
                with part.optional(f"harvest of {arch} over SSH"):
                    mac.need_time()
                    mac.need_space(3 * size, f"a harvest of {arch} over SSH")
                    with own_login(mac) as session:
                        again = _harvest(mac, part, "ssh", SshSource(session), opened, arch, keep=keep)
                    part.check(not again.stored, "SSH gives other bytes than the folder", arch=arch, files=again.stored)


def own_login(mac: Mac) -> SshSession:
    """Return a session with this Mac. Raises SkippedError where it lets nobody in."""
    options = mac.options
    target = SshTarget.parse(options.ssh or f"ssh://{mac.home.name}@localhost")
    trust = HostKeyTrust(pin=options.host_key, trust_new=options.host_key is None, store=mac.work / "known_hosts")
    session = SshSession(
        target, trust=trust, login=Login(options.identity, options.password_env), timeouts=Timeouts(attempts=2)
    )
    try:
        session.connect()
    except SymcacheError as error:
        session.close()
        raise SkippedError(f"this Mac does not let us in over SSH: {error}", _REMOTE_LOGIN) from error
    return session


def _harvest(
    mac: Mac, part: Part, way: str, source: Source, library: Library, arch: str, *, keep: bool
) -> HarvestResult:
    with part.timed(f"harvest of {arch} from {way}"):
        result = harvest(
            source, library, staging=mac.work / "staging", archs=(arch,), keep_caches=keep, extractor="raw"
        )
    part.row(
        "harvests",
        source=way,
        arch=arch,
        sealed=result.sealed,
        images=result.images,
        new_files=result.stored,
        caches=len(result.caches),
        notes=len(result.notes),
    )
    for cache in result.caches:
        part.row(
            "caches", source=way, path=cache.path, arch=cache.arch, uuid=str(cache.uuid).upper(), images=cache.images
        )
    part.check(result.sealed, "not sealed", source=way, arch=arch)
    for problem in result.problems:
        part.check(False, "problem", source=way, arch=arch, problem=problem)
    for entry in result.missing:
        part.check(False, "missing", source=way, path=entry.path, arch=entry.arch)
    return result


def _verify(mac: Mac, part: Part, library: Library, arch: str) -> None:
    """Hold what was stored against what was listed, to the byte."""
    report = verify(
        library, [mac.release.build], level=Level.BYTES, expectations=Expectations.load(archs=(arch,)), scratch=mac.work
    )
    part.check(report.complete, "not complete", arch=arch)
    for code, count in Counter(finding.code.value for finding in report.findings).items():
        part.row("findings", arch=arch, code=code, count=count)
    for finding in report.findings[:20]:
        part.check(False, f"verify: {finding.code.value}", arch=arch, text=finding.message)
