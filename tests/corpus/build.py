"""Compile the corpus: the system libraries, tools and the Ledger application, for x86_64 and arm64.

Nothing of the machine that builds gets into the files: sources are compiled from their own folder under names below
/Users/dev, object files are named relative to the build folder, and time stamps are zero. So the same toolchain gives
the same bytes and UUIDs anywhere.
"""

from __future__ import annotations

import os
import plistlib
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
ARCHES = ("x86_64", "arm64")
# The architecture that the host's own files have on a machine which runs programs of the key.
SYSTEM_ARCH = {"x86_64": "x86_64", "arm64": "arm64e"}
ARM64E_SUBTYPE = 0x80000002  # CPU_SUBTYPE_ARM64E with the versioned pointer-authentication ABI
DYLD = "/usr/lib/dyld"
LIBSYSTEM = "/usr/lib/libSystem.B.dylib"
COREFOUNDATION = "/System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation"
LEDGERKIT = "@rpath/LedgerKit.framework/Versions/A/LedgerKit"
_MACOS = "13.0"


@dataclass(frozen=True)
class SystemLibrary:
    """One library of the host: where it is installed, its source, what it needs (in link order)."""

    path: str
    source: str
    version: str
    needs: tuple[str, ...] = ()
    reexports: tuple[str, ...] = ()


_KERNEL, _PLATFORM, _MALLOC, _PTHREAD, _C, _LIBDYLD = (
    f"/usr/lib/system/{name}.dylib"
    for name in (
        "libsystem_kernel", "libsystem_platform", "libsystem_malloc", "libsystem_pthread", "libsystem_c", "libdyld",
    )
)  # fmt: skip
SYSTEM_LIBRARIES = (
    SystemLibrary(DYLD, "dyld.c", "1042.1.0"),
    SystemLibrary(_KERNEL, "libsystem_kernel.c", "8796.141.3"),
    SystemLibrary(_PLATFORM, "libsystem_platform.c", "292.100.1"),
    SystemLibrary(_MALLOC, "libsystem_malloc.c", "425.100.7"),
    SystemLibrary(_PTHREAD, "libsystem_pthread.c", "514.100.2", (_KERNEL, _MALLOC)),
    SystemLibrary(_C, "libsystem_c.c", "1534.81.1", (_KERNEL, _PLATFORM, _MALLOC)),
    SystemLibrary(_LIBDYLD, "libdyld.c", "1042.1.0"),
    SystemLibrary(
        LIBSYSTEM, "libSystem.c", "1319.100.3", reexports=(_KERNEL, _PLATFORM, _MALLOC, _PTHREAD, _C, _LIBDYLD)
    ),
    SystemLibrary(COREFOUNDATION, "CoreFoundation.c", "1977.0.0", (LIBSYSTEM,)),
)


@dataclass
class Product:
    """An image of the application: the shipped (stripped) file, its dSYM bundle and what it was stripped from."""

    file: Path
    dsym: Path
    unstripped: Path


@dataclass
class Build:
    """All that was built for one architecture. `system` is by install path, `host` by path on the host."""

    arch: str
    system: dict[str, Path] = field(default_factory=dict)
    ledger: Product = field(init=False)
    ledgerkit: Product = field(init=False)
    host: dict[str, Path] = field(default_factory=dict)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a tool in a folder; its standard output is the answer."""
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env={**os.environ, "ZERO_AR_DATE": "1", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def _compile(work: Path, source: str, arch: str, *flags: str) -> Path:
    """Compile `folder/name.c`; the object's path is relative to `work`."""
    group = source.partition("/")[0]
    target = Path("objects", f"{source.replace('/', '-')}{'.'.join(flags)}.o")
    (work / "objects").mkdir(exist_ok=True)
    run(
        "clang-19", "-target", f"{arch}-apple-macos{_MACOS}", "-O1", "-fno-optimize-sibling-calls",
        "-fno-stack-protector", "-fno-builtin", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES / 'system'}",
        f"-ffile-prefix-map={SOURCES / 'system'}=/Users/dev/sdk", "-fdebug-compilation-dir=/Users/dev/Ledger", *flags,
        "-c", source.partition("/")[2], "-o", work / target, cwd=SOURCES / group,
    )  # fmt: skip
    os.utime(work / target, (0, 0))  # else dsymutil finds it newer than the debug map says
    return target


def _link(work: Path, arch: str, output: Path, *arguments: str | Path) -> Path:
    (work / output).parent.mkdir(parents=True, exist_ok=True)
    run(
        "ld64.lld-19", "-arch", arch, "-platform_version", "macos", _MACOS, _MACOS, "-syslibroot", work / "root",
        "-oso_prefix", f"{work}/", "-headerpad", "0x200", *arguments, "-o", output, cwd=work,
    )  # fmt: skip
    return work / output


def _set_subtype(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(8)
        stream.write(struct.pack("<I", ARM64E_SUBTYPE))


def _make_dylinker(file: Path, arch: str) -> None:
    """Turn a dylib into a dynamic linker, which the linker cannot make: MH_DYLINKER, LC_ID_DYLINKER, LC_UNIXTHREAD."""
    data = bytearray(file.read_bytes())
    ncmds, sizeofcmds = struct.unpack_from("<II", data, 16)
    at, text = 32, 0
    for _ in range(ncmds):
        cmd, size = struct.unpack_from("<II", data, at)
        if cmd == 0xD:  # LC_ID_DYLIB: the name lies at the same offset in a dylinker_command
            struct.pack_into("<I", data, at, 0xF)
        elif cmd == 0x19 and data[at + 8 : at + 15] == b"__TEXT\0":
            (text,) = struct.unpack_from("<Q", data, at + 24)
        at += size
    entry = symbol_table(file)["__dyld_start"] - text
    flavor, words, slot = (4, 42, 16) if arch == "x86_64" else (6, 68, 32)
    state = bytearray(4 * words)
    struct.pack_into("<Q", state, 8 * slot, text + entry)
    command = struct.pack("<IIII", 0x5, 16 + len(state), flavor, words) + state
    if any(data[at : at + len(command)]):
        raise RuntimeError(f"{file} has no room for LC_UNIXTHREAD")
    data[at : at + len(command)] = command
    struct.pack_into("<III", data, 12, 7, ncmds + 1, sizeofcmds + len(command))
    file.write_bytes(data)


def symbol_table(file: Path) -> dict[str, int]:
    """Every defined symbol of an image as llvm-nm tells it: name as in the file, address."""
    lines = run("llvm-nm-19", "--defined-only", "--no-sort", file, cwd=file.parent).splitlines()
    return {fields[2]: int(fields[0], 16) for line in lines if len(fields := line.split(None, 2)) == 3}


def _system_library(build: Build, work: Path, library: SystemLibrary) -> None:
    arch = build.arch
    # Apple's arm64e libraries sign the return addresses that they save.
    code = _compile(
        work, f"system/{library.source}", arch, *(["-mbranch-protection=pac-ret+b-key"] * (arch == "arm64"))
    )
    # Optimized for the distance between its segments, a library could not go into a shared cache, which moves them.
    image = _link(
        work, arch, Path("root") / library.path[1:], "-ignore_optimization_hints", "-dylib",
        "-install_name", library.path, "-current_version", library.version, "-compatibility_version", "1.0", code,
        *(work / "root" / n[1:] for n in library.needs),
        *(word for n in library.reexports for word in ("-reexport_library", work / "root" / n[1:])),
    )  # fmt: skip
    shipped = work / "shipped" / library.path[1:]
    shipped.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, shipped)
    if library.path == DYLD:
        _make_dylinker(shipped, arch)
    if arch == "arm64":
        _set_subtype(shipped)
    build.system[library.path] = shipped


def _product(work: Path, image: Path, shipped: Path) -> Product:
    dsym = work / "dsyms" / f"{shipped.name}.dSYM"
    run("dsymutil-19", image, "-oso-prepend-path", work, "-o", dsym, cwd=work)
    shutil.rmtree(dsym / "Contents" / "Resources" / "Relocations", ignore_errors=True)
    shipped.parent.mkdir(parents=True, exist_ok=True)
    run("llvm-strip-19", "-S", "-x", image, "-o", shipped, cwd=work)
    return Product(shipped, dsym, image)


def _application(build: Build, work: Path, *flags: str) -> None:
    root = work / "root"
    kit = _link(
        work, build.arch, Path("app/LedgerKit"), "-dylib", "-install_name", LEDGERKIT, "-current_version", "2.4",
        _compile(work, "ledger/LedgerKit.c", build.arch, "-g", *flags), root / COREFOUNDATION[1:], root / LIBSYSTEM[1:],
    )  # fmt: skip
    ledger = _link(
        work, build.arch, Path("app/Ledger"), "-e", "_main", "-rpath", "@executable_path/../Frameworks",
        _compile(work, "ledger/main.c", build.arch, "-g", *flags), kit, root / LIBSYSTEM[1:],
    )  # fmt: skip
    build.ledgerkit = _product(work, kit, work / "bundle" / "LedgerKit")
    build.ledger = _product(work, ledger, work / "bundle" / "Ledger")


def _tools(build: Build, work: Path) -> None:
    root, arch = work / "root", build.arch
    tool = _compile(work, "tools/tool.c", arch)
    for path in ("/usr/bin/true", "/usr/libexec/path_helper", MTL_SERVICE):
        # The name makes the UUIDs differ, as they do between programs.
        image = _link(work, arch, Path("tools") / path[1:], "-e", "_main", "-rpath", path, tool, root / LIBSYSTEM[1:])
        build.host[path] = image
    build.host[QUICKLOOK] = _link(
        work, arch, Path("tools") / QUICKLOOK[1:], "-bundle", _compile(work, "tools/plugin.c", arch),
        root / COREFOUNDATION[1:], root / LIBSYSTEM[1:],
    )  # fmt: skip
    if arch == "arm64":
        for image in build.host.values():
            _set_subtype(image)


MTL_SERVICE = (
    "/System/Library/Frameworks/Metal.framework/Versions/A/XPCServices/MTLCompilerService.xpc/Contents/MacOS/"
    "MTLCompilerService"
)
QUICKLOOK = "/System/Library/QuickLook/Text.qlgenerator/Contents/MacOS/Text"


def build(arch: str, work: Path, *, app_flags: tuple[str, ...] = ()) -> Build:
    """Build everything for `arch` (x86_64 or arm64) below `work`, which is created."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    result = Build(arch)
    for library in SYSTEM_LIBRARIES:
        _system_library(result, work, library)
    _application(result, work, *app_flags)
    _tools(result, work)
    return result


def info_plist(identifier: str, name: str, package: str, version: str) -> bytes:
    """Info.plist of a bundle."""
    return plistlib.dumps(
        {
            "CFBundleExecutable": name,
            "CFBundleIdentifier": identifier,
            "CFBundlePackageType": package,
            "CFBundleShortVersionString": version,
            "CFBundleVersion": version,
        }
    )
