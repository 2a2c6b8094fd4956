"""What the user does: `make` a library and a home, `ask` what is in them, and `act` on them.

What is kept in `ask` follows from the library and the home alone; what is kept in `act`, from the run as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from uuid import UUID

from tests.contracts.session import Session
from tests.support.http import request
from tests.support.waiting import until

__all__ = ["LEDGER", "act", "act_server", "ask", "make"]

LEDGER = "4C4C4498-5555-3144-A1BE-5EBD5F33CF3B"
"""Of the crashed program, arm64."""
_KIT = "4C4C440A-5555-3144-A103-5E8BD41F21B6"
_LEDGER_X86 = "4C4C4466-5555-3144-A1F6-9C95EBD85AD9"
_SYSTEM = {
    "4C4C442D-5555-3144-A1A2-E6A8DFF61C56": 0x187C1A000,
    "4C4C4408-5555-3144-A1CE-898B4CF6C592": 0x187C1D000,
    "4C4C440B-5555-3144-A112-2FFDBC1873D4": 0x187C21000,
}
"""Images of the arm64e shared cache, with their addresses in the crashed process. The last is libsystem_c."""
_LIBC = list(_SYSTEM)[-1]
_CACHE = "E52CF729-434C-366F-987E-FE13A49799DF"
_ARCHES = ("--arch", "arm64e", "--arch", "x86_64")
_NOBODY = str(UUID(int=1)).upper()
_CACHE_FILE = "System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld/dyld_shared_cache_arm64e"


def make(user: Session) -> None:
    """Write every kind of record, of cached file and of state that there is."""
    _library(user)
    for name, scope in (("ci", "write"), ("watch", "admin")):
        token = user.run("token", "create", name, "--scope", scope)
        (user.home / f"token-{name}").write_text(token.strip())
    # What is fetched from a server is remembered with its URL, so the port is not just any.
    with user.serving("--sources", f"/Users/dev/Ledger={user.inputs / 'sources'}", port=8080):
        _cache(user)
    user.run("rebuild", "--snapshot", *user.library)
    user.run("vm", "up", "clone")
    (running,) = (m["pid"] for m in user.guests.machines.values() if "pid" in m)
    os.kill(running, signal.SIGINT)  # its host loses power
    until(lambda: all(m["state"] == "stopped" for m in user.guests.machines.values()))
    machines = {name: {k: v for k, v in m.items() if k != "pid"} for name, m in user.guests.machines.items()}
    (user.home / "guests.json").write_text(json.dumps(machines))
    (user.home / ".lldbinit").write_bytes((user.inputs / "lldbinit").read_bytes())
    user.run("setup", "lldb", "--server", "http://symbols.example:8080", "--build", "22G830")


def _library(user: Session) -> None:
    raw = ("--extractor", "raw", *user.library)
    user.run("harvest", "ventura", "--extractor", "util", *user.library)
    user.run("harvest", "ventura", *raw)
    user.run("harvest", "early", *raw, code=1)
    user.run("harvest", "halfway", *raw, code=1)
    (user.inputs / "host/Volumes/Halfway/usr/lib/libbroken.dylib").unlink()
    user.run("harvest", "halfway", *raw)
    user.run("harvest", "rapid", "--no-keep-caches", *raw)
    user.run("harvest", "withdrawn", *raw)
    user.run("remove", "22E252", "--reason", "withdrawn by Apple", *user.library)
    app = user.inputs / "app"
    user.run("add", *sorted((app / "arm64").iterdir()), *user.library)
    user.run("add", app / "x86_64/Ledger.app", app / "x86_64/Ledger.app.dSYM", *user.library)
    rival = user.inputs / "rival/Ledger"
    user.run("add", rival, *user.library)
    user.run("prefer", _LEDGER_X86, _sha256(rival), *user.library)
    user.run("add", "--origin", user.inputs / "share", *user.library, code=1)


def _cache(user: Session) -> None:
    user.run("push", user.inputs / "app/x86_64/LedgerKit.framework.dSYM", *user.own_server)
    server = ("--server", user.url)
    user.run("get", LEDGER, *server)
    user.run("get", LEDGER, "--kind", "debuginfo", *server)
    user.run("get", _LIBC, "--build", "22G830", *server)
    user.run("get", _LIBC, "--cache", _CACHE, *server)
    user.run("get", _NOBODY, *server, code=1)
    request(user.url, f"/libnobody.dylib/mach-uuid-{_NOBODY.replace('-', '').lower()}/libnobody.dylib")
    user.run("analyze", user.inputs / "dumps/arm64.zip", "--source", *server)


def ask(user: Session) -> None:
    """Ask everything that changes nothing, of commands and of the server."""
    user.fixed = True
    _ask_library(user)
    _ask_verify(user)
    _ask_home(user)
    _ask_files(user)
    _ask_server(user)


def _ask_library(user: Session) -> None:
    inputs = user.inputs
    user.tell("releases", "releases", *user.library)
    user.tell("releases-list", "releases", "--list", inputs / "available.txt", *user.library)
    user.tell("lookup-uuid", "lookup", LEDGER, *user.library)
    user.tell("lookup-rivals", "lookup", _LEDGER_X86, "--kind", "executable", *user.library)
    user.tell("lookup-variants", "lookup", "libsystem_c*", *user.library)
    user.tell("lookup-imported", "lookup", "/usr/bin/true", "--build", "21G115", *user.library)
    user.tell("stats", "stats", *user.library)
    user.tell("missing", "missing", *user.library)
    user.tell("diff", "diff", "22G74", "22G830", *user.library)
    user.tell("fsck", "fsck", "--read-data", *user.library)
    user.tell("get", "get", LEDGER, *user.library)
    user.tell("dsymforuuid", "dsymforuuid", LEDGER, *user.library, plist=True)


def _ask_verify(user: Session) -> None:
    inputs = user.inputs
    user.tell("verify-bytes", "verify", "22G830", "--level", "bytes", *_ARCHES, *user.library)
    waived = ("--releases", inputs / "releases.toml", "--waivers", inputs / "waivers.toml")
    user.tell("verify-all", "verify", "--level", "catalog", *waived, *user.library)
    user.tell("verify-dump", "verify", "--dump", inputs / "dumps/arm64.zip", *user.library)
    user.tell("verify-uuids", "verify", "--uuids", inputs / "uuids.txt", *user.library)


def _ask_home(user: Session) -> None:
    user.tell("vm-list", "vm", "list")
    user.tell("token-list", "token", "list")
    user.tell("get-cached", "get", LEDGER)
    user.tell("get-cached-dsym", "get", LEDGER, "--kind", "debuginfo")
    user.tell("get-cached-build", "get", _LIBC, "--build", "22G830")
    user.tell("get-cached-cache", "get", _LIBC, "--cache", _CACHE)
    user.tell("analyze-cached", "analyze", user.inputs / "dumps/arm64.zip", "--source")


def _ask_files(user: Session) -> None:
    dumps = user.inputs / "dumps"
    several = ("ledger.ips", "none.zip")
    user.tell("analyze-several", "analyze", *(dumps / name for name in several), *user.library)
    for name in ("arm64.zip", "arm64.core", "ledger.dmp", "ledger.ips", "ledger.crash"):
        user.tell(f"info-{name.replace('.', '-')}", "info", dumps / name)
    user.tell("info-cache", "info", user.inputs / "host" / _CACHE_FILE)
    user.tell("info-universal", "info", user.inputs / "host/usr/bin/true")
    user.tell("info-dsym", "info", user.inputs / "app/arm64/Ledger.app.dSYM")


def _ask_server(user: Session) -> None:
    user.keep("serve", {"command": "symcache serve --json", "output": user.first_line})
    own, libc = LEDGER.replace("-", "").lower(), _LIBC.replace("-", "").lower()
    user.send("http-debuginfod", f"/buildid/{own}/executable", binary=True)
    user.send("http-dsym", f"/buildid/{own}/debuginfo", binary=True)
    user.send("http-section", f"/buildid/{own}/section/__TEXT,__text", binary=True)
    user.send("http-build-pin", f"/build/22G830/buildid/{libc}/executable", binary=True)
    user.send("http-cache-pin", f"/cache/{_CACHE}/buildid/{libc}/executable", binary=True)
    user.send("http-ssqp", f"/libsystem_c.dylib/mach-uuid-{libc}/libsystem_c.dylib", binary=True)
    user.send("http-unified", f"/{own[:2]}/{own[2:]}/debuginfo", binary=True)
    user.send("http-meta", f"/{own[:2]}/{own[2:]}/meta")
    user.send("http-raw-cache", f"/caches/{_CACHE}/dyld_shared_cache_arm64e", binary=True)
    api = "/api/v1"
    user.send("http-releases", f"{api}/releases")
    user.send("http-release", f"{api}/releases/22G830")
    user.send("http-coverage", f"{api}/coverage/22G830")
    user.send("http-images", f"{api}/images?name=libsystem_c*")
    user.send("http-uuid", f"{api}/uuids/{LEDGER}")
    user.send("http-missing", f"{api}/missing")
    user.send("http-tokens", f"{api}/tokens", token="watch")
    images: list[object] = [{"uuid": uuid, "load_address": address} for uuid, address in _SYSTEM.items()]
    images += [{"uuid": LEDGER}, {"uuid": _NOBODY}]
    user.send("http-uuids", f"{api}/uuids", "POST", {"images": images, "note_missing": False})
    user.send("http-nobody", f"{api}/uuids/{_NOBODY}")


def act(user: Session) -> None:
    """Run every command that changes something, and those whose answers are about the machine."""
    user.fixed = False
    _act_library(user)
    _act_machines(user)
    act_server(user)
    user.tell("gc", "gc", "--dry-run", *user.library)
    user.tell("fsck-repair", "fsck", "--repair", *user.library)


def _act_library(user: Session) -> None:
    inputs, app = user.inputs, user.inputs / "app"
    user.tell("add", "add", app / "arm64/Ledger.app", app / "arm64/Ledger.app.dSYM", *user.library)
    user.tell("add-origin", "add", "--origin", inputs / "share", *user.library)
    user.tell("prefer", "prefer", _LEDGER_X86, _sha256(app / "x86_64/Ledger.app/Contents/MacOS/Ledger"), *user.library)
    user.tell("reextract", "reextract", "22G830", "--force", *user.library)
    user.tell("remove", "remove", "22F770820d", *user.library)
    user.tell("rebuild", "rebuild", "--snapshot", *user.library)
    user.tell("extract", "extract", inputs / "host" / _CACHE_FILE, "-o", user.root / "extracted", "--image", "libsys*")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _act_machines(user: Session) -> None:
    raw = ("--extractor", "raw", *user.library)
    user.tell("harvest-partial", "harvest", "early", *raw)
    (user.inputs / "host/Volumes/Early/usr/lib/libbroken.dylib").unlink()
    user.tell("harvest-continued", "harvest", "early", *raw)
    user.tell("harvest-all", "harvest", "--all", "--tag", "lab", *user.library)
    user.tell("vm-doctor", "vm", "doctor", "ventura")
    user.tell("vm-provision", "vm", "provision", "ventura", "--dry-run")
    user.tell("vm-down", "vm", "down", "clone")
    user.tell("vm-up", "vm", "up", "clone")
    user.run("vm", "down", "--all")


def act_server(user: Session) -> None:
    """Have the server add binaries, and ask it by commands."""
    data = (user.inputs / "rival/Ledger").read_bytes()
    path = f"/api/v1/uploads/{hashlib.sha256(data).hexdigest()}"
    user.send("http-openapi", "/api/v1/openapi.json")
    user.send("http-upload-before", path, token="ci")
    user.send("http-upload", path, "PUT", data, token="ci")
    images = [{"sha256": path.rpartition("/")[2], "path": "Ledger.app/Contents/MacOS/Ledger"}]
    user.send("http-add", "/api/v1/uploads", "POST", {"images": images}, token="ci")
    user.tell("push", "push", user.inputs / "app/x86_64/Ledger.app", *user.own_server)
    user.tell("get-server", "get", _KIT, "--kind", "debuginfo", *user.own_server)
    user.tell("missing-server", "missing", *user.own_server, *user.library)
    user.tell("verify-server", "verify", "22G830", *_ARCHES, *user.own_server)
