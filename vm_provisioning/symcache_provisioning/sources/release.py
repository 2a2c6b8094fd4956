"""Finding out the release of a system, from text that a guest wrote."""

from __future__ import annotations

import plistlib
import re
import stat
from collections.abc import Mapping
from typing import Any
from xml.parsers.expat import ExpatError

from symcache.errors import FormatError, RemoteError
from symcache.model import APPLE_BUILD, Release
from symcache.text import excerpt
from symcache_provisioning.sources.locations import SYSTEM_VERSION_PLISTS
from symcache_provisioning.sources.tree import Tree
from symcache_provisioning.ssh.packets import NoAccessError

__all__ = ["MODEL", "parse_sw_vers", "parse_system_version", "system_versions", "xml_property_list"]

MODEL = re.compile(r"[A-Za-z]{1,32}[0-9]{1,4},[0-9]{1,4}")
"""A model identifier, e.g. `Mac14,8`."""

_PLIST_LIMIT = 64 << 10
"""Bytes of a SystemVersion.plist that are read at most."""
_FINISH = "let the update finish, or copy the system anew, and harvest again"
_BUILD, _PLIST_BUILD = "BuildVersion", "ProductBuildVersion"
"""Names of the build in the output of sw_vers and in the property list."""
_RULES = {
    "ProductName": re.compile(r"[A-Za-z][A-Za-z0-9 ]{0,31}"),
    "ProductVersion": re.compile(r"[0-9]{1,4}(\.[0-9]{1,6}){0,3}"),
    "ProductVersionExtra": re.compile(r"(\([A-Za-z0-9 ]{1,8}\))?"),
    _BUILD: re.compile(APPLE_BUILD),
}


def system_versions(source: Tree) -> list[Release]:
    """Return the release that each SystemVersion.plist of a system names, the OS cryptex's first.

    That several builds are mixed becomes a problem: all but a Rapid Security Response bring all of them at once.
    """
    releases: list[Release] = []
    for path in SYSTEM_VERSION_PLISTS:
        try:
            entry = source.resolve(path)
            if entry is None or not stat.S_ISREG(entry.mode):
                continue
            data = source.read_head(entry.path, _PLIST_LIMIT)
        except NoAccessError:
            continue
        release = parse_system_version(data, f"{excerpt(entry.path)} of the source")
        if releases and release.build != releases[0].build and not releases[0].extra:
            source.problems.add(f"{excerpt(entry.path)}: is of {release}, and other parts of {releases[0]}", _FINISH)
        releases.append(release)
    return releases


def parse_sw_vers(output: bytes, host: str) -> Release:
    """Parse what `sw_vers` prints: `Key:`, tabs, value, a line each; unknown keys are passed over.

    Raises RemoteError for anything that macOS would not print there.
    """
    values: dict[str, str] = {}
    for line in output.decode("utf-8", "backslashreplace").splitlines():
        key, colon, value = line.partition(":")
        if colon and key in _RULES:
            if key in values:
                raise RemoteError(f"{host}: sw_vers names {key} twice")
            values[key] = value.strip(" \t")
    return _release(values, f"sw_vers on {host}")


def parse_system_version(data: bytes, where: str) -> Release:
    """Parse a SystemVersion.plist. Raises RemoteError for anything that macOS would not write there."""
    try:
        plist = xml_property_list(data, where)
    except FormatError as error:
        raise RemoteError(str(error)) from error
    values = {k: v for k, v in plist.items() if k in _RULES and k != _BUILD}
    if _PLIST_BUILD in plist:
        values[_BUILD] = plist[_PLIST_BUILD]
    return _release(values, where)


def xml_property_list(data: bytes, where: str) -> dict[str, Any]:
    """Parse a property list in XML that holds a dictionary. Raises FormatError."""
    if not data.startswith(b"<?xml"):
        # The binary form, which Apple does not use for these, may announce more objects than fit into memory.
        raise FormatError(f"{where}: begins with {excerpt(data[:8])!r}, which is no XML property list")
    try:
        plist = plistlib.loads(data, fmt=plistlib.FMT_XML)
    except (ExpatError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        # plistlib raises all of these for malformed dates, numbers and nesting.
        raise FormatError(f"{where}: not a property list: {excerpt(str(error))}") from error
    if not isinstance(plist, dict):
        raise FormatError(f"{where}: holds a {type(plist).__name__} where a dictionary was expected")
    return plist


def _release(values: Mapping[str, object], where: str) -> Release:
    for key, rule in _RULES.items():
        value = values.get(key, "" if key == "ProductVersionExtra" else None)
        if not isinstance(value, str) or not rule.fullmatch(value):
            text = "nothing" if value is None else excerpt(str(value), 60)
            raise RemoteError(f"{where} says {text} for {key}", hint="is that a macOS system?")
    return Release(
        product=str(values["ProductName"]),
        version=str(values["ProductVersion"]),
        extra=str(values.get("ProductVersionExtra", "")),
        build=str(values[_BUILD]),
    )
