"""Commands of the prompt that need modules which have not been fetched: they are fetched before LLDB sees the command.

Loaded by `worker.py` from the file beside it, as that is: standard library only, Python 3.9.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .worker_modules import Modules, quoted, run

__all__ = ["Commands", "load"]

_LOOKUPS = (
    "disassemble",
    "source info",
    "source list",
    "target modules dump line-table",
    "target modules dump sections",
    "target modules dump symtab",
    "target modules lookup",
    "target modules show-unwind",
    "target variable",
)
"""Commands that look into modules, and do nothing else."""
_MARK = "  (not fetched)"
_HELP = "Fetch modules: all that are not fetched, or with names or UUIDs those."
_current: list[Modules] = []
"""Of the dump that is open, for `load`, which LLDB calls by its name."""


class Commands:
    """Puts itself in front of LLDB's commands, and adds `symcache load`."""

    def __init__(self, lldb: Any, debugger: Any, process: Any, modules: Modules, write: Callable[[str], None]) -> None:
        self._lldb, self._debugger, self._process = lldb, debugger, process
        self._modules, self._write = modules, write
        self._busy = False
        _current[:] = [modules]
        self._in_front = [
            self._put_in_front("target modules list", self._list),
            self._put_in_front("thread backtrace", self._backtrace),
            *(self._put_in_front(command, self._look_up) for command in _LOOKUPS),
        ]
        run(lldb, debugger, "script import " + __name__)
        run(lldb, debugger, "command container add -h 'Modules that are not fetched yet.' symcache")
        run(lldb, debugger, f"command script add -o -h '{_HELP}' -f {__name__}.load symcache load")

    def introduction(self) -> str:
        """Return what the user should know about modules that are not there."""
        count = len(self._modules.deferred)
        if not count:
            return ""
        fetched = "`image lookup` and `disassemble` fetch what they need, " if any(self._in_front) else ""
        one = "1 module, which" if count == 1 else f"{count} modules, which"
        return f"\nnot fetched: {one} no stack points into; {fetched}`symcache load` fetches all\n"

    def fetch(self, numbers: list[int], why: str) -> None:
        """Have modules fetched, and say which could not be."""
        self._modules.fetch(numbers, why)
        if self._modules.problem:
            self._write(f"not fetched: {self._modules.problem}\n")

    def _put_in_front(self, command: str, handle: Callable[..., bool]) -> bool:
        def handled(*words: str) -> bool:
            if self._busy or not self._modules.deferred:
                return False
            self._busy = True
            try:
                return handle(list(words))
            except Exception as error:
                self._write(f"error: {type(error).__name__}: {error}\n")
                return False
            finally:
                self._busy = False

        try:
            return bool(self._debugger.GetCommandInterpreter().SetCommandOverrideCallback(command, handled))
        except (AttributeError, TypeError, NotImplementedError):
            return False  # an old version

    def _output(self, words: list[str]) -> str:
        """Return what a command prints."""
        result = self._lldb.SBCommandReturnObject()
        line = " ".join(word if re.fullmatch(r"[\w./:+=-]+", word) else quoted(word) for word in words)
        self._debugger.GetCommandInterpreter().HandleCommand(line, result, False)
        return (result.GetOutput() or "") if result.Succeeded() else ""

    def _look_up(self, words: list[str]) -> bool:
        why = "for `{}`".format(" ".join(words).replace("target modules", "image"))
        addresses = [address for address in map(self._address, words) if address is not None]
        wanted = {n for n in map(self._modules.deferred_at, addresses) if n is not None}
        wanted.update(self._modules.named(words))
        if wanted:
            self.fetch(sorted(wanted), why)
        left = sorted(self._modules.deferred)
        if not left or wanted:
            return False
        if not self._output(words).strip():
            self.fetch(left, why)
        elif not addresses and "lookup" in words:
            self._write(f"not looked into: {len(left)} modules that are not fetched (`symcache load`)\n")
        return False

    def _address(self, word: str) -> Any:
        """Return the address that a word is: a number, or the name of a register (`$x0`)."""
        if word.startswith("$"):
            register = self._process.GetSelectedThread().GetSelectedFrame().FindRegister(word[1:])
            return register.GetValueAsUnsigned() if register.IsValid() else None
        try:
            return int(word, 0)
        except ValueError:
            return None

    def _backtrace(self, words: list[str]) -> bool:
        threads = [self._process.GetThreadAtIndex(n) for n in range(self._process.GetNumThreads())]
        if "all" not in words:
            numbers = {word for word in words if word.isdigit()}
            selected = self._process.GetSelectedThread().GetIndexID()
            threads = [t for t in threads if t.GetIndexID() == selected or str(t.GetIndexID()) in numbers]
        self._modules.complete(threads)
        return False

    def _list(self, words: list[str]) -> bool:
        output, modules = self._output(words), self._modules
        numbers = {modules.listed_uuid(n): n for n in modules.deferred}
        paths = {modules.path_of(n) for n in modules.deferred}
        for line in output.splitlines():
            words = line.split()
            number = next((numbers[word] for word in words if word in numbers), None)
            if number is not None:
                self._write(line.replace(modules.listed_uuid(number), modules.uuid(number)) + _MARK + "\n")
            else:
                self._write(line + (_MARK if paths.intersection(words) else "") + "\n")
        return bool(output)


def load(debugger: Any, command: str, result: Any, _: Any) -> None:
    """Fetch modules: all that are not fetched, or those that are named."""
    del debugger
    result.AppendMessage(_current[0].load(command.split()))
