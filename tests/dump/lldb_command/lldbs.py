"""LLDBs of several versions, none of ours, to be given commands: the wheel, and those of Debian beside each other.

Debian's cannot be installed side by side, since their Python modules exclude each other. So each is unpacked into a
folder of its own and seen over /usr by what it runs in, a mount namespace of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from symcache.files import file_lock

WHEEL = "the wheel's"
_ROOT = Path(__file__).resolve().parents[3]
_SCRIPT = Path(__file__).with_name("in_lldb.py")
_OVERLAY = 'mount -t overlay overlay -o "lowerdir=$1:/usr" /usr && shift && exec "$@"'


def run(version: str, home: Path, commands: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Run commands in the LLDB of a version, with the init file in `home`. Return what it prints."""
    output = home / "output"
    # Without what the tests' own environment says of servers and libraries.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "LANG": "C.UTF-8", **(env or {})}
    environment |= {"RUN_COMMANDS": json.dumps(commands), "RUN_OUTPUT": str(output)}
    if version == WHEEL:
        command = [sys.executable, "-I", str(_SCRIPT)]
    else:
        # Debian's 14 and 15 look for their Python module where it is not.
        environment["PYTHONPATH"] = f"/usr/lib/llvm-{version}/lib/python3.11/dist-packages"
        command = [*_debian(version), "-b", "-o", f'command script import "{_SCRIPT}"']
    output.unlink(missing_ok=True)
    done = subprocess.run(
        command,
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    assert output.exists(), done.stdout
    return output.read_text()


def need(version: str) -> None:
    """Skip the test, with the reason, where that version cannot be had."""
    if version == WHEEL:
        pytest.importorskip("lldb", reason="no LLDB wheel: pip install lldb-for-pwndbg")
        return
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip(f"this LLDB is not installed: {version} (needs Debian, and root)")
    tried = subprocess.run([*_debian(version), "--version"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this LLDB is not installed: {version} ({tried.stderr.strip()[:200]})")


def _debian(version: str) -> list[str]:
    """Return the command that runs Debian's LLDB of a version; its packages are downloaded if they are not there."""
    folder = _ROOT / os.environ["SYMCACHE_TEST_LLDBS"] / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_name(f"{version}.lock")):
        if not (folder / "whole").exists():
            _unpack(version, folder)
    return ["unshare", "-m", "sh", "-c", _OVERLAY, "sh", str(folder / "usr"), f"lldb-{version}"]


def _unpack(version: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    packages = folder / "packages"
    packages.mkdir(parents=True)
    names = [f"{name}{version}" for name in ("lldb-", "python3-lldb-", "liblldb-", "libllvm", "libclang-cpp")]
    names += ["libipt2", "python3-six"]
    got = subprocess.run(["apt-get", "download", *names], cwd=packages, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"this LLDB is not installed: {version} cannot be downloaded ({got.stderr.strip()[:200]})")
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
    shutil.rmtree(packages)
    (folder / "whole").touch()
