"""Faults of layout, permission and mount."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from symcache.demo.layouts import PREBOOT
from tests.support.disks import mounted_disk
from tests.support.mac import SFTP_SERVER, protect
from tests.support.mac_layout import lay_out
from tests.vm_provisioning.mac_faults.scene import FAULTS, Fault, Scene, fault


def _change(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


# Layout.


@fault("layout", "a cache without its main file", "is a part of a shared cache, and no main file beside it names it")
def _(scene: Scene) -> None:
    scene.main.unlink()


@fault("layout", "a sub-cache is gone", "its companion dyld_shared_cache_arm64e.01 is missing")
def _(scene: Scene) -> None:
    scene.sub_cache.unlink()


@fault("layout", "a sub-cache is cut", "dyld_shared_cache_arm64e.01")
def _(scene: Scene) -> None:
    os.truncate(scene.sub_cache, scene.sub_cache.stat().st_size // 2)


@fault("layout", "a sub-cache of another build", "dyld_shared_cache_arm64e.01")
def _(scene: Scene) -> None:
    _change(scene.sub_cache, 0x58, b"another build...")


@fault("layout", "a sub-cache is another one", "dyld_shared_cache_arm64e.01")
def _(scene: Scene) -> None:
    shutil.copyfile(scene.sub_cache.with_suffix(".02"), scene.sub_cache)


@fault("layout", "a cache is a link", "dyld_shared_cache_arm64e: is called a shared cache, and is a link")
def _(scene: Scene) -> None:
    driver = scene.root / PREBOOT / "OS/System/DriverKit/System/Library/dyld"
    driver.rename(driver.with_name("moved"))
    driver.mkdir()
    (driver / "dyld_shared_cache_arm64e").symlink_to("../moved/dyld_shared_cache_arm64e")
    shutil.rmtree(scene.root / PREBOOT / "Incoming")


@fault("layout", "a sub-cache is a FIFO", "its companion dyld_shared_cache_arm64e.01 is missing")
def _(scene: Scene) -> None:
    scene.sub_cache.unlink()
    os.mkfifo(scene.sub_cache)


@fault("layout", "a main file is cut behind its header", "dyld_shared_cache_arm64e: ")
def _(scene: Scene) -> None:
    os.truncate(scene.main, 0x2000)


@fault("layout", "a main file is empty", "dyld_shared_cache_arm64e: is called a shared cache, and begins with")
def _(scene: Scene) -> None:
    os.truncate(scene.main, 0)


@fault("layout", "a main file is a hole", "dyld_shared_cache_arm64e: is called a shared cache, and begins with")
def _(scene: Scene) -> None:
    size = scene.main.stat().st_size
    os.truncate(scene.main, 0)
    os.truncate(scene.main, size)


@fault("layout", "one bit of a cache is wrong", "page 3 of ")
def _(scene: Scene) -> None:
    at = 3 * 0x4000 + 5
    _change(scene.main, at, bytes([scene.main.read_bytes()[at] ^ 1]))


@fault("layout", "two caches have one UUID", "has the UUID of ")
def _(scene: Scene) -> None:
    _change(scene.caches / "dyld_shared_cache_x86_64", 0x58, scene.main.read_bytes()[0x58:0x68])


@fault("layout", "a cache names a file outside", "which is no file name")
def _(scene: Scene) -> None:
    at = scene.main.read_bytes()[:0x4000].index(b".01\0")
    _change(scene.main, at, b"/../../../../etc/passwd\0")


@fault("layout", "no cache of x86_64", "no system shared cache of x86_64 was found", quick=True)
def _(scene: Scene) -> None:
    for file in (scene.root / PREBOOT).rglob("dyld_shared_cache_x86_64*"):
        file.unlink()


@fault("layout", "no cache at all", "no system shared cache was found")
def _(scene: Scene) -> None:
    for cryptex in ("OS", "Incoming/OS"):
        shutil.rmtree(scene.root / PREBOOT / cryptex / "System/Library/dyld")


@fault("layout", "macOS 27 without Rosetta's small cache", "no x86support shared cache of x86_64", layout="27")
def _(scene: Scene) -> None:
    shutil.rmtree(scene.root / PREBOOT / "Rosetta/System/x86Support")


@fault("layout", "an M6 with the caches of other Macs", "no system shared cache of arm64e.x1", layout="27")
def _(scene: Scene) -> None:
    scene.program("usr/sbin/sysctl", "echo Mac18,5")


@fault("layout", "macOS 10.15 without its files", "no Mach-O file of x86_64 was found", layout="10.15")
def _(scene: Scene) -> None:
    for file in scene.root.rglob("libloose.dylib"):
        file.write_bytes(struct.pack("<7I", 0xFEEDFACE, 7, 3, 6, 0, 0, 0) + bytes(100))  # mach_header of i386


@fault("layout", "an update that is half installed", "runs build 24G90 by sw_vers, but 24H1 by SystemVersion.plist")
def _(scene: Scene) -> None:
    for plist in scene.root.rglob("SystemVersion.plist"):
        plist.write_text(plist.read_text().replace("24G90", "24H1"))


@fault("layout", "a cryptex of another build", "24G84")
def _(scene: Scene) -> None:
    plist = scene.root / PREBOOT / "OS/System/Library/CoreServices/SystemVersion.plist"
    plist.write_text(plist.read_text().replace("24G90", "24G84"))


@fault("layout", "a property list that is none", "which is no XML property list")
def _(scene: Scene) -> None:
    (scene.root / PREBOOT / "OS/System/Library/CoreServices/SystemVersion.plist").write_bytes(b"bplist00" + bytes(99))


@fault("layout", "a cryptex that links to itself", "more than 40 links lead on and on")
def _(scene: Scene) -> None:
    shutil.rmtree(scene.root / PREBOOT / "App")
    (scene.root / PREBOOT / "App").symlink_to("App")


@fault("layout", "a cryptex that leads nowhere", "/System/Cryptexes/App: is listed, and leads to no cryptex")
def _(scene: Scene) -> None:
    shutil.rmtree(scene.root / PREBOOT / "App")


@fault("layout", "a name with control characters", "has control characters")
def _(scene: Scene) -> None:
    (scene.root / "usr/lib/lib\x1b[2Jx.dylib").write_bytes(b"x")


@fault("layout", "a name that is not UTF-8", "is not UTF-8")
def _(scene: Scene) -> None:
    (scene.root / "usr/lib" / os.fsdecode(b"lib\xff.dylib")).write_bytes(b"x")


@fault("layout", "a Mach-O file that is cut", "/usr/lib/libloose.dylib: ")
def _(scene: Scene) -> None:
    os.truncate(scene.root / "usr/lib/libloose.dylib", 200)


# Permission.


def _closed(name: str, path: str, mode: int, *, quick: bool = False) -> None:
    def inject(scene: Scene) -> None:
        (scene.root / path).chmod(mode)

    FAULTS.append(Fault("permission", name, f"/{path}: not readable for this user", "15", quick, inject))


_CACHES = f"{PREBOOT}/OS/System/Library/dyld"
_closed("the folder of caches is closed", _CACHES, 0o700)
_closed("the folder of caches can be listed only", _CACHES, 0o744)
_closed("a main file is closed", f"{_CACHES}/dyld_shared_cache_arm64e", 0o600)
_closed("a sub-cache is closed", f"{_CACHES}/dyld_shared_cache_arm64e.01", 0o600)
_closed("the cryptexes are closed", PREBOOT, 0o700, quick=True)
_closed("one cryptex is closed", f"{PREBOOT}/OS", 0o750)
_closed("a cryptex without caches is closed", f"{PREBOOT}/App", 0o700)
_closed("/usr/lib is closed", "usr/lib", 0o700)
_closed("/System can be entered, not listed", "System", 0o711)
_closed("a file is closed to all", "usr/lib/libloose.dylib", 0o000)


@fault("permission", "macOS protects the caches", f"/{_CACHES}: not readable for this user")
def _(scene: Scene) -> None:
    protect(scene.caches)


@fault("permission", "a folder of images is closed", ": is closed to this user, and images of this release lie in it")
def _(scene: Scene) -> None:
    for folder in ("usr/lib/system", "usr/lib/swift", "System/Library/Frameworks"):
        (scene.root / folder).mkdir(parents=True, exist_ok=True)
        (scene.root / folder).chmod(0o700)


# Mounts.


@fault("mount", "a volume that is not booted", "attach cryptex1/current/os.dmg")
def _(scene: Scene) -> None:
    other = scene.root / "Volumes/Other"
    lay_out(other, "15", loose=scene.root / "usr/lib/libloose.dylib")
    shutil.rmtree(other / PREBOOT)
    scene.system = "/Volumes/Other"


@fault("mount", "a volume without a macOS", "is not the root of a macOS system", quick=True)
def _(scene: Scene) -> None:
    (scene.root / "Volumes/Other").mkdir()
    scene.system = "/Volumes/Other"


@fault("mount", "the cryptexes are not grafted", "no system shared cache was found")
def _(scene: Scene) -> None:
    scene.mounts.append(f"mount -t tmpfs -o mode=755 none {{root}}/{PREBOOT}")


@fault("mount", "one cryptex is grafted empty", "no system shared cache was found")
def _(scene: Scene) -> None:
    shutil.rmtree(scene.root / PREBOOT / "Incoming")
    scene.mounts.append(f"mount -t tmpfs -o mode=755 none {{root}}/{PREBOOT}/OS")


@fault("mount", "Rosetta's cryptex is grafted empty", "no system shared cache of x86_64 was found", layout="27")
def _(scene: Scene) -> None:
    scene.mounts.append(f"mount -t tmpfs -o mode=755 none {{root}}/{PREBOOT}/Rosetta")


_BAD_DISK = """
extern long syscall(long, ...); extern int openat(int, const char *, int, ...); extern int *__errno_location(void);
extern char *strstr(const char *, const char *); static char bad[1024];
int open64(const char *path, int flags, int mode) {
    int file = openat(-100, path, flags, mode);
    if (file >= 0 && file < 1024) bad[file] = strstr(path, "dyld_shared_cache_x86_64") != 0;
    return file;
}
int open(const char *path, int flags, int mode) { return open64(path, flags, mode); }
long read(int file, void *data, unsigned long size) {
    if (file >= 0 && file < 1024 && bad[file]) { *__errno_location() = 5; return -1; }
    return syscall(READ, file, data, size);
}
"""


@fault("mount", "a disk with read errors", "is the disk damaged, or the volume gone?")
def _(scene: Scene) -> None:
    source = scene.folder / "bad.c"
    source.write_text(_BAD_DISK)
    number = {"x86_64": 0, "aarch64": 63}[os.uname().machine]
    command = ["clang-19", "-shared", "-fPIC", "-nostdlib", "-fuse-ld=lld", f"-DREAD={number}", "-w"]
    subprocess.run([*command, "-o", scene.root / "opt/bad.so", source], check=True)
    scene.program("usr/libexec/sftp-server", f"LD_PRELOAD=/opt/bad.so exec /opt/linux/lib/openssh{SFTP_SERVER[12:]}")


@fault("mount", "no room for the copies", "free some space")
def _(scene: Scene) -> None:
    scene.staging = lambda folder: mounted_disk(folder, 1)
