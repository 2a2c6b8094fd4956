"""A shared cache of 1.7 GB from a machine into the library, against the same by hand, one thing after the other.

By hand is OpenSSH's sftp, then sha256sum and zstd of the raw file, then of its images, which are there already.
"""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path

from symcache.dyld import SharedCache, extract_all
from tests.bench.harness import Row, compare, figure
from tests.bench.measured_harvest import MeasuredHarvest, measured_harvest, size_of
from tests.bench.synthetic_cache import Shape, build
from tests.bench.synthetic_content import OS
from tests.bench.synthetic_files import machine_code
from tests.support.openssh import OpenSshServer

_SHAPE = Shape(images=3400, size=1_700_000_000)
_ROUNDS = 3


def run(scratch: Path) -> list[Row]:
    """Return how fast it is, and what it takes."""
    root = scratch / "root"
    folder = root / "System/Library/dyld"
    folder.mkdir(parents=True)
    cache = build(folder, _SHAPE, machine_code())
    version = root / "System/Library/CoreServices/SystemVersion.plist"
    version.parent.mkdir()
    said = {"ProductName": "macOS", "ProductVersion": f"{OS}.5", "ProductBuildVersion": "25F71"}
    version.write_bytes(plistlib.dumps(said))
    with SharedCache.open(cache) as opened:
        extract_all(opened, scratch / "images")
    server = OpenSshServer(scratch / "server")
    server.start()
    known = scratch / "known_hosts"
    known.write_text(server.known_hosts_line())
    measured: list[MeasuredHarvest] = []

    def ours() -> None:
        host_key = ("--identity", str(server.identity), "--host-key", server.fingerprint)
        measured.append(measured_harvest(server.url(root), scratch, *host_key))
        assert measured[-1].result["images"] == _SHAPE.images, measured[-1].result["problems"]

    def by_hand() -> None:
        out = scratch / "by-hand"
        options = ["-q", "-F", "none", "-i", str(server.identity), "-o", f"UserKnownHostsFile={known}"]
        remote = f"{server.user}@{server.address}:{cache}"
        raw = str(out / "raw")
        subprocess.run(["sftp", *options, "-P", str(server.port), remote, raw], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["sha256sum", raw], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["zstd", "-q", "-3", "-T2", raw], check=True)
        images = str(scratch / "images")
        hashes = f"find {images} -type f -print0 | xargs -0 sha256sum"
        subprocess.run(["sh", "-c", hashes], check=True, stdout=subprocess.DEVNULL)
        mirror = str(out / "compressed")
        subprocess.run(["zstd", "-q", "-3", "-T2", "-r", images, "--output-dir-mirror", mirror], check=True)

    def prepare() -> None:
        for name in ("library", "staging", "home", "by-hand"):
            shutil.rmtree(scratch / name, ignore_errors=True)
        for name in ("library", "staging", "by-hand"):
            (scratch / name).mkdir()

    size = cache.stat().st_size
    try:
        row = compare(
            "harvest a cache of 1.7 GB over SSH",
            ours,
            "sftp, sha256sum, zstd",
            by_hand,
            amount=size / 1e6,
            unit="MB/s",
            at_least=1.0,
            prepare=prepare,
            rounds=_ROUNDS,
        )
        prepare()
        ours()
    finally:
        server.stop()
    last = measured[-1]
    allowed = 1.1 * (size + size_of(scratch / "library"))
    return [
        row,
        figure("harvest a cache of 1.7 GB: processor time", last.processor / size * 1e9, "s/GB"),
        figure("harvest a cache of 1.7 GB: memory at most", last.memory / 1e6, "MB", at_most=600),
        figure("harvest a cache of 1.7 GB: disk at most", last.disk / allowed, "of library + raw + 10 %", at_most=1),
    ]
