"""What the child process has LLDB do: open the core, take the modules, say what their frames are.

Loaded by `worker.py` from the file beside it, as that is: standard library only, Python 3.9.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["map_sources", "open_target", "path_of", "symbolicated_frames", "uuid_of", "walked_frames"]

_NONE = (1 << 64) - 1
_MAX_SYMBOLICATED = 100_000


def open_target(lldb: Any, plan: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return debugger, target, process and a report on each module, or, if it failed: debugger, None, None and why.

    Without a core there is no process.
    """
    debugger = lldb.SBDebugger.Create(False)  # False: reads no .lldbinit
    debugger.SetAsync(False)
    debugger.SkipLLDBInitFiles(True)
    debugger.SkipAppInitFiles(True)
    name = debugger.GetInstanceName()
    settings = {
        "symbols.enable-external-lookup": "false",
        "symbols.auto-download": "off",
        "target.preload-symbols": "false",
        "target.load-script-from-symbol-file": "false",
        "target.load-cwd-lldbinit": "false",
        "target.process.python-os-plugin-path": "",
        "target.process.thread.max-backtrace-depth": str(plan["max_frames"]),
    }
    if plan["triple"].startswith("arm64"):
        # Strips the pointer authentication code off return addresses.
        settings["target.process.virtual-addressable-bits"] = "47"
    for key, value in settings.items():
        debugger.SetInternalVariable(key, value, name)  # a version that lacks one needs it not
    # Two things read the symbols of each of hundreds of modules, where a backtrace needs those of a few: the search for
    # scripts that come with a module, which only this switches off, and that for run-time checkers (BoundsSafety).
    scripts = debugger.GetScriptLanguage()
    debugger.SetScriptLanguage(lldb.eScriptLanguageNone)
    _run(lldb, debugger, "plugin disable instrumentation-runtime")  # older ones have neither plug-in nor command
    error = lldb.SBError()
    target = debugger.CreateTarget("", plan["triple"] or None, None, False, error)
    if not target.IsValid():
        return debugger, None, None, f"LLDB makes no target for {plan['triple']}: {error.GetCString()}"
    process = target.LoadCore(plan["core"], error) if plan["core"] else None
    if process is not None and not process.IsValid():
        return debugger, None, None, error.GetCString() or "LLDB does not take the core"
    map_sources(lldb, debugger, plan["source_map"])
    own = {uuid_of(module): module for module in target.module_iter()}
    added = [_add(lldb, target, m, own) for m in plan["modules"]]
    slides: dict[str, Counter[int]] = {}
    for wanted, module, _ in added:
        if module is not None and wanted["layout"]:
            slides.setdefault(wanted["layout"], Counter())[wanted["address"] - _base(module)] += 1
    for wanted, module, report in added:
        if module is not None:
            common = slides.get(wanted["layout"])
            slide = wanted["address"] - _base(module)
            _place(
                target, module, wanted["address"], report, whole=common is None or common.most_common(1)[0][0] == slide
            )
    debugger.SetScriptLanguage(scripts)
    reports = [report for _, _, report in added]
    if process is not None and "thread" in plan:
        thread = process.GetThreadAtIndex(plan["thread"])
        if thread.IsValid():
            process.SetSelectedThread(thread)
            thread.SetSelectedFrame(0)
    return debugger, target, process, reports


def _add(
    lldb: Any, target: Any, wanted: dict[str, Any], own: dict[str, Any]
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Add one module, checked: LLDB itself checks neither architecture nor UUID, nor whether a dSYM fits.

    Return what was wanted, the module that is to be placed, or None if there is none, and the report on it.
    """
    report: dict[str, Any] = {"state": "missing", "symbols": False, "file_address": None, "detail": ""}
    uuid = wanted["uuid"] or ""
    if wanted["executable"]:
        if uuid in own:
            target.RemoveModule(own[uuid])  # else AddModule would give it back instead of the file
        module = target.AddModule(wanted["executable"], None, uuid, wanted["symbols"])
        if not module.IsValid():
            report["state"], report["detail"] = "rejected", "LLDB does not take the file"
        elif uuid and uuid_of(module) != uuid:
            report["state"], report["detail"] = "rejected", "the file has UUID " + uuid_of(module)
            target.RemoveModule(module)
        else:
            report["state"], report["file_address"] = "loaded", _base(module)
            if wanted["symbols"]:
                spec = module.GetSymbolFileSpec()
                report["symbols"] = path_of(spec) == wanted["symbols"]
            return wanted, module, report
        if uuid in own:
            target.AddModule(own[uuid])
            target.SetModuleLoadAddress(own[uuid], wanted["address"] - _base(own[uuid]))
    if wanted["symbols_only"] and not (uuid in own and own[uuid].FindSection("__TEXT").IsValid()):
        if uuid in own:
            target.RemoveModule(own[uuid])
        module = target.AddModule(wanted["placeholder"], None, None, wanted["symbols"])
        if module.IsValid():
            if path_of(module.GetSymbolFileSpec()) == wanted["symbols"]:
                report["state"], report["symbols"], report["file_address"] = "symbols", True, _base(module)
            return wanted, module, report
    if uuid in own:
        # Either the core itself holds the image, or this is LLDB's own placeholder, as it makes them for minidumps.
        if own[uuid].FindSection("__TEXT").IsValid():
            report["state"] = "memory"
            if wanted["symbols"]:
                _run(lldb, target.GetDebugger(), "target symbols add " + _quoted(wanted["symbols"]))
                report["symbols"] = path_of(own[uuid].GetSymbolFileSpec()) == wanted["symbols"]
    elif wanted["placeholder"]:
        module = target.AddModule(wanted["placeholder"], None, None, None)
        if module.IsValid():
            return wanted, module, report
    return wanted, None, report


def _base(module: Any) -> int:
    """Return the address that a module's header was linked for."""
    return int(module.GetObjectFileHeaderAddress().GetFileAddress())


def _place(target: Any, module: Any, address: int, report: dict[str, Any], *, whole: bool) -> None:
    """Slide a module so that its header lies at `address`; not `whole`: its code only.

    An image as another shared cache lays it out has its code and data at other distances. One slide for all would put
    its data where other modules have their code, and LLDB would take that code for this data.
    """
    text = None if whole else module.FindSection("__TEXT")  # which reads the module's symbols
    if text is None or not text.IsValid():
        error = target.SetModuleLoadAddress(module, address - _base(module))
    else:
        error = target.SetSectionLoadAddress(text, address)
    if error.Fail():
        report["detail"] = error.GetCString() or "LLDB does not place it"


def walked_frames(target: Any, thread: Any) -> dict[str, Any]:
    """Return name and frames of a thread, as LLDB walks its stack."""
    frames = []
    for number in range(thread.GetNumFrames()):
        frame = thread.GetFrameAtIndex(number)
        pc = frame.GetPC()
        entry: dict[str, Any] = {"pc": pc, "inlined": frame.IsInlined()}
        module = frame.GetModule()
        if module.IsValid():
            entry["module"] = path_of(module.GetFileSpec())
            entry["uuid"] = uuid_of(module)
        name = frame.GetFunctionName()
        if name:
            entry["function"] = name
            function = frame.GetFunction()
            named = function if function.IsValid() else frame.GetSymbol()
            start = named.GetStartAddress()
            if not entry["inlined"]:
                _add_mangled(entry, named)
            begin = start.GetLoadAddress(target)
            if begin != _NONE and pc >= begin:
                entry["offset"] = pc - begin
        _add_line(entry, frame.GetLineEntry())
        frames.append(entry)
    return {"name": thread.GetName(), "frames": frames}


def symbolicated_frames(lldb: Any, target: Any, addresses: list[int], *, returns: bool = False) -> dict[str, Any]:
    """Name frames that somebody else has walked; inlined functions become frames of their own, of the same number.

    `returns`: the first one's program counter is a return address, too.
    """
    frames: list[dict[str, Any]] = []
    for number, pc in enumerate(addresses):
        # A return address may lie behind the function that called: look at the call. None is in front of null.
        address = target.ResolveLoadAddress(pc - 1 if pc and (number or returns) else pc)
        context = address.GetSymbolContext(lldb.eSymbolContextEverything)
        while True:
            entry: dict[str, Any] = {"pc": pc, "inlined": False, "number": number}
            module = context.GetModule()
            if module.IsValid():
                entry["module"], entry["uuid"] = path_of(module.GetFileSpec()), uuid_of(module)
            inlined = context.GetBlock().GetContainingInlinedBlock()
            function = context.GetFunction()
            named = function if function.IsValid() else context.GetSymbol()
            if inlined.IsValid():
                entry["function"], entry["inlined"] = inlined.GetInlinedName() or "", True
            elif named.IsValid() and named.GetName():
                entry["function"] = named.GetName()
                _add_mangled(entry, named)
            begin = named.GetStartAddress().GetLoadAddress(target) if named.IsValid() else _NONE
            if begin != _NONE and pc >= begin:
                entry["offset"] = pc - begin
            _add_line(entry, context.GetLineEntry())
            frames.append(entry)
            if not inlined.IsValid() or len(frames) > _MAX_SYMBOLICATED:
                break
            outer = lldb.SBAddress()
            context = context.GetParentOfInlinedScope(address, outer)
            if not context.IsValid() or not outer.IsValid():
                break
            address = outer
    return {"name": "", "frames": frames}


def _add_mangled(entry: dict[str, Any], named: Any) -> None:
    mangled = named.GetMangledName()
    if mangled and mangled != entry["function"]:
        entry["mangled"] = mangled


def _add_line(entry: dict[str, Any], line: Any) -> None:
    if line.IsValid() and line.GetLine():
        entry["file"] = path_of(line.GetFileSpec())
        entry["line"] = line.GetLine()
        entry["column"] = line.GetColumn() or None


def map_sources(lldb: Any, debugger: Any, pairs: list[list[str]]) -> None:
    """Have LLDB look for sources in other folders than those that the compiler recorded: [[recorded, here], …]."""
    for source, destination in pairs:
        _run(lldb, debugger, "settings append target.source-map " + _quoted(source) + " " + _quoted(destination))


def _run(lldb: Any, debugger: Any, command: str) -> None:
    debugger.GetCommandInterpreter().HandleCommand(command, lldb.SBCommandReturnObject())


def uuid_of(module: Any) -> str:
    """Return a module's UUID in upper case, empty if it has none."""
    return (module.GetUUIDString() or "").upper()


def path_of(spec: Any) -> str:
    """Return the path that an SBFileSpec is of."""
    folder, name = spec.GetDirectory() or "", spec.GetFilename() or ""
    return folder + "/" + name if folder and folder != "/" else folder + name


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
