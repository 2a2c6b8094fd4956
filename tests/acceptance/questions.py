"""What is not known of macOS without a Mac, answered by listing names, magics, UUIDs and sizes."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import plistlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from symcache.dyld import MAX_HEADER, SharedCache, parse_header
from symcache.errors import SharedCacheError
from symcache.model import uuid_text
from symcache_provisioning.sources.locations import BUILT_CACHES, CRYPTEX_FOLDERS
from tests.acceptance.extraction import BUNDLE
from tests.acceptance.harvests import own_login
from tests.acceptance.mac import Mac
from tests.acceptance.part import Part, SkippedError

__all__ = ["questions"]

_COMPRESSED = 0x20
"""UF_COMPRESSED, <sys/stat.h>."""
_PLACES = ("System/Library/dyld", "System/Library/Caches/com.apple.dyld")
_VERSION = "System/Library/CoreServices/SystemVersion.plist"
_IMAGES = "/System/Volumes/Preboot/*/cryptex1"
_ROSETTA = "/usr/libexec/rosetta"


def questions(mac: Mac, part: Part) -> None:
    """One question after the other; none keeps the next from being asked."""
    asked: tuple[Callable[[Mac, Part], None], ...] = (
        _cryptexes,
        _cache_folders,
        _cryptex_images,
        _image_counts,
        _bundle,
        _rosetta,
        _remote_login,
        _disk_image_over_ssh,
        _hypervisors,
    )
    for question in asked:
        with part.optional(question.__name__.strip("_").replace("_", " ")):
            question(mac, part)
    part.check(bool(part.tables.get("cache files")), "no file of a shared cache was found")


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise SkippedError(f"{folder.name} may not be listed", "grant Full Disk Access to the terminal") from error


def _named(mac: Mac, path: Path) -> str:
    """Return an absolute path as the Mac has it."""
    return f"/{path.relative_to(mac.root)}"


def _cryptexes(mac: Mac, part: Part) -> None:
    """Which cryptexes there are, where links to them lead, and which build each says it is."""
    for folder in (*CRYPTEX_FOLDERS, f"{CRYPTEX_FOLDERS[0]}/Incoming"):
        for path in _listed(mac.at(folder)):
            plist = path / _VERSION
            build = plistlib.loads(plist.read_bytes()).get("ProductBuildVersion", "") if plist.is_file() else ""
            target = str(path.readlink()) if path.is_symlink() else ""
            part.row("cryptexes", path=_named(mac, path), leads_to=target, there=path.is_dir(), build=build)


def _roots(mac: Mac) -> Iterator[Path]:
    yield mac.root
    seen = set()
    for folder in (*CRYPTEX_FOLDERS, f"{CRYPTEX_FOLDERS[0]}/Incoming"):
        for path in _listed(mac.at(folder)):
            if path.is_dir() and (real := path.resolve()) not in seen:
                seen.add(real)
                yield path


def _cache_folders(mac: Mac, part: Part) -> None:
    """Every file where shared caches lie: magic, UUID, size, whether the file system compresses it."""
    for root in _roots(mac):
        families = [
            p / _PLACES[0] for p in _listed(root / "System") if p.is_dir() and p.name not in {"Cryptexes", "Volumes"}
        ]
        built = [mac.at(BUILT_CACHES)] if root == mac.root else []
        for folder in [*(root / place for place in _PLACES), *families, *built]:
            for path in _listed(folder) if folder.is_dir() else ():
                if path.is_file() and not path.is_symlink():
                    _cache_file(mac, part, path)


def _cache_file(mac: Mac, part: Part, path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(MAX_HEADER)
    status = path.stat()
    try:
        header = parse_header(head, path.name)
        uuid, size = uuid_text(header.uuid) if header.uuid else "none", header.mapping_offset
    except SharedCacheError:
        uuid, size = "", None
    magic = head[:16].rstrip(b"\0").decode("ascii", "replace") if head.startswith(b"dyld_v1") else head[:4].hex()
    compressed = bool(getattr(status, "st_flags", 0) & _COMPRESSED)
    part.row(
        "cache files",
        path=_named(mac, path),
        magic=magic,
        uuid=uuid,
        bytes=status.st_size,
        header=size,
        compressed=compressed,
    )


def _cryptex_images(mac: Mac, part: Part) -> None:
    """What the disk images are called that cryptexes come of; and whether 7zz can read them."""
    for folder in sorted(mac.root.glob(_IMAGES.lstrip("/"))):
        for path in (p for state in _listed(folder) for p in (_listed(state) if state.is_dir() else ())):
            readable = os.access(path, os.R_OK)
            tested = ""
            if readable and path.suffix == ".dmg" and mac.has("7zz"):
                tested = str(mac.run("7zz", "l", "-ba", path, seconds=600).returncode)
            kind = stat.S_ISDIR(path.lstat().st_mode)
            name = f"{path.parent.name}/{path.name}"
            part.row(
                "cryptex images",
                name=name,
                folder=kind,
                bytes=path.lstat().st_size,
                readable=readable,
                seven_zip=tested,
            )
    if "cryptex images" not in part.tables:
        raise SkippedError("nothing may be listed there", f"add what `sudo ls -lR {_IMAGES}` says")


def _image_counts(mac: Mac, part: Part) -> None:
    """How many images each cache has."""
    for cache, main in mac.caches():
        with part.optional(cache.path), SharedCache.open(main, partial=True) as opened:
            version = opened.os_version
            part.row(
                "image counts",
                path=cache.path,
                images=len(opened.images),
                aliases=len(opened.aliases),
                files=len(opened.files),
                bytes=cache.size,
                built_for=version,
            )


def _bundle(mac: Mac, part: Part) -> None:
    """Which architectures the extractor of macOS is for, and whether this Python can load it."""
    bundle = mac.at(BUNDLE)
    part.facts["bundle is there"] = bundle.is_file()
    part.facts["bundle is for"] = mac.says("lipo", "-archs", str(bundle))
    if bundle.is_file():
        try:
            ctypes.CDLL(str(bundle))
        except OSError:
            part.facts["bundle loads here"] = False
        else:
            part.facts["bundle loads here"] = True
        part.facts["this Python is for"] = platform.machine()


def _rosetta(mac: Mac, part: Part) -> None:
    part.facts["Rosetta's folder"] = ", ".join(p.name for p in _listed(mac.at(_ROSETTA))) or "none"
    part.facts["programs of x86_64 run"] = (
        mac.has("arch") and not mac.run("arch", "-x86_64", "/usr/bin/true").returncode
    )


def _remote_login(mac: Mac, part: Part) -> None:
    """What systemsetup says to somebody who is not root, and with which status; nothing is switched."""
    done = mac.run("systemsetup", "-getremotelogin", seconds=30)
    part.facts["systemsetup -getremotelogin ends with"] = done.returncode
    part.facts["and says"] = (
        (done.stdout + done.stderr).strip().splitlines()[:1][0] if done.stdout + done.stderr else ""
    )
    database = mac.at("/Library/Application Support/com.apple.TCC/TCC.db")
    part.facts["this terminal has Full Disk Access"] = os.access(database, os.R_OK)


def _disk_image_over_ssh(mac: Mac, part: Part) -> None:
    """Whether an attached disk image can be read over SSH without Full Disk Access."""
    mac.command("hdiutil")
    image, volume = mac.work / "symcache-test.dmg", "/Volumes/symcache-test"
    with own_login(mac) as session:
        made = mac.run("hdiutil", "create", "-size", "4m", "-fs", "APFS", "-volname", "symcache-test", "-ov", image)
        attached = mac.run("hdiutil", "attach", "-nobrowse", image)
        if made.returncode or attached.returncode:
            raise SkippedError("hdiutil makes no disk image here", "nothing can be done")
        try:
            part.facts["an attached image is listed over SSH: ls ends with"] = session.run(["/bin/ls", volume]).status
        finally:
            mac.run("hdiutil", "detach", volume)
            image.unlink(missing_ok=True)


def _hypervisors(mac: Mac, part: Part) -> None:
    """Which keys the lists of hypervisors have."""
    for program, *arguments in (
        ("prlctl", "list", "-a", "-j"),
        ("anka", "-j", "list"),
        ("tart", "list", "--format", "json"),
    ):
        if mac.has(program):
            try:
                listed = json.loads(mac.run(program, *arguments).stdout)
            except ValueError:
                continue
            rows = listed.get("body", []) if isinstance(listed, dict) else listed
            keys = sorted({key for row in rows if isinstance(row, dict) for key in row})
            part.row("keys of lists", program=program, keys=", ".join(keys))
