"""What this Mac is, and whether what symcache needs of it is there."""

from __future__ import annotations

import platform
import plistlib
import re
from importlib import metadata
from pathlib import Path

from symcache.dyld import platform_identifier
from symcache_provisioning.sources.release import MODEL
from tests.acceptance.mac import GIB, Mac
from tests.acceptance.part import Part
from tests.acceptance.signatures import signature_of

__all__ = ["set_up", "system"]

_SW_VERS = {"ProductName": "ProductName", "ProductVersion": "ProductVersion", "BuildVersion": "ProductBuildVersion"}
"""What sw_vers prints, and where SystemVersion.plist has it."""
_PLIST = "/System/Library/CoreServices/SystemVersion.plist"
_MANY = 20
_PLATFORM = re.compile(r"^Platform identifier=(\d+)$", re.MULTILINE)


def system(mac: Mac) -> dict[str, str | int]:
    """Return what identifies the kind of Mac, and nobody's in particular."""
    model = mac.says("sysctl", "-n", "hw.model")
    sip = re.search(r"\b(enabled|disabled|unknown)\b", mac.says("csrutil", "status"))
    return {
        "version": mac.says("sw_vers", "-productVersion"),
        "build": mac.says("sw_vers", "-buildVersion"),
        "machine": mac.says("uname", "-m"),
        "model": model if MODEL.fullmatch(model) else "",
        "integrity_protection": sip[1] if sip else "unknown",
        "virtual": mac.says("sysctl", "-n", "kern.hv_vmm_present"),
        "python": platform.python_version(),
        "symcache": metadata.version("symcache"),
        "commit": mac.says("git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"),
        "xcode": mac.says("xcodebuild", "-version"),
        "memory_gib": int(mac.says("sysctl", "-n", "hw.memsize") or 0) // GIB,
        "free_disk_gib": mac.free // GIB,
    }


def set_up(mac: Mac, part: Part) -> None:
    """Programs that are parsed print what was documented, and LLDBs can be imported."""
    printed = mac.run("sw_vers").stdout
    values = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in printed.splitlines())}
    plist = plistlib.loads(mac.at(_PLIST).read_bytes())
    for key, name in _SW_VERS.items():
        part.check(values.get(key) == plist.get(name), "sw_vers differs from SystemVersion.plist", key=key)
    part.check(mac.release.build == values.get("BuildVersion"), "another build was read", read=mac.release.build)
    part.facts["make"] = mac.says("make", "--version")
    part.facts["dsc_extractor.bundle"] = (
        mac.says("lipo", "-archs", str(mac.at("/usr/lib/dsc_extractor.bundle"))) or "none"
    )
    for lldb, version in mac.lldbs:
        part.row("lldb", origin=lldb.origin, version=version or "cannot be imported")
    part.check(
        any(r["version"] != "cannot be imported" for r in part.tables.get("lldb", ())), "no LLDB can be imported"
    )
    with part.optional("platform identifiers of programs"):
        _platform_identifiers(mac, part)


def _platform_identifiers(mac: Mac, part: Part) -> None:
    """Whether code signatures say which programs are the system's, as `codesign` reads them and as we do."""
    for folder, programs in (("/usr/bin", "*"), ("/Applications", "*.app/Contents/MacOS/*")):
        looked = 0
        for program in sorted(mac.at(folder).glob(programs)):
            signature = signature_of(program) if program.is_file() and not program.is_symlink() else b""
            if not signature:
                continue
            looked += 1
            match = _PLATFORM.search(mac.run("codesign", "-dvv", program, seconds=30).stderr)
            theirs = int(match[1]) if match else 0
            ours = platform_identifier(signature, program.name)
            # What the user has installed is nobody's business.
            name = program.name if folder == "/usr/bin" else f"number {looked}"
            part.check(ours == theirs, "another platform identifier", ours=ours, codesign=theirs, program=name)
            if looked >= _MANY:
                break
