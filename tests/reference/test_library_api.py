"""What docs/library-api.md and docs/lldb.md show of Python works as it stands."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.reference.tables import PUBLIC
from tests.support.recipes import ROOT, blocks

ASSETS = ROOT / "symcache" / "demo" / "assets"
BLOCKS = blocks("library-api.md", "python")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "build").symlink_to(ASSETS / "app" / "arm64")
    (tmp_path / "crash.zip").symlink_to(ASSETS / "dumps" / "crash-arm64.zip")
    (cache,) = ASSETS.rglob("dyld_shared_cache_arm64e")
    (tmp_path / cache.name).symlink_to(cache)
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(BLOCKS), "docs/library-api.md", "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    for told in ("files are new", "debuginfo arm64", "empty-library", "arm64e", "SIGSEGV", "nowhere"):
        assert told in printed
    assert (tmp_path / "Ledger.dwarf").read_bytes()[:4] == b"\xcf\xfa\xed\xfe"
    assert (tmp_path / "libsystem_c.dylib").read_bytes()[:4] == b"\xcf\xfa\xed\xfe"


@pytest.mark.parametrize("page", ["library-api.md", "lldb.md"])
def test_they_take_public_names_alone(page: str) -> None:
    imports = [n for n in ast.walk(ast.parse("\n".join(blocks(page, "python")))) if isinstance(n, ast.ImportFrom)]
    ours = [n for n in imports if (n.module or "").startswith("symcache")]
    assert ours
    assert {n.module for n in ours} <= set(PUBLIC)
    for taken in ours:
        assert {name.name for name in taken.names} <= set(importlib.import_module(taken.module or "").__all__)
