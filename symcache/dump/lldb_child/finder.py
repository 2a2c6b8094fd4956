"""Finds an LLDB that some Python on this machine can import. `python -m symcache.dump.lldb_child.finder` says which.

In this order: on a Mac Xcode's, which knows Swift; the wheel in this environment; LLDB packages of Debian and others
(`lldb-19`, `lldb`).
This file, those that begin with `worker`, and `symcache/text.py` also run under those other Pythons, by themselves:
standard library only, Python 3.9.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["LldbPython", "candidates", "find_lldb", "import_lldb"]

_WHEEL = "lldb-for-pwndbg"
_TIMEOUT = 60
"""Seconds for one try. A cold disk needs some to read 200 MB; Xcode may first verify its signature."""


class LldbPython(NamedTuple):
    """An LLDB and the Python that can import it."""

    interpreter: str
    package_folder: str
    """To be put in front of `sys.path`; empty where `lldb` is installed like any package."""
    library: str
    """To be loaded as the extension module `_lldb`; empty where the package finds it itself."""
    origin: str

    def command(self, script: str, *arguments: str) -> list[str]:
        """Return the command that runs a script without the working folder, and that of the script, on `sys.path`.

        Of our own Python, the user's site stays: the wheel may lie there. Another one may not know `-P` (3.11).
        """
        return [self.interpreter, "-P" if self.interpreter == sys.executable else "-I", script, *arguments]


def import_lldb(package_folder: str = "", library: str = "") -> Any:
    """Return the module `lldb` with a working `SBDebugger`. Raises ImportError.

    Debian's package holds a dangling link where its extension module should be: with `library` (liblldb itself,
    which is what the link should lead to) it is loaded beforehand under the names that the package looks for.
    """
    if library:
        loader = importlib.machinery.ExtensionFileLoader("_lldb", library)
        spec = importlib.util.spec_from_file_location("_lldb", library, loader=loader)
        if spec is None:
            raise ImportError(library + ": cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        sys.modules["_lldb"] = sys.modules["lldb._lldb"] = module
    if package_folder:
        sys.path.insert(0, package_folder)  # it holds nothing else, and another lldb may be installed
    import lldb  # noqa: PLC0415 (its path was only now completed)

    if not hasattr(lldb, "SBDebugger"):
        raise ImportError("the package lldb is empty")
    return lldb


def candidates() -> Iterator[LldbPython]:
    """Yield every LLDB worth a try, best first; only the wheel's presence has been checked."""
    if sys.platform == "darwin" and shutil.which("xcrun"):
        folder = _python_folder(["xcrun", "lldb"])
        interpreter = _output(["xcrun", "-f", "python3"])
        if folder and interpreter:
            yield LldbPython(interpreter, folder, "", "Xcode's LLDB")
    yield LldbPython(sys.executable, "", "", _wheel() or "Python package lldb")
    for tool in _tools():
        folder = _python_folder([tool])
        if folder:
            library = _debian_library(tool)
            for interpreter in dict.fromkeys(("/usr/bin/python3", sys.executable)):
                if Path(interpreter).exists():
                    yield LldbPython(interpreter, folder, library, tool)


def _wheel() -> str:
    """Return name and version of the wheel, empty where it is not installed.

    By the name of its metadata's folder: `importlib.metadata`, which would tell as well, takes long to import.
    """
    prefix = _WHEEL.replace("-", "_") + "-"
    for folder in sys.path:
        for found in Path(folder or ".").glob(prefix + "*.dist-info"):
            return f"{_WHEEL} {found.name[len(prefix) : -len('.dist-info')]}"
    return ""


@functools.cache
def find_lldb() -> LldbPython | None:
    """Return the first LLDB that can be imported, or None. The wheel is taken at its word."""
    for candidate in candidates():
        if candidate.origin.startswith(_WHEEL) or try_import(candidate):
            return candidate
    return None


def try_import(candidate: LldbPython) -> str:
    """Return the version of an LLDB that can be imported, in a process of its own; empty if it cannot."""
    script = str(Path(__file__).resolve())
    command = candidate.command(script, "--try", candidate.package_folder, candidate.library)
    return _output(command, {name: value for name, value in os.environ.items() if name != "PYTHONPATH"})


def _tools() -> list[str]:
    """Return the LLDB programs on the path, newest first; a plain `lldb` last."""
    tools: dict[int, str] = {}
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for path in Path(folder or ".").glob("lldb-[0-9]*"):
            match = re.fullmatch(r"lldb-(\d+)", path.name)
            if match:
                tools.setdefault(int(match.group(1)), str(path))
    newest_first = [tools[number] for number in sorted(tools, reverse=True)]
    plain = shutil.which("lldb")
    return [*newest_first, plain] if plain else newest_first


def _python_folder(tool: list[str]) -> str:
    folder = _output([*tool, "-P"])
    return folder if folder and Path(folder, "lldb").is_dir() else ""


def _debian_library(tool: str) -> str:
    """Return the liblldb of a Debian package, whose program is /usr/lib/llvm-N/bin/lldb."""
    prefix = Path(tool).resolve().parent.parent
    if not str(prefix).startswith("/usr/lib/llvm-"):
        return ""
    libraries = sorted((prefix / "lib").glob("liblldb*.so.1"))
    return str(libraries[0]) if libraries else ""


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return what a program printed, without the line end; empty if it failed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            cwd="/",
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _main(arguments: list[str]) -> int:
    if arguments[:1] == ["--try"]:
        try:
            lldb = import_lldb(*arguments[1:3])
        except (ImportError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
        sys.stdout.write(lldb.SBDebugger.GetVersionString().split("\n")[0] + "\n")
        return 0
    for candidate in candidates():
        version = try_import(candidate)
        if version:
            sys.stdout.write(f"{version} ({candidate.origin}, {candidate.interpreter})\n")
            return 0
    sys.stderr.write("error: no LLDB was found that Python can import\n")
    sys.stderr.write(f"next: {next_step()}\n")
    return 3


def next_step() -> str:
    """Return how to get an LLDB on this system."""
    # As `own_program.pip_install` does it, which other Pythons do not have.
    wheel = f"install the wheel: {shlex.quote(sys.executable)} -m pip install {shlex.quote(_WHEEL)}"
    if sys.platform == "darwin":
        return f"install Xcode's command line tools (xcode-select --install), or {wheel}"
    if shutil.which("apt-get"):
        return f"{wheel} (or Debian's: apt-get install lldb-19 python3-lldb-19)"
    return wheel


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1:]))
