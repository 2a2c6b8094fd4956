"""The modules of the target: what LLDB is given for each, and what is requested once it is needed.

Loaded by `worker.py`, and for the command `symcache load` by `session.py`, from its file: standard library only,
Python 3.9.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Modules", "map_sources", "path_of", "quoted", "run", "uuid_of", "without_scripts"]

_ROUNDS = 16
"""How often a stack may lead into yet other modules."""

Request = Callable[[dict[str, Any]], Any]
"""Sends a request to the parent and returns its response; see protocol.py."""


class Modules:
    """The modules of a plan, by their numbers in it. `reports` say what became of each."""

    def __init__(self, lldb: Any, target: Any, planned: list[dict[str, Any]]) -> None:
        self._lldb, self._target = lldb, target
        self._debugger = target.GetDebugger()
        self._own = {uuid_of(module): module for module in target.module_iter()}
        """What LLDB took out of the core, or made up for a minidump's list, by UUID."""
        self._planned = planned
        self._given: list[Any] = [None] * len(planned)
        self.reports: list[dict[str, Any]] = [{}] * len(planned)
        self._slides: dict[str, Counter[int]] = {}
        self.request: Request | None = None
        """Without it, nothing can be fetched."""
        self.problem = ""
        """Why what was requested last could not be had."""
        self.deferred = {n for n, m in enumerate(planned) if m["deferred"]}
        """Those that have not been fetched."""
        self._starts = sorted((planned[n]["address"], n) for n in self.deferred)
        self._add(range(len(planned)))

    def complete(self, threads: Iterable[Any]) -> None:
        """Have those fetched that threads lead through, and those that they lead through then."""
        threads = list(threads)
        for _ in range(_ROUNDS):
            wanted: dict[int, str] = {}
            for thread in threads if self.deferred else ():
                for frame in range(thread.GetNumFrames()):
                    number = self.deferred_at(thread.GetFrameAtIndex(frame).GetPC())
                    if number is not None:
                        wanted.setdefault(number, f"where frame #{frame} of a stack is")
            if not wanted or not self.fetch(list(wanted), next(iter(wanted.values()))):
                break

    def deferred_at(self, address: int) -> int | None:
        """Return the number of the module that has not been fetched and whose code an address is in."""
        place = bisect.bisect_right(self._starts, (address, len(self._planned))) - 1
        if place >= 0:
            start, number = self._starts[place]
            if number in self.deferred and address - start < self._planned[number]["size"]:
                return number
        return None

    def name_of(self, number: int) -> str:
        """Return the name of a module's file."""
        return self.path_of(number).rpartition("/")[2]

    def path_of(self, number: int) -> str:
        """Return the path under which LLDB has a module."""
        own = self._own.get(self.uuid(number))
        return path_of(own.GetFileSpec()) if own else str(self._planned[number]["placeholder"])

    def listed_uuid(self, number: int) -> str:
        """Return the UUID under which LLDB has a module that is deferred: that of our placeholder is another."""
        uuid = str(self._planned[number]["uuid"])
        return uuid if uuid in self._own else f"{int(uuid[0], 16) ^ 8:X}" + uuid[1:]

    def uuid(self, number: int) -> str:
        """Return the UUID of a module."""
        return str(self._planned[number]["uuid"])

    def named(self, words: Iterable[str]) -> list[int]:
        """Return the modules, of those not fetched, whose names or UUIDs are among some words."""
        wanted = {word.rpartition("/")[2].upper() for word in words}
        return [n for n in sorted(self.deferred) if wanted & {self.name_of(n).upper(), self.uuid(n)}]

    def load(self, words: list[str]) -> str:
        """Fetch those of these names or UUIDs, or all, for `symcache load`; return what the user is to read."""
        wanted = self.named(words) if words else sorted(self.deferred)
        if not wanted:
            return "no module of that name is left to be fetched" if words else "all modules are fetched"
        self.fetch(wanted, "for `symcache load`")
        fetched = sum(self.reports[n]["state"] not in {"missing", "rejected"} for n in wanted)
        lines = [f"{fetched} of {len(wanted)} modules fetched" + (f": {self.problem}" if self.problem else "")]
        if self.deferred:
            lines.append(f"{len(self.deferred)} of {len(self.reports)} modules are not fetched")
        return "\n".join(lines)

    def fetch(self, numbers: list[int], why: str) -> bool:
        """Have modules fetched; return whether there is anything of them now. `why` is told to the user."""
        if not numbers or self.request is None:
            return False
        response = self.request({"modules": numbers, "why": why}) or {"modules": [], "problem": "there is no response"}
        fetched = dict(response["modules"])
        self.problem = str(response["problem"])
        self.deferred -= set(fetched if self.problem else numbers)
        if fetched:
            for number, planned in fetched.items():
                self._planned[number] = planned
                if self._given[number] is not None:
                    self._target.RemoveModule(self._given[number])
            self._add(fetched)
            map_sources(self._lldb, self._debugger, response["source_map"], self._target)
        return bool(fetched)

    def _add(self, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        with without_scripts(self._lldb, self._debugger):
            for number in numbers:
                planned = self._planned[number]
                self._given[number], self.reports[number] = module, _ = self._module(planned)
                if module is not None and planned["layout"]:
                    slides = self._slides.setdefault(planned["layout"], Counter())
                    slides[planned["address"] - _base(module)] += 1
            for number in numbers:
                if self._given[number] is not None:
                    self._place(self._planned[number], self._given[number], self.reports[number])

    def _module(self, planned: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Add one module, checked: LLDB itself checks neither architecture nor UUID, nor whether a dSYM fits.

        Return the module that is to be placed, or None if there is none, and the report on it.
        """
        report: dict[str, Any] = {"state": "missing", "symbols": False, "file_address": None, "detail": ""}
        uuid = planned["uuid"] or ""
        if planned["executable"]:
            if uuid in self._own:
                self._target.RemoveModule(self._own[uuid])  # else AddModule would give it back instead of the file
            module = self._target.AddModule(planned["executable"], None, uuid, planned["symbols"])
            if not module.IsValid():
                report["state"], report["detail"] = "rejected", "LLDB does not take the file"
            elif uuid and uuid_of(module) != uuid:
                report["state"], report["detail"] = "rejected", "the file has UUID " + uuid_of(module)
                self._target.RemoveModule(module)
            else:
                report["state"], report["file_address"] = "loaded", _base(module)
                if planned["symbols"]:
                    spec = module.GetSymbolFileSpec()
                    report["symbols"] = path_of(spec) == planned["symbols"]
                return module, report
            if uuid in self._own:
                self._target.AddModule(self._own[uuid])
                self._target.SetModuleLoadAddress(self._own[uuid], planned["address"] - _base(self._own[uuid]))
        if planned["symbols_only"] and not (uuid in self._own and self._own[uuid].FindSection("__TEXT").IsValid()):
            if uuid in self._own:
                self._target.RemoveModule(self._own[uuid])
            module = self._target.AddModule(planned["placeholder"], None, None, planned["symbols"])
            if module.IsValid():
                if path_of(module.GetSymbolFileSpec()) == planned["symbols"]:
                    report["state"], report["symbols"], report["file_address"] = "symbols", True, _base(module)
                return module, report
        if uuid in self._own:
            # Either the core itself holds the image, or this is LLDB's own placeholder, as it makes them for minidumps.
            if self._own[uuid].FindSection("__TEXT").IsValid():
                report["state"] = "memory"
                if planned["symbols"]:
                    command = "target symbols add " + quoted(planned["symbols"])
                    run(self._lldb, self._debugger, command, self._target)
                    report["symbols"] = path_of(self._own[uuid].GetSymbolFileSpec()) == planned["symbols"]
        elif planned["placeholder"]:
            module = self._target.AddModule(planned["placeholder"], None, None, None)
            if module.IsValid():
                return module, report
        return None, report

    def _place(self, planned: dict[str, Any], module: Any, report: dict[str, Any]) -> None:
        """Slide a module so that its header lies at its address; if its layout is another, its code only.

        An image as another shared cache lays it out has its code and data at other distances. One slide for all would
        put its data where other modules have their code, and LLDB would take that code for this data.
        """
        slide = planned["address"] - _base(module)
        slides = self._slides.get(planned["layout"])
        whole = slides is None or slides.most_common(1)[0][0] == slide
        text = None if whole else module.FindSection("__TEXT")  # which reads the module's symbols
        if text is None or not text.IsValid():
            error = self._target.SetModuleLoadAddress(module, slide)
        else:
            error = self._target.SetSectionLoadAddress(text, planned["address"])
        if error.Fail():
            report["detail"] = error.GetCString() or "LLDB does not place it"


def _base(module: Any) -> int:
    """Return the address that a module's header was linked for."""
    return int(module.GetObjectFileHeaderAddress().GetFileAddress())


@contextmanager
def without_scripts(lldb: Any, debugger: Any) -> Iterator[None]:
    """Have LLDB not look for scripts that come with new modules: for that it reads the symbols of each of hundreds."""
    scripts = debugger.GetScriptLanguage()
    debugger.SetScriptLanguage(lldb.eScriptLanguageNone)
    try:
        yield
    finally:
        debugger.SetScriptLanguage(scripts)


def map_sources(lldb: Any, debugger: Any, pairs: list[list[str]], about: Any = None) -> None:
    """Have LLDB look for sources in other folders than those that the compiler recorded: [[recorded, here], …]."""
    for source, destination in pairs:
        run(lldb, debugger, "settings append target.source-map " + quoted(source) + " " + quoted(destination), about)


def run(lldb: Any, debugger: Any, command: str, about: Any = None) -> None:
    """Have LLDB follow a command, about a target or process, or else what is selected; nothing is printed."""
    context = [] if about is None else [lldb.SBExecutionContext(about)]
    debugger.GetCommandInterpreter().HandleCommand(command, *context, lldb.SBCommandReturnObject())


def uuid_of(module: Any) -> str:
    """Return a module's UUID in upper case, empty if it has none."""
    return (module.GetUUIDString() or "").upper()


def path_of(spec: Any) -> str:
    """Return the path that an SBFileSpec is of."""
    folder, name = spec.GetDirectory() or "", spec.GetFilename() or ""
    return folder + "/" + name if folder and folder != "/" else folder + name


def quoted(text: str) -> str:
    """Return one argument of a command."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
