"""Where macOS keeps what is harvested, as rules: what lies in these places is found by looking, not by its name."""

from __future__ import annotations

__all__ = [
    "BUILT_CACHES",
    "CACHE_FOLDERS",
    "CRYPTEX_FOLDERS",
    "DATA_TEMPLATE",
    "FAMILY_CACHES",
    "OS_CRYPTEX",
    "PENDING_CRYPTEXES",
    "ROSETTA_CRYPTEX",
    "SKIPPED_FOLDERS",
    "SYSTEM_ROOTS",
    "SYSTEM_VERSION",
    "SYSTEM_VERSION_PLISTS",
    "UNSEALED_APPLICATIONS",
    "UNWALKED",
]

CRYPTEX_FOLDERS = ("/System/Volumes/Preboot/Cryptexes", "/System/Cryptexes")
"""Since 13: where cryptexes are grafted, and the links to them. Each entry is one."""
PENDING_CRYPTEXES = "Incoming"
"""An entry that holds cryptexes itself: those of the system once more, or those of an update."""
OS_CRYPTEX = f"{CRYPTEX_FOLDERS[0]}/OS"
ROSETTA_CRYPTEX = f"{CRYPTEX_FOLDERS[0]}/Rosetta"

CACHE_FOLDERS = ("System/Library/dyld", "System/Library/Caches/com.apple.dyld")
"""Folders of shared caches, below the root of a system or of a cryptex."""
FAMILY_CACHES = "System/Library/dyld"
"""Below any folder in `System`, such as `DriverKit`: the caches of another family, which that folder names."""
BUILT_CACHES = "/private/var/db/dyld"
"""Until 10.15: caches that were built on the machine."""

SYSTEM_ROOTS = ("/Library/Apple", "/usr/lib", "/usr/libexec", "/usr/bin", "/usr/sbin", "/bin", "/sbin")
"""Where Mach-O files outside the shared caches are searched, beside all folders in /System and all cryptexes."""
UNSEALED_APPLICATIONS = "/Applications"
UNWALKED = ("/System/Volumes", "/System/Cryptexes")
"""Folders in /System that lead to other volumes, and are looked into in their own way."""

DATA_TEMPLATE = "/System/Library/Templates/Data"
"""Since 10.15: what a fresh Data volume begins with. Beside code, it has folders for data that macOS protects (those of
privacy protection, of Rosetta's translations), from root, too, and whatever their modes say."""

SKIPPED_FOLDERS = (
    "/System/Library/Assets",
    "/System/Library/AssetsV2",
    "/System/Library/Caches",
    "/System/Library/Desktop Pictures",
    "/System/Library/Fonts",
    "/System/Library/Sounds",
    "/System/Library/Speech/Voices",
    "/System/Library/User Template",
)
"""Large, and without code of the release."""

SYSTEM_VERSION = "System/Library/CoreServices/SystemVersion.plist"
SYSTEM_VERSION_PLISTS = (
    f"{OS_CRYPTEX}/{SYSTEM_VERSION}",
    f"/System/Cryptexes/OS/{SYSTEM_VERSION}",
    f"/{SYSTEM_VERSION}",
)
"""The cryptex first: a Rapid Security Response changes only that one."""
