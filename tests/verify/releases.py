"""A whole small release of macOS, harvested for real, and ways to damage a copy of its library."""

from __future__ import annotations

import plistlib
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symcache.library import Library
from symcache.model import CacheFile, HarvestRecord, ManifestEntry, ObjectEntry
from symcache.store import RecordKey, blob_key, put_blob, read_record, write_record
from symcache_provisioning import DirectorySource, harvest
from tests.cachewriter import CacheOptions, DylibInput, build_cache
from tests.support.toolchain import compile_image, lipo

__all__ = ["ARCHS", "BUILD", "DYLD", "OTHER_BUILD", "Workshop", "compile_release", "make_library"]

BUILD, OTHER_BUILD = "22G830", "22G720"
VERSIONS = {BUILD: "13.6.9", OTHER_BUILD: "13.6.7"}
ARCHS = ("arm64e", "x86_64", "x86_64h")
FOLDER = "System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld"
DYLD = "/usr/lib/dyld"
CASE_TWINS = ("/usr/lib/libCase.dylib", "/usr/lib/libcase.dylib")
CATALYST_TWINS = (
    "/System/Library/Frameworks/Twin.framework/Versions/A/Twin",
    "/System/iOSSupport/System/Library/Frameworks/Twin.framework/Versions/A/Twin",
)
ALIAS = ("/usr/lib/libalias.dylib", "/usr/lib/libplain.dylib")
"""(alias, image)."""
CACHED = (DYLD, *CASE_TWINS, *CATALYST_TWINS, "/usr/lib/libplain.dylib", "/usr/lib/libmore.dylib")
_MAIN_CACHE_SPLIT = "v2"
_LC_ID_DYLIB, _LC_ID_DYLINKER, _MH_DYLINKER = 0xD, 0xF, 7


def _source(path: str, salt: str) -> str:
    name = "".join(c if c.isalnum() else "_" for c in path)
    functions = "".join(
        f"int {name}_{n}(int x) {{ return x * {n + 3} + {len(salt)}; }}\n"
        f"static int hidden_{n}(int x) {{ return x ^ {n}; }}\n"
        f"int (*{name}_table_{n})(int) = hidden_{n};\n"
        for n in range(12)
    )
    return f'{functions}const char {name}_text[] = "{path} {salt}";\nint {name}_data[40] = {{1, 2, 3}};\n'


def _as_dylinker(file: Path) -> None:
    """Make a dylib look as dyld does in a cache: filetype 7, LC_ID_DYLINKER, no LC_ID_DYLIB."""
    data = bytearray(file.read_bytes())
    struct.pack_into("<I", data, 12, _MH_DYLINKER)
    (ncmds,) = struct.unpack_from("<I", data, 16)
    position = 32
    for _ in range(ncmds):
        cmd, size = struct.unpack_from("<2I", data, position)
        if cmd == _LC_ID_DYLIB:
            struct.pack_into("<I", data, position, _LC_ID_DYLINKER)
        position += size
    file.write_bytes(data)


def compile_release(root: Path, build: str) -> Path:
    """Make the system of one build below `root`: three caches, and files outside of them."""
    work = root.parent / f"{root.name}-objects"
    services = root / "System/Library/CoreServices"
    services.mkdir(parents=True)
    (services / "SystemVersion.plist").write_bytes(
        plistlib.dumps({"ProductName": "macOS", "ProductVersion": VERSIONS[build], "ProductBuildVersion": build})
    )
    for arch in ARCHS:
        code = "arm64" if arch == "arm64e" else "x86_64"
        inputs = []
        for number, path in enumerate(CACHED):
            # An image that did not change keeps its UUID from build to build; the compiler's folder is part of it.
            same = path.endswith("libplain.dylib")
            folder = (root.parent / "unchanged" if same else work) / arch / str(number)
            file = folder / path.rpartition("/")[2]
            if not file.exists():
                source = _source(path, arch if same else f"{arch} {build}")
                compile_image(folder, file.name, source, arch=code, install_name=path)
            if path == DYLD:
                _as_dylinker(file)
            inputs.append(DylibInput(path, file))
        options = CacheOptions(
            arch=arch,
            split=_MAIN_CACHE_SPLIT if arch != "x86_64h" else "single",
            aliases={ALIAS[0]: ALIAS[1]},
            build=build,
            layout_seed=int(build[3:]),
        )
        build_cache(inputs, options).write(root / FOLDER)
    _files(root, work, build)
    return root


def _files(root: Path, work: Path, build: str) -> None:
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    # dyld lies on disk too, and need not be the one in the cache.
    slices = [
        compile_image(work / "disk" / arch, "dyld", _source(DYLD, f"disk {build}"), arch=arch, install_name=DYLD)
        for arch in ("x86_64", "arm64")
    ]
    lipo(root / "usr/lib/dyld", *slices)
    tool = root.parent / "tool" / "tool-empty"  # the same bytes in every build
    if not tool.exists():
        _with_empty_segment(compile_image(tool.parent, "tool", "int main(void) { return 3; }", dylib=False))
    shutil.copy(tool, root / "usr/bin/tool")


def _with_empty_segment(executable: Path) -> Path:
    """Link once more with a segment that has a section of no bytes: zero-length segments are legal."""
    target = executable.with_name("tool-empty")
    subprocess.run(
        [
            *("ld64.lld-19", "-arch", "x86_64", "-platform_version", "macos", "12.0", "12.0", "-e", "_main"),
            *("-add_empty_section", "__EMPTY", "__nothing", str(executable.with_name("libSystem.tbd"))),
            *(str(executable.with_name("tool.o")), "-o", str(target)),
        ],
        check=True,
        capture_output=True,
    )
    return target


def make_library(location: Path | str, scratch: Path, *systems: Path) -> Path:
    """Harvest systems into a new library."""
    with Library.open(location, create=True) as library:
        for system in systems:
            result = harvest(DirectorySource(system), library, staging=scratch / "staging", extractor="raw")
            assert result.sealed, result.problems + [str(m) for m in result.missing]
    return Path(location)


@dataclass
class Workshop:
    """A private copy of a library, to be damaged."""

    location: Path

    def open(self) -> Library:
        return Library.open(self.location)

    def records(self) -> dict[str, HarvestRecord]:
        """Return the harvest of each build."""
        with self.open() as library:
            found = {}
            for text in library.store.list("records/"):
                key = RecordKey.parse(text)
                assert key
                record = read_record(library.store, key)[1]
                assert isinstance(record, HarvestRecord)
                assert record.release
                found[record.release.build] = record
            return found

    def rewrite(self, change: Callable[[HarvestRecord], HarvestRecord], build: str = BUILD) -> None:
        """Replace the record of a build, as if the harvest had been that way."""
        with self.open() as library:
            for text in list(library.store.list("records/")):
                key = RecordKey.parse(text)
                assert key
                record = read_record(library.store, key)[1]
                assert isinstance(record, HarvestRecord)
                assert record.release
                if record.release.build == build:
                    (self.location / text).unlink()
                    write_record(library.store, change(record), "damaged")
        for file in self.location.glob("catalog*"):
            file.unlink()

    def object(self, path: str, arch: str, build: str = BUILD, *, cached: bool = True) -> ObjectEntry:
        record = self.records()[build]
        return next(o for o in record.objects if (o.path, o.arch, bool(o.cache_uuid)) == (path, arch, cached))

    def change_object(self, path: str, arch: str, /, *, cached: bool = True, **changes: Any) -> None:
        """Change fields of one stored object's entry."""
        target = self.object(path, arch, cached=cached)
        self.rewrite(
            lambda r: r.model_copy(
                update={"objects": tuple(o.model_copy(update=changes) if o == target else o for o in r.objects)}
            )
        )

    def drop_object(self, path: str, arch: str, *, cached: bool = True) -> None:
        target = self.object(path, arch, cached=cached)
        self.rewrite(lambda r: r.model_copy(update={"objects": tuple(o for o in r.objects if o != target)}))

    def change_content(
        self, path: str, arch: str, change: Callable[[bytearray], bytes], *, cached: bool = True
    ) -> None:
        """Store another content for an object, whole and rightly hashed: what a faulty extractor would leave."""
        target = self.object(path, arch)
        file = self.location.parent / "changed"
        with self.open() as library:
            file.write_bytes(change(bytearray(b"".join(library.read_blob(target.sha256, target.size)))))
            sha256, size, _ = put_blob(library.store, file)
        self.change_object(path, arch, sha256=sha256, size=size)

    def cache_file(self, name: str, build: str = BUILD) -> CacheFile:
        return next(f for f in self.records()[build].cache_files if f.name == name)

    def change_manifest(self, change: Callable[[list[ManifestEntry]], list[ManifestEntry]]) -> None:
        self.rewrite(lambda r: r.model_copy(update={"manifest": tuple(change(list(r.manifest)))}))

    def blob(self, sha256: str) -> Path:
        """Return the file of a blob, made writable."""
        path = self.location / blob_key(sha256)
        path.chmod(0o644)
        return path
