"""The `ipsw` program, which mounts a disk image of a restore image: https://github.com/blacktop/ipsw

`ipsw mount VOLUME FILE -m FOLDER [--device PRODUCT]` unpacks the disk image into TMPDIR, decrypts it beside, and mounts
it. It logs `Mounted VOLUME DMG NAME` and `Press Ctrl+C to unmount 'FOLDER'` to stderr, and waits for SIGINT; then it
unmounts, removes what it unpacked, and ends with 0. An error is the last line of its log, and it ends with 1; one of
after August 2026 ends with 130 ten seconds after the signal, whether it has unmounted by then or not.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

from symcache.errors import EnvironmentFailure
from symcache.text import excerpt
from symcache_provisioning.sources.build_manifest import DiskImage

__all__ = ["PROGRAM", "UNMOUNT", "IpswMount", "removed"]

PROGRAM = "ipsw"
UNMOUNT = "hdiutil detach -force" if sys.platform == "darwin" else "umount"

_READY = re.compile(rb"Press Ctrl\+C to unmount '([^'\n]+)'")
_MOUNTED = re.compile(rb"Mounted \w+ DMG ([^\n]+)\n")
_ABSENT = re.compile(rb"no \w+ DMG found")
"""What it prints if the release has no such image. Any other error is a failure."""
_ERROR_MARK = "⨯"
"""Mark before errors in its log."""
_LONGEST_ERROR = 1000
_MOUNT_SECONDS = 1800
"""Decrypting and decompressing one volume of 10 GB takes minutes."""
_UNMOUNT_SECONDS = 60
_DETACH_SECONDS = 10
"""How long a system may go on to unmount after the program has ended."""
_MAX_OUTPUT = 1 << 20


class IpswMount:
    """A running `ipsw mount`, which keeps one volume mounted."""

    def __init__(self, program: str, archive: Path, image: DiskImage, target: Path, unpacked: Path) -> None:
        selected = ["--device", image.device] if image.device else []
        self._command = " ".join([PROGRAM, "mount", image.volume, *selected])
        self._archive, self._image, self._target = archive, image, target
        self._output = b""
        self._ready = False
        target.mkdir()
        try:
            self._process = subprocess.Popen(
                [program, "mount", image.volume, str(archive), "-m", str(target), *selected],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(unpacked)},
                start_new_session=True,  # so that Ctrl+C is ours to pass on, in the right order
            )
        except OSError as error:
            target.rmdir()
            raise EnvironmentFailure(
                f"{program}: cannot be started: {error.strerror}",
                hint="install it anew: https://github.com/blacktop/ipsw",
            ) from error

    @property
    def root(self) -> Path:
        """Where the volume's `/` is: apfs-fuse shows it as a folder `root`."""
        inner = self._target / "root"
        return inner if inner.is_dir() and not (self._target / "System").is_dir() else self._target

    def wait(self) -> bool:
        """Wait until the volume is mounted. Return False if the program says that the release has none.

        Raises EnvironmentFailure for any other failure to mount this image at our folder.
        """
        deadline = time.monotonic() + _MOUNT_SECONDS
        pipe = self._process.stdout
        if pipe is None:
            raise RuntimeError("no pipe to read from")
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not (ready := _READY.search(self._output)):
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise EnvironmentFailure(
                        f"{self._archive}: `{self._command}` did not finish in {_MOUNT_SECONDS} seconds",
                        hint="mount the image by hand, and name its mount point",
                    )
                data = os.read(pipe.fileno(), 65536)
                self._output = (self._output + data)[-_MAX_OUTPUT:]
                if not data:
                    self._process.wait()
                    return self._failed()
        mount_point = Path(os.fsdecode(ready[1]))
        if mount_point.resolve() != self._target.resolve():
            self._process.kill()  # interrupted, it would unmount what it did not mount
            raise EnvironmentFailure(
                f"{self._archive}: `{self._command}` says that it is mounted at {excerpt(ready[1])} already",
                hint="unmount it there, and harvest again",
            )
        self._ready = True
        mounted = _MOUNTED.search(self._output)
        if mounted and mounted[1].decode("utf-8", "replace").strip() != self._image.plain_name:
            raise EnvironmentFailure(
                f"{self._archive}: `{self._command}` mounted {excerpt(mounted[1])} where {self._image} was wanted",
                hint="bring ipsw up to date, or mount the disk images by hand and harvest each mount point",
            )
        return True

    def _failed(self) -> bool:
        if self._process.returncode == 1 and _ABSENT.search(self._output):
            return False
        raise EnvironmentFailure(
            f"{self._archive}: `{self._command}` ended with {self._process.returncode}: {self._error_text()}",
            hint="run it by hand to see why: on Linux it needs apfs-fuse, `rosetta` needs version 3.1.690,"
            " `--device` one from after August 2026; or mount the disk images by hand and harvest each mount point",
        )

    def _error_text(self) -> str:
        """Return the error that it printed last, after its usage, on one line."""
        output = self._output.decode("utf-8", "replace")
        _, mark, error = output.rpartition(_ERROR_MARK)
        lines = [line for line in output.splitlines() if line.strip()]
        if not mark and lines:
            error = next((line for line in lines if line.startswith("panic:")), lines[-1])
        return excerpt(" ".join(error.split()), _LONGEST_ERROR) or "it said nothing"

    def close(self) -> str:
        """Have it unmount, or end it. Return what to do if something is left mounted, else an empty string."""
        if self._process.poll() is None and self._ready:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_UNMOUNT_SECONDS)
        if self._process.poll() is None:
            # Still unpacking, or hanging. With all that it started: a signal would not end those.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if pipe := self._process.stdout:
            with pipe, contextlib.suppress(BlockingIOError):
                os.set_blocking(pipe.fileno(), False)
                self._output += os.read(pipe.fileno(), 65536)
        deadline = time.monotonic() + _DETACH_SECONDS
        while not removed(self._target):
            if time.monotonic() > deadline:
                return (
                    f"{self._target}: is still mounted, as `{self._command}` ended with {self._process.returncode}"
                    f" ({self._error_text()}): unmount it by `{UNMOUNT} {self._target}`"
                )
            time.sleep(0.1)
        return ""


def removed(mount_point: Path) -> bool:
    """Remove a mount point, and return whether it is gone: it stays as long as something is mounted there."""
    try:
        mount_point.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
