"""Restore images (.ipsw) for tests, and a stand-in for the program that mounts them.

A manifest has the shape of Apple's for macOS 27: an identity for each product and way to install. The stand-in has the
texts, streams and exit codes of https://github.com/blacktop/ipsw by its source (cmd/ipsw/cmd/{mount,root}.go,
internal/commands/mount/mount.go, pkg/info): lines of its log are padded to 25 characters and go to stderr, errors end
it with 1, panics of Go with 2. `make_old` makes it the one of August 2026, which knows no --device.
"""

from __future__ import annotations

import plistlib
import shlex
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["APP", "EXCLAVES", "FILE_SYSTEM", "ROSETTA", "SYSTEM", "RestoreImage", "identity", "manifest"]

FILE_SYSTEM, SYSTEM, APP = "OS", "Cryptex1,SystemOS", "Cryptex1,AppOS"
ROSETTA, EXCLAVES = "Cryptex1,RosettaOS", "Ap,ExclaveOS"
_VOLUMES = {FILE_SYSTEM: "fs", SYSTEM: "sys", APP: "app", ROSETTA: "rosetta", EXCLAVES: "exc"}
_VARIANTS = ("Customer Erase Install (IPSW)", "Customer Upgrade Install (IPSW)", "macOS Customer")

_PROGRAM = r"""#!/bin/sh
# usage: ipsw mount VOLUME IMAGE -m FOLDER [--device PRODUCT]
echo "$1 $2 $6 $7" >> {log}
state={state} kind="$2"
usage() {{ printf 'Usage:\n  ipsw mount [app|sys|fs|exc|rdisk|rosetta] IPSW [flags]\n\nAliases:\n  mount, mo\n\n'; }}
say() {{ printf '   %s %-25s\n' "$1" "$2" >&2; }}
if [ -e "$state/old" ]; then usage='usage >&2'; else usage=:; fi
if [ -n "$6" ] && [ -e "$state/old" ]; then eval "$usage"; say ⨯ 'unknown flag: --device'; exit 1; fi
volume="$state/$2${{7:+@$7}}"
fail() {{ eval "$usage"; say ⨯ "failed to mount $2 DMG: $1"; exit 1; }}
if [ -f "$volume.failure" ]; then fail "$(cat "$volume.failure")" "$2"; fi
if [ -z "$7" ] && [ -f "$volume.several" ] && [ ! -e "$state/old" ]; then fail "$(cat "$volume.several")" "$2"; fi
if [ -f "$volume.panic" ]; then cat "$volume.panic" >&2; exit 2; fi
name=$(cat "$volume.name")
: > "$TMPDIR/$name"
dmg="${{name%.aea}}"
if [ "$dmg" != "$name" ]; then : > "$TMPDIR/$dmg"; rm "$TMPDIR/$name"; fi
if [ -e "$volume.slow" ]; then sleep 60; fi
place="$5"
if [ -f "$volume.elsewhere" ]; then
    place=$(cat "$volume.elsewhere")
    say • "$2 DMG already mounted at $place"
else
    cp -a "$volume/." "$place"
    say • "Mounted $2 DMG $dmg"
fi
unmount() {{
    printf 'interrupted: finishing up (press Ctrl-C again to force quit)\n' >&2
    if [ -e "$volume.stuck" ]; then printf 'interrupted: forcing exit\n' >&2; exit 130; fi
    rm -rf "$place"/* "$place"/.[!.]* "$TMPDIR/$dmg"
    echo "unmounted $kind" >> {log}
    exit 0
}}
trap unmount INT
printf '      • Press Ctrl+C to unmount '"'%s'"' ...\n' "$place" >&2
while :; do sleep 0.05; done
"""


def identity(
    product: str, board: str, files: Mapping[str, object], variant: str = _VARIANTS[0], **more: object
) -> dict[str, Any]:
    """Return one of a manifest's BuildIdentities; `files` are by component."""
    return {
        "Ap,ProductType": product,
        "Info": {"DeviceClass": board, "Variant": variant, **more},
        "Manifest": {key: {"Info": {"Path": path}} for key, path in files.items()},
    }


def manifest(identities: Iterable[Any], **more: object) -> bytes:
    """Return a BuildManifest.plist."""
    top = {"ProductBuildVersion": "22G120", "ProductVersion": "13.5.1", "BuildIdentities": list(identities), **more}
    return plistlib.dumps(top)


class RestoreImage:
    """A restore image, and a program on PATH that opens it: what it mounts are folders in `volumes`."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "UniversalMac_13.5.1_22G120_Restore.ipsw"
        self.volumes, self._log, self.bin = folder / "volumes", folder / "log", folder / "bin"
        for made in (self.volumes, self.bin):
            made.mkdir()
        program = self.bin / "ipsw"
        program.write_text(_PROGRAM.format(log=shlex.quote(str(self._log)), state=shlex.quote(str(self.volumes))))
        program.chmod(0o755)

    def write(self, *of_products: tuple[Sequence[str], Mapping[str, str]], lacking: Sequence[str] = ()) -> None:
        """Write the image: (products, files by component) for each kind of Mac. `lacking` are not in the archive."""
        identities = [
            identity(product, f"j{number}{rank}ap", files, variant)
            for variant in _VARIANTS
            for number, (products, files) in enumerate(of_products)
            for rank, product in enumerate(products)
        ]
        systems = dict.fromkeys(files[SYSTEM] for _, files in of_products if SYSTEM in files)
        if len(systems) > 1:
            of_whom = [
                f"{name} [{', '.join(p for products, f in of_products if f.get(SYSTEM) == name for p in products)}]"
                for name in systems
            ]
            several = "failed to get SystemOS DMG: multiple SystemOS images found; select a target with --device: "
            self.state("sys", "several", several + "; ".join(of_whom))
        names = {name for _, files in of_products for name in files.values()}
        with zipfile.ZipFile(self.file, "w") as archive:
            supported = [product for products, _ in of_products for product in products]
            archive.writestr("BuildManifest.plist", manifest(identities, SupportedProductTypes=supported))
            for name in sorted(names - {*lacking}):
                archive.writestr(name, name)
        for products, files in reversed(of_products):
            for key, name in files.items():
                for target in ("", *(f"@{product}" for product in products)):
                    self.state(_VOLUMES[key] + target, "name", name)

    def state(self, volume: str, what: str, text: str = "") -> None:
        """Have the program do `what` about a volume, such as `sys` or `sys@Mac18,5`."""
        (self.volumes / f"{volume}.{what}").write_text(text)

    def make_old(self) -> None:
        """Have the program be one that does not know --device."""
        (self.volumes / "old").touch()

    def said(self) -> list[str]:
        """Return what the program was called for, and what it unmounted."""
        return [line.rstrip() for line in self._log.read_text().splitlines()] if self._log.exists() else []
