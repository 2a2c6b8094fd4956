"""Runs inside the child process: opens a core in LLDB as a plan says, and reports as JSON, or hands over the prompt.

Started as a script, `python -I worker.py MODE FD LLDB ASKING`, by the Python that LLDB was made for: standard library
only, Python 3.9. MODE is `analyze` (one JSON object on standard output), `print` or `prompt`; LLDB is JSON too and says
where the package is. The plan, a line of JSON, is read from the descriptor FD once LLDB is imported:

    {"memory": bytes, "core": path or null, "triple": "arm64-apple-macosx", "thread": index, "max_frames": n,
     "source_map": [[from, to], …], "asks": bool, "frames": [[program counter, …] of a thread, …],
     "thrown": [return address, …] from where an exception was thrown (this and "frames" without a core only),
     "modules": [{"uuid": "…", "address": n, "path": path, "symbols": path or null, "placeholder": path or null,
                  "layout": UUID of the shared cache that the file was laid out for, or null,
                  "symbols_only": bool (the placeholder is laid out for `symbols`)}, …]}

If the plan says so, `print` and `prompt` ask for the source files of the frames they show: a line [[UUID, path], …]
goes out through the descriptor ASKING, and a line [[from, to], …] of folders to map comes back from FD.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NONE = (1 << 64) - 1
_MAX_SYMBOLICATED = 100_000
_SHOWN = 64
"""Frames whose sources are asked for."""
_AROUND = 3
"""Source lines before and behind that of the stop."""


def main(mode: str, descriptor: int, package: dict[str, str], asking: int) -> int:
    """Do what the plan says; 0, or 4 when LLDB does not take the core."""
    # LLDB writes warnings wherever it likes: what the parent reads must be ours alone.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    if mode == "analyze":
        os.dup2(2, 1)
    lldb = _load_finder().import_lldb(package["package_folder"], package["library"])
    pipe = os.fdopen(descriptor, encoding="utf-8")
    text = pipe.readline()
    if not text:
        return 0  # the parent has found that there is nothing to do
    plan = json.loads(text)
    _limit(plan["memory"], mode)
    debugger, target, process, modules = _open(lldb, plan)
    if target is None:
        channel.write(json.dumps({"error": modules}) + "\n")
        channel.flush()
        return 4
    if mode == "analyze":
        result: dict[str, Any] = {
            "version": lldb.SBDebugger.GetVersionString().split("\n")[0],
            "modules": modules,
            "threads": [_frames(target, process.GetThreadAtIndex(n)) for n in range(process.GetNumThreads())]
            if process is not None
            else [_symbolicated(lldb, target, addresses) for addresses in plan["frames"]],
        }
        if process is None:
            result["thrown"] = _symbolicated(lldb, target, plan["thrown"], returns=True)
        json.dump(result, channel)
        channel.flush()
        os._exit(0)  # LLDB's own clearing up takes longer than all of the above, and may crash
    if plan["asks"]:
        _ask_for_sources(lldb, debugger, process.GetSelectedThread(), pipe, asking)
    pipe.close()
    _prompt(lldb, debugger, process, interactive=mode == "prompt")
    sys.stdout.flush()
    os._exit(0)


def _limit(memory: int, mode: str) -> None:
    try:
        import resource  # noqa: PLC0415 (not on every system)
    except ImportError:
        return
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory)]
    if mode == "analyze":
        limits.append((resource.RLIMIT_FSIZE, 1 << 20))
    for which, value in limits:
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):
            pass  # a harder limit is already there, or the system has none of this kind


def _load_finder() -> Any:
    path = Path(__file__).resolve().with_name("lldb_python.py")
    spec = importlib.util.spec_from_file_location("symcache_lldb_python", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules["symcache_lldb_python"] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def _open(lldb: Any, plan: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return debugger, target, process and the report of every module; target None and a reason if it failed.

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
    _map_sources(lldb, debugger, plan["source_map"])
    own = {_uuid(module): module for module in target.module_iter()}
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

    Return what was wanted, the module that is to be placed (None: there is none), and the report on it.
    """
    report: dict[str, Any] = {"state": "missing", "symbols": False, "file_address": None, "detail": ""}
    uuid = wanted["uuid"]
    if wanted["path"]:
        if uuid in own:
            target.RemoveModule(own[uuid])  # else AddModule would give it back instead of the file
        module = target.AddModule(wanted["path"], None, uuid, wanted["symbols"])
        if not module.IsValid():
            report["state"], report["detail"] = "rejected", "LLDB does not take the file"
        elif uuid and _uuid(module) != uuid:
            report["state"], report["detail"] = "rejected", "the file has UUID " + _uuid(module)
            target.RemoveModule(module)
        else:
            report["state"], report["file_address"] = "loaded", _base(module)
            if wanted["symbols"]:
                spec = module.GetSymbolFileSpec()
                report["symbols"] = _path(spec) == wanted["symbols"]
            return wanted, module, report
        if uuid in own:
            target.AddModule(own[uuid])
            target.SetModuleLoadAddress(own[uuid], wanted["address"] - _base(own[uuid]))
    if wanted["symbols_only"] and not (uuid in own and own[uuid].FindSection("__TEXT").IsValid()):
        if uuid in own:
            target.RemoveModule(own[uuid])
        module = target.AddModule(wanted["placeholder"], None, None, wanted["symbols"])
        if module.IsValid():
            if _path(module.GetSymbolFileSpec()) == wanted["symbols"]:
                report["state"], report["symbols"], report["file_address"] = "symbols", True, _base(module)
            return wanted, module, report
    if uuid in own:
        # Either the core itself holds the image, or this is LLDB's own placeholder, as it makes them for minidumps.
        if own[uuid].FindSection("__TEXT").IsValid():
            report["state"] = "memory"
            if wanted["symbols"]:
                _run(lldb, target.GetDebugger(), "target symbols add " + _quoted(wanted["symbols"]))
                report["symbols"] = _path(own[uuid].GetSymbolFileSpec()) == wanted["symbols"]
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


def _frames(target: Any, thread: Any) -> dict[str, Any]:
    frames = []
    for number in range(thread.GetNumFrames()):
        frame = thread.GetFrameAtIndex(number)
        pc = frame.GetPC()
        entry: dict[str, Any] = {"pc": pc, "sp": frame.GetSP(), "inlined": frame.IsInlined()}
        module = frame.GetModule()
        if module.IsValid():
            entry["module"] = _path(module.GetFileSpec())
            entry["uuid"] = _uuid(module)
        name = frame.GetFunctionName()
        if name:
            entry["function"] = name
            function = frame.GetFunction()
            start = function.GetStartAddress() if function.IsValid() else frame.GetSymbol().GetStartAddress()
            begin = start.GetLoadAddress(target)
            if begin != _NONE and pc >= begin:
                entry["offset"] = pc - begin
        _add_line(entry, frame.GetLineEntry())
        frames.append(entry)
    return {"name": thread.GetName(), "frames": frames}


def _symbolicated(lldb: Any, target: Any, addresses: list[int], *, returns: bool = False) -> dict[str, Any]:
    """Name frames that somebody else has walked; inlined functions become frames of their own.

    `returns`: the first one's program counter is a return address, too.
    """
    frames: list[dict[str, Any]] = []
    for number, pc in enumerate(addresses):
        # A return address may lie behind the function that called: look at the call.
        address = target.ResolveLoadAddress(pc - 1 if number or returns else pc)
        context = address.GetSymbolContext(lldb.eSymbolContextEverything)
        while True:
            entry: dict[str, Any] = {"pc": pc, "sp": 0, "inlined": False}
            module = context.GetModule()
            if module.IsValid():
                entry["module"], entry["uuid"] = _path(module.GetFileSpec()), _uuid(module)
            inlined = context.GetBlock().GetContainingInlinedBlock()
            function = context.GetFunction()
            named = function if function.IsValid() else context.GetSymbol()
            if inlined.IsValid():
                entry["function"], entry["inlined"] = inlined.GetInlinedName(), True
            elif named.IsValid() and named.GetName():
                entry["function"] = named.GetName()
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


def _add_line(entry: dict[str, Any], line: Any) -> None:
    if line.IsValid() and line.GetLine():
        entry["file"] = _path(line.GetFileSpec())
        entry["line"] = line.GetLine()
        entry["column"] = line.GetColumn()


def _map_sources(lldb: Any, debugger: Any, pairs: list[list[str]]) -> None:
    for source, destination in pairs:
        _run(lldb, debugger, "settings append target.source-map " + _quoted(source) + " " + _quoted(destination))


def _run(lldb: Any, debugger: Any, command: str) -> None:
    debugger.GetCommandInterpreter().HandleCommand(command, lldb.SBCommandReturnObject())


def _shown_lines(thread: Any) -> Iterator[tuple[int, Any, Any]]:
    """Yield (number, frame, line entry) of the first frames, as far as they have lines."""
    for number in range(min(thread.GetNumFrames(), _SHOWN)):
        frame = thread.GetFrameAtIndex(number)
        line = frame.GetLineEntry()
        if line.IsValid() and line.GetLine():
            yield number, frame, line


def _ask_for_sources(lldb: Any, debugger: Any, thread: Any, pipe: Any, asking: int) -> None:
    wanted = [[_uuid(frame.GetModule()), _path(line.GetFileSpec())] for _, frame, line in _shown_lines(thread)]
    with os.fdopen(asking, "w", encoding="utf-8") as question:
        question.write(json.dumps(wanted) + "\n")
    _map_sources(lldb, debugger, json.loads(pipe.readline() or "[]"))


def _show_source(lldb: Any, debugger: Any, thread: Any) -> None:
    """Print the lines around the first frame whose source is here."""
    debugger.SetUseColor(False)
    for number, _, line in _shown_lines(thread):
        stream = lldb.SBStream()
        manager = thread.GetProcess().GetTarget().GetSourceManager()
        manager.DisplaySourceLinesWithLineNumbers(line.GetFileSpec(), line.GetLine(), _AROUND, _AROUND, "->", stream)
        text = stream.GetData()
        if text and text.strip():
            visible = "".join(c if c.isprintable() or c in "\t\n" else "?" for c in text)
            name = "".join(c if c.isprintable() else "?" for c in line.GetFileSpec().GetFilename() or "")
            sys.stdout.write(f"\nsource of frame #{number}, {name}:{line.GetLine()}\n{visible}")
            sys.stdout.flush()
            return


def _prompt(lldb: Any, debugger: Any, process: Any, *, interactive: bool) -> None:
    debugger.SetOutputFileHandle(sys.stdout, False)
    debugger.SetErrorFileHandle(sys.stderr, False)
    debugger.HandleCommand("bt")
    color = debugger.GetUseColor()
    _show_source(lldb, debugger, process.GetSelectedThread())
    debugger.SetUseColor(color)
    if not interactive:
        return
    debugger.SetInputFileHandle(sys.stdin, False)

    def run() -> None:
        debugger.RunCommandInterpreter(True, False, lldb.SBCommandInterpreterRunOptions(), 0, False, False)

    # In a thread of its own, so that Python keeps handling Ctrl-C here.
    signal.signal(signal.SIGINT, lambda *_: debugger.DispatchInputInterrupt())
    interpreter = threading.Thread(target=run, daemon=True)
    interpreter.start()
    while interpreter.is_alive():
        interpreter.join(0.1)


def _uuid(module: Any) -> str:
    return (module.GetUUIDString() or "").upper()


def _path(spec: Any) -> str:
    folder, name = spec.GetDirectory() or "", spec.GetFilename() or ""
    return folder + "/" + name if folder and folder != "/" else folder + name


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])))
