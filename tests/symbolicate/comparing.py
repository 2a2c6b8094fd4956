"""Comparing names of ours with those of LLDB."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import pytest

from symcache.symbolicate import Content, Location, NameSource
from tests.symbolicate.lldb_names import LldbName

__all__ = ["content", "differing", "need_lldb"]


def content(file: Path) -> Content:
    return Content(hashlib.sha256(file.read_bytes()).hexdigest(), lambda: os.open(file, os.O_RDONLY))


def need_lldb() -> None:
    if importlib.util.find_spec("lldb") is None:
        pytest.skip("LLDB is not installed for this Python (pip install lldb-for-pwndbg)")


def differing(
    offsets: list[int], found: list[Location | None], told: list[LldbName | None]
) -> list[tuple[int, Location | None, object]]:
    """Return where LLDB knows more or less, or calls it otherwise."""
    differing = []
    for offset, location, lldb in zip(offsets, found, told, strict=True):
        if lldb is None and location is None:
            continue
        if lldb is not None and location is not None:
            name, start = lldb
            ours = location.calls[-1].symbol
            unnamed = name.startswith("___lldb_unnamed_symbol") and location.source is NameSource.FUNCTION_START
            if start == location.start and (unnamed or ours in {name, name.removeprefix("_")}):
                continue
        differing.append((offset, location, lldb))
    return differing
