"""Loads the modules of a dump in a user's own LLDB. `symcache_lldb.py` imports it there, by the path of this file.

Standard library only, Python 3.9.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["load", "load_more"]

_FAST = {"symbols.enable-external-lookup": "false", "target.preload-symbols": "false"}
"""While modules are added: LLDB is to ask nobody for them, and reads their symbols when it needs them."""
_loaded: dict[int, Any] = {}
"""The modules of dumps that were loaded, by their processes' numbers in LLDB."""


def load(lldb: Any, debugger: Any, response: dict[str, Any], opened: str, request: Callable[[Any], Any]) -> str:
    """Load modules as the plan of a response says, and return what the user is to read. Raises ValueError.

    They are added to the target that is selected if it has the plan's core open (`opened` is the path of the one it
    has); else to a new one, which is then selected. `request` has modules fetched that stacks turn out to lead through.
    """
    code, target_code = _import("worker_modules"), _import("worker_target")
    plan = response["plan"]
    with _adding(lldb, debugger):
        if opened and _is_same(opened, plan["core"]):
            target = debugger.GetSelectedTarget()
            process = target.GetProcess()
        else:
            target, process, why = target_code.open_core(lldb, debugger, plan)
            if target is None:
                raise ValueError(why)
            debugger.SetSelectedTarget(target)
        # Without `process`, they would be settings of the target that was selected before.
        if plan["triple"].startswith("arm64"):
            # Strips the pointer authentication code off return addresses.
            code.run(lldb, debugger, "settings set target.process.virtual-addressable-bits 47", process)
        code.map_sources(lldb, debugger, plan["source_map"], process)
        modules = code.Modules(lldb, target, plan["modules"])
        modules.request = request
        modules.complete(process.GetThreadAtIndex(n) for n in range(process.GetNumThreads()))
    _loaded[process.GetUniqueID()] = modules
    target_code.select_thread(process, plan["thread"])
    return "\n".join([*_summary(modules, response["exception"]), _backtrace(lldb, debugger, process)])


def load_more(lldb: Any, debugger: Any, words: list[str]) -> str | None:
    """Fetch modules of the dump that is selected, all or those named, as at the prompt of `symcache open`.

    Return what the user is to read, or None if that dump was not loaded here, or the words are of something else.
    """
    modules = _loaded.get(debugger.GetSelectedTarget().GetProcess().GetUniqueID())
    if modules is None or not (modules.named(words) if words else modules.deferred):
        return None
    with _adding(lldb, debugger):
        return str(modules.load(words))


@contextmanager
def _adding(lldb: Any, debugger: Any) -> Iterator[None]:
    """Have LLDB add modules in as few steps as can be."""
    name = debugger.GetInstanceName()
    before = {key: debugger.GetInternalVariableValue(key, name).GetStringAtIndex(0) for key in _FAST}
    is_async = debugger.GetAsync()
    run = _import("worker_modules").run
    try:
        debugger.SetAsync(False)
        for key, value in _FAST.items():
            debugger.SetInternalVariable(key, value, name)
        run(lldb, debugger, "plugin disable instrumentation-runtime")
        yield
    finally:
        run(lldb, debugger, "plugin enable instrumentation-runtime")
        for key, value in before.items():
            if value:
                debugger.SetInternalVariable(key, value, name)
        debugger.SetAsync(is_async)


def _summary(modules: Any, exception: str) -> list[str]:
    states = [report["state"] for number, report in enumerate(modules.reports) if number not in modules.deferred]
    if not modules.reports:
        lines = ["modules: this core names none"]
    else:
        missing = states.count("missing") + states.count("rejected")
        lines = [f"modules: {missing} of {len(modules.reports)} missing"]
    if modules.deferred:
        lines.append(
            f"{len(modules.deferred)} that no thread is in are not fetched: `symcache load` once more fetches them"
        )
    if modules.problem:
        lines.append("problem: " + modules.problem)
    return [*lines, "exception: " + exception] if exception else lines


def _backtrace(lldb: Any, debugger: Any, process: Any) -> str:
    """Return what `bt` prints. The command that runs at the moment would still mean target and thread of before."""
    result = lldb.SBCommandReturnObject()
    here = lldb.SBExecutionContext(process.GetSelectedThread())
    debugger.GetCommandInterpreter().HandleCommand("thread backtrace", here, result)
    return (result.GetOutput() or "").rstrip()


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def _import(name: str) -> Any:
    """Import a file of what runs in LLDB in a child process, which are for any Python, too."""
    folder = Path(__file__).resolve().parent.with_name("lldb_child")
    package = "symcache_session_" + folder.name
    if package not in sys.modules:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(folder)]
    return importlib.import_module(package + "." + name)
