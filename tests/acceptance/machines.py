"""The drivers whose programs are installed, and one of them on a throw-away VM, if one is named (`--vm`)."""

from __future__ import annotations

import json
from pathlib import Path

from symcache_provisioning import DRIVERS
from tests.acceptance.mac import Mac
from tests.acceptance.part import Part, SkippedError

__all__ = ["machines"]

_PROGRAMS = {
    "tart": ("tart", "--version"),
    "anka": ("anka", "version"),
    "parallels": ("prlctl", "--version"),
    "vmware": ("vmrun",),
    "utm": ("utmctl", "version"),
    "libvirt": ("virsh", "--version"),
    "qemu": ("qemu-img", "--version"),
}
"""What each driver runs, and how that tells its version."""
_SECONDS = 1800


def machines(mac: Mac, part: Part) -> None:
    """A VM is cloned, started, looked at over SSH, and destroyed; the image itself is never started."""
    for driver in (d for d in DRIVERS if d in _PROGRAMS):
        program, *version = _PROGRAMS[driver]
        if mac.has(program):
            part.row("drivers", driver=driver, version=mac.says(program, *version) or "does not say")
    if mac.options.vm is None:
        raise SkippedError("no VM is named", "name the image of a throw-away one, e.g. --vm tart=my-macos")
    driver, image = mac.options.vm
    inventory = mac.work / "machines.toml"
    login = [f"password_env = {json.dumps(mac.options.password_env)}"] if mac.options.password_env else []
    lines = ["[machines.throwaway]", f"driver = {json.dumps(driver)}", f"image = {json.dumps(image)}", *login]
    inventory.write_text("\n".join(lines) + "\n")
    common: list[str | Path] = ["--machines", inventory, "--json"]
    with part.timed("up, doctor and down"):
        done = mac.run("symcache", "vm", "doctor", "throwaway", "--up", "--trust-new-host", *common, seconds=_SECONDS)
    reports = json.loads(done.stdout) if done.stdout.strip() else {}
    part.check(bool(reports), "doctor failed", driver=driver, status=done.returncode, said=done.stderr[-300:])
    for check in reports.get("throwaway", ()):
        part.check(check["verdict"] != "fail", "doctor", what=check["check"], text=check["text"])
    listed = json.loads(mac.run("symcache", "vm", "list", *common).stdout or "{}")
    part.check(not listed.get("orphans"), "a clone was left", driver=driver)
