"""The LLDB command `symcache load`: finds and loads the modules of the core that is open, or of a dump, then the rest.

`symcache setup lldb` copies this file and has LLDB import it at its start. Beside it lie `servers`, the value of
SYMCACHE_URL for our program where that is not set, and `settings.json`:

- `program`: the command by which the program symcache is run, a list, and `environment`, variables for it,
- `commands`: what LLDB is to run at its start; a version that does not know one goes without,
- `headers`: a file of HTTP headers that LLDB is to send with its own questions, or nothing.

It runs under whatever Python LLDB has: standard library only, Python 3.7. Whatever may change from one version to the
next comes from the program: it says which file (session.py) goes on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import lldb

_USAGE = (
    "symcache load [DUMP | MODULE...] [--symbols DIR] [--server URL] [--library PATH] [--build BUILD] [--cache UUID]"
    " [--source-map FROM=TO] [--all-modules]"
)
_helpers: list[subprocess.Popen[str]] = []
"""Programs that hold files which LLDB uses: they remove them and end when LLDB has ended."""
_dumps: dict[str, str] = {}
"""Cores that were unpacked, and what of."""
_sessions: dict[str, Any] = {}
"""Modules that go on once a dump is loaded, by their paths."""


def __lldb_init_module(debugger: Any, _session: dict[str, Any]) -> None:
    """Add the command; LLDB calls this when it imports the file."""
    settings = _settings()
    if settings["headers"]:
        os.environ.setdefault("DEBUGINFOD_HEADERS_FILE", settings["headers"])
    interpreter = debugger.GetCommandInterpreter()
    for line in settings["commands"]:
        interpreter.HandleCommand(line, lldb.SBCommandReturnObject())
    debugger.HandleCommand(f"command script add -f {__name__}.symcache -h 'Use: {_USAGE}' symcache")


def symcache(debugger: Any, arguments: str, result: Any, _session: dict[str, Any]) -> None:
    """Run `symcache load …`."""
    try:
        words = shlex.split(arguments)
        if words[:1] != ["load"] or "-h" in words or "--help" in words:
            raise ValueError("use: " + _USAGE)
        result.AppendMessage(_load(debugger, words[1:]))
    except (ValueError, OSError) as error:
        result.SetError(str(error))


def _load(debugger: Any, words: list[str]) -> str:
    for session in [] if any(word.startswith("-") for word in words) else _sessions.values():
        more = session.load_more(lldb, debugger, words)
        if more is not None:
            return str(more)
    opened = _open_core(debugger)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        helper = _ask([*words, *(["--open", _dumps.get(opened, opened)] if opened else [])], errors)
        line = helper.stdout.readline() if helper.stdout else ""
        errors.seek(0)
        said = errors.read().strip()
    if not line:
        helper.wait()
        raise ValueError(said.partition("error: ")[2] or said or "nothing was loaded")  # a terminal has seen why
    _helpers.append(helper)
    response = json.loads(line)
    _dumps[response["plan"]["core"]] = response["dump"]
    place = response["session"]
    session = _sessions[place] = _sessions.get(place) or _import(place)

    def request(wanted: Any) -> Any:
        if helper.stdin:
            helper.stdin.write(json.dumps(wanted) + "\n")
            helper.stdin.flush()
        return json.loads(helper.stdout.readline() or "null") if helper.stdout else None

    loaded = session.load(lldb, debugger, response, opened, request)
    return "\n".join(text for text in (said, loaded) if text)


def _ask(words: list[str], errors: Any) -> subprocess.Popen[str]:
    settings = _settings()
    # LLDB's Python may have been given a home and a path of its own, which are not the program's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    servers = _beside("servers").strip()
    if servers:
        environment.setdefault("SYMCACHE_URL", servers)
    environment.update(settings["environment"])
    command = [*settings["program"], "lldb-plan", *words]
    try:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,  # its end, when LLDB has ended, is what tells the program
            stdout=subprocess.PIPE,
            stderr=None if os.isatty(2) else errors,  # a terminal sees how far fetching is
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C at LLDB's prompt is for LLDB
        )
    except OSError as error:
        message = f"{command[0]}: {error.strerror}; if symcache was moved or updated, run `symcache setup lldb` again"
        raise OSError(message) from error


def _open_core(debugger: Any) -> str:
    """Return the path of the core that the selected target has open; empty if it has none, or LLDB does not tell."""
    process = debugger.GetSelectedTarget().GetProcess()
    if not process.IsValid() or not hasattr(process, "GetCoreFile"):
        return ""
    return process.GetCoreFile().fullpath or ""


def _settings() -> Any:
    return json.loads(_beside("settings.json"))


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _import(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("symcache_session", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module
