"""`python -m tests.dyld.lldb_worker`: asks a real LLDB about images; reads one JSON request, prints one JSON answer.

A process of its own, since LLDB may crash on what it is given. Request: triple, images as [path, load address or null],
core (or null), unwind (unslid addresses of the first image), memory ([unslid address, size] of it).
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import lldb


def _symbols(module: Any) -> list[dict[str, Any]]:
    found = []
    for symbol in module.symbols:
        start = symbol.GetStartAddress()
        section = start.GetSection()
        if symbol.GetType() in {lldb.eSymbolTypeUndefined, lldb.eSymbolTypeSourceFile, lldb.eSymbolTypeObjectFile}:
            continue
        found.append(
            {
                "name": symbol.GetName(),
                "section": f"{section.GetParent().GetName()}.{section.GetName()}" if section.IsValid() else None,
                "offset": start.GetOffset(),
                "size": symbol.GetEndAddress().GetOffset() - start.GetOffset() if section.IsValid() else 0,
                "type": symbol.GetType(),
                "external": symbol.IsExternal(),
                "file_address": start.GetFileAddress(),
                "synthetic": symbol.IsSynthetic(),
            }
        )
    return found


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    debugger = lldb.SBDebugger.Create()
    debugger.SetAsync(False)
    for setting in ("symbols.enable-external-lookup false", "target.preload-symbols false"):
        debugger.HandleCommand(f"settings set {setting}")
    error = lldb.SBError()
    target = debugger.CreateTarget("", request["triple"], None, False, error)
    process = target.LoadCore(request["core"]) if request["core"] else None
    modules = []
    for path, load in request["images"]:
        module = target.AddModule(path, request["triple"], None, None)
        assert module.IsValid(), path
        if load is not None:
            header = module.GetObjectFileHeaderAddress().GetFileAddress()
            target.SetModuleLoadAddress(module, load - header)
        modules.append(module)
    first = modules[0]
    answer: dict[str, Any] = {
        "uuid": first.GetUUIDString(),
        "triple": first.GetTriple(),
        "symbols": _symbols(first),
        "sections": [
            [s.GetName(), sub.GetName(), sub.GetByteSize(), bytes(sub.GetSectionData().uint8s).hex()]
            for s in first.section_iter()
            for sub in (s.GetSubSectionAtIndex(i) for i in range(s.GetNumSubSections()))
            if s.GetName() == "__TEXT"
        ],
        "by_address": {
            str(s["file_address"]): first.ResolveFileAddress(s["file_address"] + 1).GetSymbol().GetName()
            for s in _symbols(first)
            if s["section"] == "__TEXT.__text"
        },
    }
    answer["memory"] = []
    for address, size in request["memory"]:
        content = target.ReadMemory(first.ResolveFileAddress(address), size, error)
        answer["memory"].append(content.hex() if error.Success() else error.GetCString())
    if process:
        thread = process.GetThreadAtIndex(0)
        answer["frames"] = [f.GetSymbol().GetName() for f in thread.frames]
        interpreter, result = debugger.GetCommandInterpreter(), lldb.SBCommandReturnObject()
        answer["unwind"] = {}
        for address in request["unwind"]:
            interpreter.HandleCommand(f"target modules show-unwind --address {address:#x}", result)
            plans = re.split(r"\n\s*\n", result.GetOutput() or result.GetError())
            answer["unwind"][str(address)] = [p for p in plans if "compact unwind" in p]
            answer.setdefault("text", {})[str(address)] = result.GetOutput() or result.GetError()
    return answer


if __name__ == "__main__":
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)
