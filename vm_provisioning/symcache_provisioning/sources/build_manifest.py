"""Reads what a restore image (.ipsw) consists of: its `BuildManifest.plist` says what each disk image is, and for whom.

`BuildIdentities` has an entry for each board and way to install: `Ap,ProductType` (product), `Info.DeviceClass`
(board), `Info.Variant`, and `Manifest`, whose components have the file's name as `Info.Path`. Images that only recovery
systems name are not of the release. The archive may come from anywhere: what it says is checked before it is used.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symcache.errors import FormatError, IntegrityError, UsageError
from symcache.text import excerpt
from symcache_provisioning.sources.entries import refusal
from symcache_provisioning.sources.locations import CRYPTEX_FOLDERS, OS_CRYPTEX, ROSETTA_CRYPTEX
from symcache_provisioning.sources.release import xml_property_list

__all__ = ["DiskImage", "Firmware", "read_firmware"]

_MANIFEST = "BuildManifest.plist"
_COMPONENTS = {
    "OS": ("fs", "/"),
    "Cryptex1,SystemOS": ("sys", OS_CRYPTEX),  # since macOS 13
    "Cryptex1,AppOS": ("app", f"{CRYPTEX_FOLDERS[0]}/App"),
    "Cryptex1,RosettaOS": ("rosetta", ROSETTA_CRYPTEX),  # since macOS 27
    "Ap,ExclaveOS": ("exc", f"{CRYPTEX_FOLDERS[0]}/ExclaveOS"),
}
"""The components that hold code: what `ipsw mount` calls them, and where they lie in the system."""
_CRYPTEX = re.compile(r"Cryptex1,\w{1,64}OS")
"""What a cryptex's disk image is called in a manifest so far."""
_LIKE_CRYPTEX = re.compile(r"(Cryptex[0-9]{0,3}|Ap),\w{1,64}")
"""What it may be called as well, if its file is a disk image: that of exclaves is `Ap,ExclaveOS`."""
_DISK_IMAGE = re.compile(r"\.dmg(\.aea)?\Z", re.IGNORECASE)
_RECOVERY = "Recovery"
_TARGET = re.compile(r"[A-Za-z][A-Za-z0-9,._-]{0,31}")
"""A product, such as `Mac18,5`, or a board, such as `j873gap`."""
_ENCRYPTED = ".aea"

_MAX_MANIFEST = 64 << 20
"""Bytes. Some 300 identities of 50 kB each are usual."""
_MAX_IDENTITIES = 4000
_MAX_IMAGES = 32


@dataclass(frozen=True, slots=True)
class DiskImage:
    """A disk image in a restore image."""

    component: str
    """Its key in the manifest."""
    name: str
    """Of the file in the archive, at its top."""
    products: tuple[str, ...]
    """Products that it is for, else boards, as far as the manifest says."""
    device: str
    """A product or board that has this image of several; empty if it is the only one of its component."""
    place: str
    """Where it lies in the system, as an absolute path."""
    size: int
    """Bytes, as it lies in the archive."""

    @property
    def volume(self) -> str:
        """What `ipsw mount` calls its component."""
        return _COMPONENTS[self.component][0]

    @property
    def plain_name(self) -> str:
        """Its name when it is decrypted."""
        return self.name.removesuffix(_ENCRYPTED)

    def __str__(self) -> str:
        """Return its name, and what it is."""
        of_whom = f" of {excerpt(' '.join(self.products), 60)}" if self.device else ""
        return f"{excerpt(self.name)} ({self.component}{of_whom})"


@dataclass(frozen=True, slots=True)
class Firmware:
    """A restore image."""

    build: str
    """Empty if it does not say."""
    products: tuple[str, ...]
    images: tuple[DiskImage, ...]
    """The system volume first."""
    unknown: tuple[str, ...]
    """Cryptexes that it has, and that no program is known to mount."""

    @property
    def room(self) -> int:
        """Bytes that its disk images take at most, all unpacked; an encrypted one lies beside its decrypted copy."""
        encrypted = (i.size for i in self.images if i.name.endswith(_ENCRYPTED))
        return sum(i.size for i in self.images) + max(encrypted, default=0)


@dataclass(slots=True)
class _Named:
    """What identities say of one file as one component."""

    products: dict[str, None] = field(default_factory=dict)
    boards: dict[str, None] = field(default_factory=dict)
    released: bool = False

    @property
    def targets(self) -> list[str]:
        return [*self.products, *self.boards]


def read_firmware(path: Path) -> Firmware:
    """Read what a restore image consists of.

    Raises UsageError for what is none, FormatError for a manifest that cannot be meant, IntegrityError if the archive
    lacks images that it names.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file", hint="name a restore image (.ipsw)")
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise UsageError(f"{path}: is no restore image: those are zip archives", hint="download it again")
    try:
        with zipfile.ZipFile(path) as archive:
            data = _manifest_data(path, archive)
            try:
                manifest = xml_property_list(data, f"{path}: {_MANIFEST}")
            except FormatError as error:
                raise FormatError(str(error), hint="download it again") from error
            sizes: dict[str, int] = {}
            for member in archive.infolist():
                # The program that unpacks them looks at the last part of a name, in any case.
                name = member.filename.rpartition("/")[2].casefold()
                sizes[name] = sizes.get(name, 0) + member.file_size
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{path}: is no whole zip archive: {excerpt(str(error))}", hint="download it again"
        ) from error
    return _Reader(path, manifest, sizes).firmware()


def _manifest_data(path: Path, archive: zipfile.ZipFile) -> bytes:
    """Return the manifest. There may be several files of that name, of which nobody says which one counts."""
    members = [i for i in archive.infolist() if i.filename.endswith(_MANIFEST) and "Restore" not in i.filename]
    found: bytes | None = None
    for member in members[:8]:
        if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise zipfile.BadZipFile(
                f"{excerpt(member.filename)} is compressed in a way that archives of Apple are not"
            )
        with archive.open(member) as file:
            data = file.read(_MAX_MANIFEST + 1)
        if len(data) > _MAX_MANIFEST:
            raise FormatError(
                f"{path}: {excerpt(member.filename)} is larger than {_MAX_MANIFEST >> 20} MiB", hint="download it again"
            )
        if data != (data if found is None else found):
            raise FormatError(f"{path}: holds more than one {_MANIFEST}", hint="download it again")
        found = data
    if found is None:
        raise FormatError(f"{path}: holds no {_MANIFEST}: is it a restore image?", hint="download it again")
    return found


class _Reader:
    """Reads and checks a manifest."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        self._path, self._manifest, self._sizes = path, manifest, sizes
        self._named: dict[str, dict[str, _Named]] = {}
        self._unknown: dict[str, None] = {}

    def firmware(self) -> Firmware:
        products: dict[str, None] = {}
        for identity in self._identities():
            product = self._target(identity, "Ap,ProductType")
            if product:
                products[product] = None
            self._read_identity(identity, product)
        supported = self._manifest.get("SupportedProductTypes")
        for product in supported[:_MAX_IDENTITIES] if isinstance(supported, list) else ():
            if checked := self._target({"product": product}, "product"):
                products[checked] = None
        build = self._manifest.get("ProductBuildVersion", "")
        images = tuple(self._images())
        if len({i.plain_name.casefold() for i in images}) < len(images):
            # They are unpacked into one folder, where one would overwrite the other.
            raise self._absurd(f"names one file twice: {', '.join(map(str, images))}")
        if lacking := [i for i in images if i.name.casefold() not in self._sizes]:
            raise IntegrityError(
                f"{self._path}: lacks {', '.join(map(str, lacking))}, which its {_MANIFEST} names",
                hint="download it again",
            )
        return Firmware(build if isinstance(build, str) else "", tuple(products), images, tuple(self._unknown))

    def _identities(self) -> Iterable[Mapping[str, Any]]:
        identities = self._manifest.get("BuildIdentities")
        if not isinstance(identities, list) or not all(isinstance(i, dict) for i in identities):
            raise self._absurd("has no list of BuildIdentities")
        if len(identities) > _MAX_IDENTITIES:
            raise self._absurd(f"has {len(identities)} BuildIdentities where {_MAX_IDENTITIES} are more than plenty")
        return identities

    def _read_identity(self, identity: Mapping[str, Any], product: str) -> None:
        info = _dictionary(identity, "Info")
        board = self._target(info, "DeviceClass")
        variant = info.get("Variant")
        recovery = isinstance(variant, str) and _RECOVERY in variant
        for key, component in _dictionary(identity, "Manifest").items():
            name = _dictionary(component, "Info").get("Path") if isinstance(component, dict) else None
            if key not in _COMPONENTS:
                image = isinstance(name, str) and _DISK_IMAGE.search(name) and _LIKE_CRYPTEX.fullmatch(key)
                if not recovery and (image or _CRYPTEX.fullmatch(key)) and len(self._unknown) < _MAX_IMAGES:
                    self._unknown[key] = None
                continue
            # Also those of recovery systems: the program that unpacks them may look at any.
            if not isinstance(name, str):
                raise self._absurd(f"names no file as {key}")
            if why := refusal(name.encode()):
                raise self._absurd(f"names {excerpt(name)!r} as {key}, which {why}")
            named = self._named.setdefault(key, {}).setdefault(name, _Named())
            named.released |= not recovery
            if product:
                named.products[product] = None
            if board:
                named.boards[board] = None
            if sum(map(len, self._named.values())) > _MAX_IMAGES:
                raise self._absurd(f"names more than {_MAX_IMAGES} disk images")

    def _images(self) -> Iterator[DiskImage]:
        for key, (_, place) in _COMPONENTS.items():
            files = self._named.get(key, {})
            released = [name for name, named in files.items() if named.released]
            if place == "/" and len(released) != 1:
                raise self._absurd(f"names {len(released)} disk images as system volume ({key})")
            # What most products have lies where it does on a Mac, the others beside it.
            for rank, name in enumerate(sorted(released, key=lambda n: -len(files[n].targets))):
                named = files[name]
                # The program looks at recovery systems, too, but not for the system volume.
                device = self._device(key, name, files) if len(files) > 1 and place != "/" else ""
                yield DiskImage(
                    key,
                    name,
                    tuple(named.products or named.boards),
                    device,
                    f"{place}-{device}" if rank else place,
                    self._sizes.get(name.casefold(), 0),
                )

    def _device(self, key: str, name: str, files: Mapping[str, _Named]) -> str:
        others = {t.casefold() for other, named in files.items() if other != name for t in named.targets}
        for target in files[name].targets:
            if target.casefold() not in others:
                return target
        raise self._absurd(f"names {', '.join(map(excerpt, files))} as {key}, and no product that tells them apart")

    def _target(self, values: Mapping[str, Any], key: str) -> str:
        value = values.get(key, "")
        if value == "":
            return ""
        if not isinstance(value, str) or not _TARGET.fullmatch(value):
            text = excerpt(value, 60) if isinstance(value, str) else type(value).__name__
            raise self._absurd(f"names {text!r} as a product or board")
        return value

    def _absurd(self, what: str) -> FormatError:
        return FormatError(
            f"{self._path}: its {_MANIFEST} {what}",
            hint="download it again; if it is as Apple made it, mount its disk images by hand and harvest each",
        )


def _dictionary(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}
