"""What a user gets by `pip install --user`: programs that start Python again find what lies in the user's site."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "symcache" / "demo" / "assets"


def _run(folder: Path, *arguments: str) -> str:
    """Run a Python that has nothing installed, with all that is installed here in its user's site."""
    environment = os.environ | {"PYTHONUSERBASE": str(folder)}
    python = str(getattr(sys, "_base_executable", sys.executable))
    where = [python, "-c", "import site; print(site.getusersitepackages())"]
    site = subprocess.check_output(where, env=environment, text=True).strip()
    Path(site).mkdir(parents=True, exist_ok=True)
    folders = (sysconfig.get_path("purelib"), ROOT, ROOT / "server", ROOT / "vm_provisioning")
    (Path(site) / "installed.pth").write_text("".join(f"{folder}\n" for folder in folders))
    command = [python, "-P", *arguments]
    ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_debugger_is_found(tmp_path: Path) -> None:
    pytest.importorskip("lldb", reason="no LLDB wheel: pip install lldb-for-pwndbg")
    dump = str(ASSETS / "dumps" / "crash-x86_64.zip")
    assert "main.c:" in _run(tmp_path, "-m", "symcache", "analyze", dump, "--symbols", str(ASSETS / "app"))
    assert "lldb-for-pwndbg" in _run(tmp_path, "-m", "symcache.dump.lldb_child.finder")


_SYMBOL_FILE = """
import sys
from pathlib import Path
from uuid import UUID
from symcache_server.convert.breakpad import make_symbol_file
with open(sys.argv[1], "rb") as image:
    make_symbol_file([image.fileno()], UUID(int=1), "x86_64", "Ledger", Path(sys.argv[2]))
"""


def test_breakpad_symbol_files_are_made(tmp_path: Path) -> None:
    target = tmp_path / "Ledger.sym"
    _run(tmp_path, "-c", _SYMBOL_FILE, str(ASSETS / "app/x86_64/Ledger.app/Contents/MacOS/Ledger"), str(target))
    assert "PUBLIC 0 0 _mh_execute_header" in target.read_text()
