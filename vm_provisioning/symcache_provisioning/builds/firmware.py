"""Downloads restore images, and checks that they are the ones that were published."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from symcache.client import download
from symcache.errors import IntegrityError, StorageError
from symcache_provisioning.builds.appledb import Firmware
from symcache_provisioning.builds.selection import file_name
from symcache_provisioning.staging import RESERVE

__all__ = ["download_firmware"]


def download_firmware(
    build: str, firmware: Firmware, folder: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Return the file of a firmware in a folder, downloaded and of the published hash. What was cut is continued.

    Raises RemoteError, StorageError, and IntegrityError for other content, which is removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}", hint="name another folder with --staging") from error
    target = folder / file_name(build, firmware)
    part = target.with_name(f".{build}.part")
    try:
        download(firmware.url, part, firmware.size, progress, reserve=RESERVE)
        for name, expected in (("sha256", firmware.sha256), ("sha1", firmware.sha1)):
            if not expected:
                continue
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, name).hexdigest()
            if digest != expected:
                raise IntegrityError(
                    f"{firmware.url}: has {name.upper()} {digest} where {expected} was published",
                    hint="it is downloaded anew the next time; AppleDB may be wrong, too",
                )
            break
        part.replace(target)
    except IntegrityError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise StorageError(f"{part}: {error.strerror or error}", hint="check the disk") from error
    return target
