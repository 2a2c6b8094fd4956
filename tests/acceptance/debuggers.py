"""`symcache setup lldb` and dsymForUUID, with the LLDB of Xcode and a server of its own."""

from __future__ import annotations

import json
import plistlib
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from symcache.macho import identify
from symcache.model import uuid_text
from tests.acceptance.crashes import DWARF, FRAMES
from tests.acceptance.mac import Mac
from tests.acceptance.part import Part, SkippedError

__all__ = ["debuggers"]

_DOMAIN, _KEY = "com.apple.DebugSymbols", "DBGShellCommands"
_SECONDS = 300


def debuggers(mac: Mac, part: Part) -> None:
    """Everything is taken back at the end. A hook that is set already is never touched: then the part is skipped."""
    if mac.run("defaults", "read", _DOMAIN, _KEY).stdout.strip():
        raise SkippedError(
            f"{_KEY} of {_DOMAIN} is set already", f"defaults delete {_DOMAIN} {_KEY}, if you can do without"
        )
    if not mac.dumps:
        raise SkippedError("there is no dump", "run the part `crashes` before it")
    mac.command("xcrun")
    library = mac.libraries.get(mac.native_arch) or mac.work / "library-programs"
    for _, folder in mac.dumps.values():
        mac.run("symcache", "add", folder / "crash", "--library", library)
        added = mac.run("symcache", "add", folder / "crash.dSYM", "--library", library)
        part.check(added.returncode == 0, "a dSYM was not added", status=added.returncode, said=added.stderr)
    init = mac.work / "lldbinit"
    with _server(mac, library) as url:
        done = mac.run("symcache", "setup", "lldb", "--server", url, "--init-file", init)
        part.check(done.returncode == 0, "setup lldb failed", status=done.returncode, said=done.stderr)
        try:
            for arch, (dump, folder) in mac.dumps.items():
                with part.optional(f"symcache load, {arch}"), part.timed(f"symcache load, {arch}"):
                    commands = [f"command source {init}", f'symcache load "{dump}"', "thread backtrace"]
                    said = _lldb(mac, commands)
                    found = re.findall(r"^\s*\*?\s*frame #\d+: 0x[0-9a-f]+ \S+`(\w+)", said, re.MULTILINE)
                    left = iter(found)
                    part.check(
                        all(n in left for n in FRAMES), "load shows another backtrace", arch=arch, named=len(found)
                    )
                with part.optional(f"dsymForUUID, {arch}"), part.timed(f"dsymForUUID, {arch}"):
                    _dsym_for_uuid(mac, part, url, arch, identify(folder / DWARF)[0].uuid)
        finally:
            undone = mac.run("symcache", "setup", "lldb", "--undo", "--init-file", init)
            part.check(undone.returncode == 0, "undo failed", status=undone.returncode, said=undone.stderr)
            part.check(not mac.run("defaults", "read", _DOMAIN, _KEY).stdout.strip(), "undo left the hook")
            part.check(not init.exists(), "undo left the init file")


def _lldb(mac: Mac, commands: list[str]) -> str:
    options = [option for command in commands for option in ("-o", command)]
    return mac.run("xcrun", "lldb", "--no-lldbinit", "--batch", *options, seconds=_SECONDS).stdout


def _dsym_for_uuid(mac: Mac, part: Part, url: str, arch: str, uuid: UUID | None) -> None:
    text = uuid_text(uuid) if uuid else ""
    said = mac.run("symcache", "dsymforuuid", text, "--server", url).stdout
    reply = plistlib.loads(said.encode()).get(text, {})
    part.check("DBGDSYMPath" in reply, "dsymforuuid names no dSYM", arch=arch, error=reply.get("DBGError", ""))
    # LLDB itself asks the hook for a UUID that no file on this Mac has: one that only the library knows.
    shown = _lldb(mac, [f"target symbols add --uuid {text}", "target list"])
    part.facts[f"LLDB after add --uuid, {arch}"] = "added" if "has been added" in shown else "not added"


@contextmanager
def _server(mac: Mac, library: Path) -> Iterator[str]:
    command = [*mac.command("symcache"), "serve", "--port", "0", "--json", "--library", str(library)]
    server = subprocess.Popen(
        command,
        env=mac.environment,
        cwd=mac.work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        if not line:
            raise OSError("the server did not start")
        yield json.loads(line)["url"]
    finally:
        server.terminate()
        server.wait(60)
