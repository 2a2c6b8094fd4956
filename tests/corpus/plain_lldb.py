"""Open a core in LLDB with modules given by hand, and print every thread's frames and exception as JSON.

    python -m tests.corpus.plain_lldb REQUEST.json

A process of its own: LLDB keeps state, and may crash. Uses nothing of symcache.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lldb


def _fail(message: str) -> None:
    raise SystemExit(message)


def _frame(frame: Any) -> dict[str, Any]:
    entry = frame.GetLineEntry()
    module = frame.GetModule()
    return {
        "pc": frame.GetPC(),
        "uuid": (module.GetUUIDString() or "").replace("-", ""),
        "function": frame.GetFunctionName(),
        "file": str(entry.GetFileSpec()) if entry.IsValid() else None,
        "line": entry.GetLine() if entry.IsValid() else None,
        "inlined": frame.IsInlined(),
    }


def _exception(thread: Any) -> list[int]:
    names = ("trapno", "err", "faultvaddr", "far", "esr", "exception")
    found = [thread.GetFrameAtIndex(0).FindRegister(n) for n in names]
    return [r.GetValueAsUnsigned() for r in found if r.IsValid()]


def backtraces(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each thread's frames, innermost first, and its exception state in the order of its structure.

    `request`: triple, core, settings, modules (file, symbols or null, uuid, load address of each segment).
    """
    lldb.SBDebugger.Initialize()
    debugger = lldb.SBDebugger.Create()
    debugger.SetAsync(False)
    for line in ("target.preload-symbols false", "symbols.enable-external-lookup false", *request.get("settings", [])):
        debugger.HandleCommand(f"settings set {line}")
    error = lldb.SBError()
    target = debugger.CreateTarget("", request["triple"], None, False, error)
    if error.Fail():
        _fail(f"no target: {error}")
    process = target.LoadCore(request["core"], error)
    if not process.IsValid() or error.Fail():
        _fail(f"the core does not load: {error}")
    for wanted in request["modules"]:
        module = target.AddModule(wanted["file"], request["triple"], None, wanted["symbols"])
        if module.GetUUIDString().replace("-", "") != wanted["uuid"]:
            _fail(f"{wanted['file']} has UUID {module.GetUUIDString()}, not {wanted['uuid']}")
        for name, address in wanted["segments"]:
            section = module.FindSection(name)
            if section.IsValid():
                target.SetSectionLoadAddress(section, address)
    return [{"frames": [_frame(f) for f in thread], "exception": _exception(thread)} for thread in process]


if __name__ == "__main__":
    json.dump(backtraces(json.loads(Path(sys.argv[1]).read_text())), sys.stdout)
