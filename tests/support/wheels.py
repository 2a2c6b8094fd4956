"""Real third-party Mach-O files: macOS wheels from PyPI, downloaded once and kept in `.cache/wheels`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

__all__ = ["Unavailable", "fetch_wheel", "wheel_tree"]

_CACHE = Path(__file__).parents[2] / ".cache" / "wheels"


class Unavailable(Exception):
    """The package index cannot be reached."""


def fetch_wheel(requirement: str, platform: str, *, python: str = "312") -> Path:
    """Return the folder that a wheel (`pyobjc_core==13.0`) was unpacked to."""
    target = _CACHE / f"{requirement.replace('==', '-')}-{platform}"
    if target.is_dir():
        return target
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE, prefix=".part-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", f"--platform={platform}", f"--python-version={python}", "-d", scratch]
        done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed")
        tree = Path(scratch) / "tree"
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            wheel.extractall(tree)
        try:
            tree.rename(target)
        except OSError:
            if not target.is_dir():  # else another test process was faster
                raise
    return target


def wheel_tree(requirement: str, platform: str) -> Path:
    """As `fetch_wheel`, but skip the test where the package index cannot be reached."""
    try:
        return fetch_wheel(requirement, platform)
    except Unavailable as error:
        pytest.skip(f"{requirement} for {platform} cannot be downloaded: {error}")
