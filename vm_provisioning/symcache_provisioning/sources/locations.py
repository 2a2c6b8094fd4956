"""Where macOS 10.13 to 27 keeps what is harvested. All paths are absolute in the harvested system."""

from __future__ import annotations

__all__ = ["CACHE_FOLDERS", "DEFAULT_ROOTS", "ROSETTA_CRYPTEX", "SKIPPED_FOLDERS", "SYSTEM_VERSION_PLISTS"]

_CRYPTEX = "/System/Volumes/Preboot/Cryptexes/OS"
"""The OS cryptex itself; /System/Cryptexes/OS is a link to it, and on some images a folder."""

ROSETTA_CRYPTEX = "/System/Volumes/Preboot/Cryptexes/Rosetta"
"""Of 27, which has it whether Rosetta is installed or not; linked to as the OS cryptex is."""
_ROSETTA = (
    ROSETTA_CRYPTEX,
    "/System/Cryptexes/Rosetta",
    "/System/Cryptexes/RosettaOS",  # what a restore image's manifest calls it; no Mac was seen with such a folder
)

CACHE_FOLDERS = (
    f"{_CRYPTEX}/System/Library/dyld",  # 13 and later
    f"{_CRYPTEX}/System/DriverKit/System/Library/dyld",
    f"{_CRYPTEX}/System/x86Support/System/Library/dyld",
    *(f"{cryptex}/System/Library/dyld" for cryptex in _ROSETTA),  # 27
    # Another cache of x86_64, whose files are named as those of the first.
    *(f"{cryptex}/System/x86Support/System/Library/dyld" for cryptex in _ROSETTA),
    "/System/Cryptexes/OS/System/Library/dyld",
    "/System/Cryptexes/OS/System/DriverKit/System/Library/dyld",
    "/System/Cryptexes/OS/System/x86Support/System/Library/dyld",
    "/System/Cryptexes/ExclaveOS/System/ExclaveKit/System/Library/dyld",  # 14.4 and later
    "/System/ExclaveKit/System/Library/dyld",
    "/System/DriverKit/System/Library/dyld",
    "/System/x86Support/System/Library/dyld",
    "/System/Library/dyld",  # 11 and 12
    "/private/var/db/dyld",  # 10.13 to 10.15, built on the machine
)
"""Folders of shared caches; folders that resolve to the same one are read once. An update that is only staged
(`Cryptexes/Incoming`) is no part of the running system."""

DEFAULT_ROOTS = (
    "/System/Library",
    "/System/iOSSupport",
    "/System/DriverKit",
    "/System/Applications",
    "/System/Cryptexes/OS",
    "/System/Cryptexes/App",
    *_ROSETTA,
    "/Library/Apple",
    "/usr/lib",
    "/usr/libexec",
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
)
"""Where Mach-O files outside the shared caches are searched; folders that a release lacks are skipped."""

SKIPPED_FOLDERS = (
    "/System/Library/Assets",
    "/System/Library/AssetsV2",
    "/System/Library/Caches",
    "/System/Library/Desktop Pictures",
    "/System/Library/Fonts",
    "/System/Library/Sounds",
    "/System/Library/Speech",
    "/System/Library/User Template",
)
"""Large, and without code of the release."""

SYSTEM_VERSION_PLISTS = (
    f"{_CRYPTEX}/System/Library/CoreServices/SystemVersion.plist",
    "/System/Cryptexes/OS/System/Library/CoreServices/SystemVersion.plist",
    "/System/Library/CoreServices/SystemVersion.plist",
)
"""The cryptex first: a Rapid Security Response changes only that one."""
