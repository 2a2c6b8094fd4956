"""What LLDB calls addresses of images: run by itself, requests on standard input, responses on standard output.

A request is a line of JSON: an image, its architecture, and offsets from its header. The response has for each offset
the name of the symbol there as the image has it, and where that begins; or null.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["LldbName", "lldb_names"]

LldbName = tuple[str, int]
"""Mangled name, offset of its start."""


def lldb_names(requests: list[tuple[Path, str, list[int]]]) -> list[list[LldbName | None]]:
    """Return for each offset of (image, architecture, offsets) what LLDB finds, in a process of its own."""
    lines = "".join(json.dumps([str(image), arch, offsets]) + "\n" for image, arch, offsets in requests)
    done = subprocess.run([sys.executable, "-I", __file__], input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [[tuple(f) if f else None for f in json.loads(line)] for line in done.stdout.splitlines()]


def _main() -> None:
    import lldb

    lldb.SBDebugger.Initialize()
    for line in sys.stdin:
        image, arch, offsets = json.loads(line)
        debugger = lldb.SBDebugger.Create()
        debugger.HandleCommand("settings set symbols.enable-external-lookup false")
        triples = (f"{arch.replace('x86_64h', 'x86_64')}-apple-{system}" for system in ("macosx", "ios", "driverkit"))
        targets = (debugger.CreateTarget(image, triple, "", False, lldb.SBError()) for triple in triples)
        target = next((t for t in targets if t), None) or debugger.CreateTarget(image)
        assert target, image
        module = target.GetModuleAtIndex(0)
        base = module.GetObjectFileHeaderAddress().GetFileAddress()
        print(json.dumps([_name(module, base, offset) for offset in offsets]))


def _name(module: Any, base: int, offset: int) -> LldbName | None:
    address = module.ResolveFileAddress(base + offset)
    symbol = address.GetSymbol()
    if not symbol:
        return None
    return symbol.GetMangledName() or symbol.GetName(), symbol.GetStartAddress().GetFileAddress() - base


if __name__ == "__main__":
    _main()
