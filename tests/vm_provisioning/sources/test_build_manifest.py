"""What a restore image says of itself: what it is made of, and what nobody can mean."""

from __future__ import annotations

import plistlib
import zipfile
from pathlib import Path

import pytest

from symcache.errors import FormatError, IntegrityError, SymcacheError, UsageError
from symcache_provisioning.sources.build_manifest import read_firmware
from tests.support.apple import made_firmware
from tests.support.restore_images import APP, FILE_SYSTEM, ROSETTA, SYSTEM, identity, manifest

_FILES = {FILE_SYSTEM: "fs.dmg.aea", SYSTEM: "sys.dmg.aea", ROSETTA: "ros.dmg"}
_RECOVERY = "Customer Recovery Install (IPSW)"


def archive(folder: Path, data: bytes | None, *, name: str = "BuildManifest.plist", **members: bytes) -> Path:
    """A restore image with a manifest; of `members`, the letter x in a name is a dot."""
    path = folder / "made.ipsw"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("SystemVersion.plist", "")
        if data is not None:
            made.writestr(name, data)
        for member, content in (members or dict.fromkeys(("fsxdmgxaea", "sysxdmgxaea", "rosxdmg"), b"1234")).items():
            made.writestr(member.replace("x", "."), content)
    return path


def test_each_image_is_named_once(tmp_path: Path) -> None:
    other = _FILES | {SYSTEM: "sys2.dmg.aea"}
    identities = [
        identity("Mac18,5", "j873gap", other),
        identity("Mac13,1", "j375cap", _FILES),
        identity("Mac14,8", "j180dap", _FILES, "macOS Customer"),
        identity("Mac13,1", "j375cap", {FILE_SYSTEM: "recovery.dmg", APP: "recovery-app.dmg"}, _RECOVERY),
    ]
    data = manifest(identities, SupportedProductTypes=["Mac13,1", "Mac14,8", "Mac18,5", "VirtualMac2,1"])
    sizes = {"fsxdmgxaea": bytes(10), "sysxdmgxaea": bytes(200), "sys2xdmgxaea": bytes(3000), "rosxdmg": bytes(40000)}
    firmware = read_firmware(archive(tmp_path, data, **sizes))
    cryptexes = "/System/Volumes/Preboot/Cryptexes"
    assert [(i.volume, i.name, i.device, i.place) for i in firmware.images] == [
        ("fs", "fs.dmg.aea", "", "/"),  # that of recovery systems, the program passes over by itself
        ("sys", "sys.dmg.aea", "Mac13,1", f"{cryptexes}/OS"),
        ("sys", "sys2.dmg.aea", "Mac18,5", f"{cryptexes}/OS-Mac18,5"),
        ("rosetta", "ros.dmg", "", f"{cryptexes}/Rosetta"),
    ]
    assert firmware.products == ("Mac18,5", "Mac13,1", "Mac14,8", "VirtualMac2,1")
    assert firmware.build == "22G120"
    assert firmware.room == 10 + 200 + 3000 + 40000 + 3000


def test_disk_images_that_may_be_cryptexes_are_not_passed_over(tmp_path: Path) -> None:
    """Names of the first kind are invented; the others are in manifests of today, and no cryptexes of the release."""
    unknown = {"Cryptex1,NewOS": "", "Cryptex1,Extras": "e.dmg.aea", "Cryptex2,SystemOS": "s.dmg", "Ap,NewOS": "n.DMG"}
    known = {
        "Cryptex1,SystemVolume": "sys.dmg.root_hash",
        "RestoreRamDisk": "r.dmg",
        "Ap,SystemVolumeCanonicalMetadata": "m",
    }
    identities = [
        identity("Mac13,1", "j375cap", _FILES | unknown | known),
        identity("Mac13,1", "j375cap", {FILE_SYSTEM: "recovery.dmg", "Cryptex1,RecoveryOS": "c.dmg"}, _RECOVERY),
    ]
    assert set(read_firmware(archive(tmp_path, manifest(identities))).unknown) == {*unknown}


def test_one_of_several_is_asked_for_by_what_only_it_is_for(tmp_path: Path) -> None:
    one, other = ({FILE_SYSTEM: "fs.dmg.aea", SYSTEM: name} for name in ("sys.dmg.aea", "ros.dmg"))
    identities = [
        # One product with boards of both kinds; what the program knows as targets it compares in any case.
        identity("Mac13,1", "j375cap", one),
        identity("mac13,1", "j375dap", other),
    ]
    firmware = read_firmware(archive(tmp_path, manifest(identities)))
    assert {i.device for i in firmware.images if i.volume == "sys"} == {"j375cap", "j375dap"}
    identities[1]["Info"]["DeviceClass"] = "J375CAP"
    with pytest.raises(FormatError, match="no product that tells them apart"):
        read_firmware(archive(tmp_path, manifest(identities)))


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {SYSTEM: "../../home/me/other.dmg"},
            "'../../home/me/other.dmg' as Cryptex1,SystemOS, which is not the name of a",
        ),
        ({ROSETTA: "/etc/passwd"}, "'/etc/passwd' as Cryptex1,RosettaOS, which is not the name of a file"),
        ({APP: ".."}, "'..' as Cryptex1,AppOS, which is not the name of a file"),
        ({APP: "n" * 300}, "which is longer than 255 bytes"),
        ({APP: "a\tb.dmg"}, " as Cryptex1,AppOS, which has control characters"),
        ({SYSTEM: 5}, "names no file as Cryptex1,SystemOS"),
        ({FILE_SYSTEM: ""}, "'' as OS, which is not the name of a file"),
    ],
)
@pytest.mark.parametrize("variant", ["macOS Customer", _RECOVERY])
def test_absurd_paths(files: dict[str, object], what: str, variant: str, tmp_path: Path) -> None:
    identities = [identity("Mac13,1", "j375cap", _FILES), identity("Mac13,2", "j375dap", _FILES | files, variant)]
    with pytest.raises(FormatError) as raised:
        read_firmware(archive(tmp_path, manifest(identities)))
    assert what in str(raised.value)
    assert "made.ipsw: its BuildManifest.plist names " in str(raised.value)
    assert str(raised.value).isprintable()


def nested(depth: int) -> bytes:
    return b"<array>" * depth + b"</array>" * depth


_HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0">'


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (None, "holds no BuildManifest.plist: is it a restore image?"),
        (b"", "begins with '', which is no XML property list"),
        (plistlib.dumps({"BuildIdentities": []}, fmt=plistlib.FMT_BINARY), "which is no XML property list"),
        (b"<?xml version='1.0'?><plist><dict>", "not a property list"),
        (b"<?xml version='1.0'?><!DOCTYPE p [<!ENTITY e 'x'>]><plist><string>&e;</string></plist>", "not a property"),
        (plistlib.dumps(["list"]), "holds a list where a dictionary was expected"),
        (manifest([]), "names 0 disk images as system volume (OS)"),
        (manifest(["text"]), "has no list of BuildIdentities"),
        (plistlib.dumps({"BuildIdentities": {}}), "has no list of BuildIdentities"),
        (manifest(identity("Mac13,1", "b", {FILE_SYSTEM: f"{n}.dmg"}) for n in range(2)), "names 2 disk images as sys"),
        (manifest(identity("Mac13,1", "b", {FILE_SYSTEM: f"{n}.dmg"}) for n in range(40)), "more than 32 disk images"),
        (manifest([identity("A1", "b", {FILE_SYSTEM: "x.dmg", APP: "X.dmg.aea"})]), "one file twice: x.dmg (OS), X.d"),
        (manifest([identity("--key", "b", _FILES)]), "names '--key' as a product or board"),
        (manifest([identity("Mac13,1", "a\nb", _FILES)]), "as a product or board"),
        (_HEAD + b"<dict><key>BuildIdentities</key>" + nested(20000) + b"</dict></plist>", "has no list of BuildIdent"),
        (
            _HEAD + b"<dict><key>BuildIdentities</key><array><dict><key>Ap,ProductType</key>" + nested(20000)
            + b"</dict></array></dict></plist>",
            "names 'list' as a product or board",
        ),
        (manifest([{}] * 4001), "has 4001 BuildIdentities where 4000 are more than plenty"),
    ],
)  # fmt: skip
def test_absurd_manifests(data: bytes | None, what: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as raised:
        read_firmware(archive(tmp_path, data))
    assert what in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert raised.value.hint.startswith("download it again")


def test_a_manifest_that_is_larger_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symcache_provisioning.sources.build_manifest._MAX_MANIFEST", 1 << 20)
    for size, fits in ((1 << 20, True), ((1 << 20) + 1, False)):
        data = manifest([identity("Mac13,1", "j375cap", _FILES)])
        path = archive(tmp_path, data + b" " * (size - len(data)))
        if fits:
            assert len(read_firmware(path).images) == 3
        else:
            with pytest.raises(FormatError, match=r"BuildManifest\.plist is larger than 1 MiB"):
                read_firmware(path)


def test_two_manifests_that_differ(tmp_path: Path) -> None:
    """The program reads the last of them."""
    data = manifest([identity("Mac13,1", "j375cap", _FILES)])
    for more, refused in ((data, False), (data + b" ", True)):
        path = archive(tmp_path, data)
        with zipfile.ZipFile(path, "a") as made:
            made.writestr("boot/BuildManifest.plist", more)
            made.writestr("Restore/BuildManifest.plist", "of a recovery system: not read")
        if refused:
            with pytest.raises(FormatError, match=r"holds more than one BuildManifest\.plist"):
                read_firmware(path)
        else:
            assert read_firmware(path).products == ("Mac13,1",)


def test_images_that_are_not_in_the_archive(tmp_path: Path) -> None:
    data = manifest([identity("Mac13,1", "j375cap", _FILES)])
    with pytest.raises(IntegrityError) as raised:
        read_firmware(archive(tmp_path, data, fsxdmgxaea=b""))
    lacking = "sys.dmg.aea (Cryptex1,SystemOS), ros.dmg (Cryptex1,RosettaOS)"
    assert str(raised.value).endswith(f"made.ipsw: lacks {lacking}, which its BuildManifest.plist names")


def test_what_is_no_restore_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_firmware(tmp_path / "nothing.ipsw")
    (tmp_path / "text.ipsw").write_text("<html>")
    with pytest.raises(UsageError, match="is no restore image"):
        read_firmware(tmp_path / "text.ipsw")


def test_a_download_that_broke_off_or_was_damaged(tmp_path: Path) -> None:
    path = archive(tmp_path, manifest([identity("Mac13,1", "j375cap", _FILES)]))
    whole = path.read_bytes()
    for cut in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match="is no whole zip archive"):
            read_firmware(path)
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            read_firmware(path)
        except SymcacheError as error:
            assert str(path) in str(error)


def test_the_made_firmware() -> None:
    """Of which the images of one kind of Mac are not in the archive."""
    path = made_firmware() / "made.ipsw"
    with pytest.raises(IntegrityError) as raised:
        read_firmware(path)
    lacking = "fs.dmg.aea (OS), sys-x1.dmg.aea (Cryptex1,SystemOS of Mac18,5)"
    assert str(raised.value) == f"{path}: lacks {lacking}, which its BuildManifest.plist names"


def test_the_made_firmware_with_all_its_images(tmp_path: Path) -> None:
    folder = made_firmware()
    path = tmp_path / "whole.ipsw"
    path.write_bytes((folder / "made.ipsw").read_bytes())
    with zipfile.ZipFile(path, "a") as made:
        made.write(folder / "sealed.dmg.aea", "sys-x1.dmg.aea")
        made.write(folder / "plain-zlib.dmg", "fs.dmg.aea")
    firmware = read_firmware(path)
    assert [(i.volume, i.name, i.device, i.size) for i in firmware.images] == [
        ("fs", "fs.dmg.aea", "", 6531),
        ("sys", "sys.dmg.aea", "Mac13,1", 22739),
        ("sys", "sys-x1.dmg.aea", "Mac18,5", 22739),
        ("rosetta", "ros.dmg", "", 6712),
    ]
    assert (firmware.build, firmware.products, firmware.unknown) == ("26A428", ("Mac13,1", "Mac18,5"), ())
