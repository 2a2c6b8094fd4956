"""A working folder in which files lie that are named like modules: of Python's, of ours and of what we use."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["installed", "plant"]

_NAMES = ("json", "multiprocessing", "numpy", "subprocess", "symcache", "symcache_server", "typer")


def plant(folder: Path) -> Path:
    """Fill `folder`, and return the path of a file that is there as soon as one of them is run."""
    marker = folder.with_name("planted.ran")
    folder.mkdir()
    for name in _NAMES:
        text = f"print(__name__, file=open({str(marker)!r}, 'a'))\nraise SystemExit({name!r})\n"
        (folder / f"{name}.py").write_text(text)
    return marker


def installed(program: str) -> str:
    """Return one of our programs as pip installs it: unlike `python -m`, it asks for nothing of the working folder."""
    return str(Path(sysconfig.get_path("scripts")) / program)
