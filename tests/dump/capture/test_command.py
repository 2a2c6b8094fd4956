"""`symcache dump` away from a Mac: what can be said there, and what must not be done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import symcache.dump.capture


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "symcache", "dump", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_the_header_for_native_code_is_printed() -> None:
    ran = _run("--c-header")
    assert ran.returncode == 0
    assert ran.stdout == Path(symcache.dump.capture.__file__).with_name("symcache_marshal.h").read_text()


def test_a_handler_whose_program_ends_without_a_crash_ends_too() -> None:
    ran = _run("--handler")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac it writes a dump")
def test_elsewhere_live_processes_are_refused_in_one_sentence(tmp_path: Path) -> None:
    ran = _run("1", "-o", str(tmp_path))
    assert ran.returncode == 2
    assert "macOS only" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_contradictions_are_wrong_use() -> None:
    assert _run().returncode == 2
    assert _run("1", "--handler").returncode == 2
