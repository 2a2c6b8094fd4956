"""Images of crash reports as lines of text, as macOS and iOS list them.

`0x7ff80f1d5000 - 0x7ff80f26dfff libsystem_c.dylib (*) <23516be4-…> /usr/lib/system/libsystem_c.dylib`: first and last
address; a plus for what is not Apple's; name or bundle identifier, version, UUID, path. iOS writes the architecture in
place of a version, and old or foreign images have no UUID. Source: Apple's "Examining the fields in a crash report".
"""

from __future__ import annotations

import re

from symcache.reports.model import MAX_LINE, MAX_TEXT, ReportImage, uuid_of

__all__ = ["NOWHERE", "image_of"]

NOWHERE = "???"
"""In place of a name or an end that nobody knew; under it, frames in no image are gathered."""
_IMAGE = re.compile(r"\s*0x([0-9A-Fa-f]{1,16})\s+-\s+(0x[0-9A-Fa-f]{1,16}|\?\?\?)\s+(\S[^<]*)(?:<([^<>]*)>\s*(.*))?\Z")
_ARCHS = {
    "x86_64",
    "x86_64h",
    "arm64",
    "arm64e",
    "arm64_32",
    "armv6",
    "armv7",
    "armv7s",
    "armv7k",
    "i386",
    "ppc",
    "ppc64",
}
# `(?<!\s)`: else each blank of a long run would be tried as the first one.
_VERSION = re.compile(r"(?<!\s)\s+(?:\([^()]*\)|[\d.?]+ \([^()]*\)|\?\?\? \(\?\?\?\))\s*\Z")
_PACKAGE = re.compile(r"(?<!\s)\s+\{.*\}\Z")
"""What reporters of jailbroken phones know of an image."""


def image_of(line: str) -> ReportImage | None:
    """Return the image that a line describes. Return None if it describes none."""
    match = _IMAGE.match(line[:MAX_LINE])
    if match is None:
        return None
    start, end, named, uuid, path = match.groups()
    if uuid is None:
        named, slash, bare = named.partition(" /")
        path = slash[1:] + bare
    named, path = named[:MAX_TEXT], path[: 4 * MAX_TEXT].strip()
    words = named.split()
    arch = words[-1] if words[-1] in _ARCHS else ""
    if path.endswith("}"):
        path = _PACKAGE.sub("", path)
    path = path or _name(named, arch)
    identity = uuid_of(uuid)
    if not path and identity is None:
        return None
    address = int(start, 16)
    size = 0 if end == NOWHERE else max(0, int(end, 16) + 1 - address)
    return ReportImage(address, size, path[:MAX_TEXT], identity, arch)


def _name(named: str, arch: str) -> str:
    """Return the name that stands in front of version or architecture."""
    name = named.strip().removeprefix("+").strip()
    return name.removesuffix(arch).rstrip() if arch and name != arch else _VERSION.sub("", name)
