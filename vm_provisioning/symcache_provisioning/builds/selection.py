"""Selects the published builds that a site wants, and the firmware that may be downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from symcache.text import excerpt
from symcache.verify import SyncPolicy, version_number
from symcache_provisioning.builds.appledb import Firmware, PublishedBuild, PublishedBuilds

__all__ = ["APPLE_HOSTS", "build_order", "file_name", "select_builds", "usable_firmware"]

APPLE_HOSTS = frozenset(
    f"{name}apple.com" for name in ("appldnld.", "secure-appldnld.", "swcdn.", "updates.cdn-", "updates-http.cdn-")
)
"""Hosts of Apple that give firmware to everybody; developer.apple.com wants a log-in."""
_BUILD = re.compile(r"([0-9]{1,3})([A-Z])([0-9]{1,6})([a-z]?)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,+-]{0,200}\.ipsw")


def build_order(build: str) -> tuple[int, str, bool, int, str]:
    """Return what builds of macOS sort by, oldest first: the betas `26A5353q` of a release come before its `26A428`."""
    match = _BUILD.match(build)
    return (int(match[1]), match[2], not match[4], int(match[3]), match[4]) if match else (0, "", False, 0, build)


def select_builds(
    available: PublishedBuilds, policy: SyncPolicy, *, always: Sequence[str] = (), only: Sequence[str] = ()
) -> list[PublishedBuild]:
    """Return the builds that are wanted, newest first: `only` these if there are any, else by policy and `always`.

    What nobody publishes anything of, such as a build that new Macs come with, is wanted by name alone.
    """
    named = list(dict.fromkeys(only or [b for b in always if b not in policy.skip]))
    unlisted = ("AppleDB does not list it",)
    chosen = {build: available.builds.get(build, PublishedBuild(build, problems=unlisted)) for build in named}
    if not only:
        chosen |= {b.build: b for b in available.builds.values() if b.build not in policy.skip and _fits(b, policy)}
        lines = sorted({b.number[0] for b in chosen.values() if b.kind == "release"}, reverse=True)[: policy.lines]
        if policy.from_ is None and lines:
            chosen = {build: b for build, b in chosen.items() if b.number[0] >= lines[-1] or build in named}
    return sorted(chosen.values(), key=lambda b: build_order(b.build), reverse=True)


def _fits(build: PublishedBuild, policy: SyncPolicy) -> bool:
    """Return whether policy wants a build, but for how many lines there may be."""
    kinds = {"release": True, "rc": policy.rcs, "beta": policy.betas, "response": policy.responses}
    return (
        kinds.get(build.kind, False)
        and bool(build.firmware or build.others or build.problems)
        and not (policy.from_ and build.number < version_number(policy.from_))
        and not (policy.before and build.number >= version_number(policy.before))
    )


def usable_firmware(build: PublishedBuild, hosts: Sequence[str] = ()) -> tuple[Firmware | None, list[str]]:
    """Return the firmware that may be downloaded, or None, and why others may not.

    Apple's hosts may give it by HTTPS; `hosts` (`host` or `host:port`) in any way, if its SHA-256 is known.
    """
    reasons = list(build.problems)
    for firmware in build.firmware:
        try:
            url = urlsplit(firmware.url)
            host, port = url.hostname or "", url.port
        except ValueError:
            reasons.append(f"its firmware: {excerpt(firmware.url, 100)} is no URL")
            continue
        where = f"its firmware: {excerpt(f'{url.scheme}://{host}', 100)}"
        if url.username is not None or url.scheme not in {"http", "https"} or len(firmware.url) > 2048:
            reasons.append(f"{where}: no plain URL of a web server")
        elif host in APPLE_HOSTS and url.scheme == "https" and port in {None, 443}:
            return firmware, reasons
        elif host not in hosts and f"{host}:{port}" not in hosts:
            apple = " by https" if host in APPLE_HOSTS else ""
            reasons.append(f"{where}: none of Apple's hosts{apple}, and not named with --firmware-host")
        elif not firmware.sha256:
            reasons.append(f"{where}: none of Apple's hosts, and AppleDB has no SHA-256 of it")
        else:
            return firmware, reasons
    return None, reasons


def file_name(build: str, firmware: Firmware) -> str:
    """Return what a firmware is called here: as its publisher calls it, if that is a plain name."""
    name = urlsplit(firmware.url).path.rpartition("/")[2]
    return name if _NAME.fullmatch(name) else f"{build}.ipsw"
