"""Folders as archives that are the same bytes whenever and by whomever they are made."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

__all__ = ["INPUTS", "pack", "unpack"]

INPUTS = Path(__file__).with_name("inputs.tar.xz")
"""What `inputs.py` made."""


def pack(archive: Path, folder: Path) -> None:
    """Write `folder` under its own name: modes are kept, owners and times are not."""

    def neutral(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = 0
        return member

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in (folder, *sorted(folder.rglob("*"))):
            tar.add(path, path.relative_to(folder.parent), recursive=False, filter=neutral)
    archive.write_bytes(lzma.compress(content.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def unpack(archive: Path, target: Path) -> None:
    """Write the folder that was packed below `target`."""
    with tarfile.open(archive, "r:xz") as tar:
        tar.extractall(target, filter="tar")
