"""Caches that macOS's own extractor takes apart in the guest.

No Mac runs here. So the program that is taken there is compiled for this machine from the same source, and loads a
library with the bundle's one function, which is called as Apple declares it and extracts by the stand-in for Apple's
tool. Everything else is as with a Mac: SFTP, programs in the guest, what is checked.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from symcache.dyld import SharedCache
from symcache.errors import NotFoundError, RemoteError, UsageError
from symcache.images import ImageRequest
from symcache.library import Library
from symcache.model import Kind
from symcache.verify import Expectations, Level, verify
from symcache_provisioning import HarvestResult, SshSource, harvest
from symcache_provisioning.extractors import bundle_helper, dsc_extractor_bundle, guest_tool
from symcache_provisioning.extractors.dsc_extractor_bundle import CacheBundle
from symcache_provisioning.extractors.dyld_shared_cache_util import parse_text_info
from tests.cachewriter.samples import sample
from tests.support.apple import apple_caches, util_output
from tests.support.openssh import OpenSshServer
from tests.support.processes import command_lines
from tests.support.systems import BUILD, CACHE_FOLDER, CACHES, images_in, make_system
from tests.support.toolchain import need_toolchain
from tests.vm_provisioning.conftest import session_of

pytestmark = pytest.mark.usefixtures("openssh", "helper")

_CHECKOUT = Path(__file__).parents[3]
_EXTRACT = (
    f"cd / && PYTHONPATH='{_CHECKOUT}' exec '{sys.executable}' -m symcache.demo.cache_util -extract \"$1\" \"$0\""
)
_BLOCKS = "void *_NSConcreteGlobalBlock[32]; void *_NSConcreteStackBlock[32];"
"""What libSystem has of the blocks runtime and the program needs."""


def compile_here(target: Path, *arguments: str | Path) -> Path:
    need_toolchain()
    command = ["clang-19", "-fblocks", "-O1", "-Wall", "-Werror", *arguments, "-o", target]
    subprocess.run([str(a) for a in command], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The helper, for this machine."""
    folder = tmp_path_factory.mktemp("native")
    blocks = folder / "blocks.c"
    blocks.write_text(_BLOCKS)
    source = Path(bundle_helper.__file__).with_name("extract_cache.c")
    return compile_here(folder / "extract-cache", source, blocks, "-ldl")


@pytest.fixture
def helper(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsc_extractor_bundle, "HELPER", native)


def make_bundle(folder: Path, *, then: str = "true", result: str = "status ? -1 : 0") -> Path:
    """Make a bundle that extracts, runs `then` in the folder it extracted into, and returns `result`.

    Folders are listed beside it, in `dsc_extractor.bundle.folders`.
    """
    bundle, source = folder / "dsc_extractor.bundle", folder / "bundle.c"
    scripts = [f'echo "$1" >> {bundle}.folders', _EXTRACT, f'cd "$1" && {{ {then}; }}']
    note, extract, after = (s.replace("\\", r"\\").replace('"', r"\"") for s in scripts)
    source.write_text(
        "#include <sys/wait.h>\n#include <unistd.h>\n"
        "static int run(const char *script, const char *cache, const char *root) {\n"
        "    int status; pid_t child = fork();\n"
        '    if (child == 0) { execl("/bin/sh", "sh", "-c", script, cache, root, (char *)0); _exit(127); }\n'
        "    return child < 0 || waitpid(child, &status, 0) != child || status;\n}\n"
        "int dyld_shared_cache_extract_dylibs_progress(const char *cache, const char *root,\n"
        "                                              void (^progress)(unsigned, unsigned)) {\n"
        f'    run("{note}", cache, root);\n'
        f'    int status = run("{extract}", cache, root) || run("{after}", cache, root);\n'
        "    for (unsigned i = 1; i <= 3; i++) progress(i, 3);\n"
        f"    (void)status; return {result};\n}}\n"
    )
    return compile_here(bundle, "-shared", "-fPIC", source)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def by_bundle(
    source: SshSource, library: Library, staging: Path, path: Path | str | None, archs: tuple[str, ...] = ("arm64e",)
) -> HarvestResult:
    return harvest(
        source,
        library,
        staging=staging,
        extractor="bundle",
        bundle_path=None if path is None else str(path),
        archs=archs,
    )


def left_behind(bundle: Path) -> list[Path]:
    """Return what is left of the folders in the guest, of which there must have been some."""
    images = [Path(line) for line in Path(f"{bundle}.folders").read_text().splitlines()]
    assert images
    assert all(folder.name == "images" for folder in images)
    return [folder.parent for folder in images if folder.parent.exists()]


def test_the_bundle_gives_what_the_raw_caches_give(
    source: SshSource, bundle: Path, library: Library, tmp_path: Path
) -> None:
    result = by_bundle(source, library, tmp_path / "staging", bundle, ())
    assert (result.problems, result.missing) == ([], [])
    assert result.sealed
    assert result.extractor == "bundle"
    assert {c.arch: c.images for c in result.caches} == {arch: images_in(arch) for arch in CACHES}
    assert not left_behind(bundle)
    assert not list((tmp_path / "staging").iterdir())
    found = library.by_name("*")
    assert {o.extractor for o in found if o.cache_uuid} == {"dsc_extractor.bundle"}
    for level in Level:
        report = verify(library, [BUILD], level=level, expectations=Expectations.load(archs=("arm64e", "x86_64")))
        assert report.complete, report.findings
    with Library.open(tmp_path / "raw", create=True) as other:
        assert harvest(source, other, staging=tmp_path / "staging", extractor="raw").sealed
        assert {(o.path, o.uuid, o.arch) for o in found} == {(o.path, o.uuid, o.arch) for o in other.by_name("*")}


def test_our_own_extractor_is_preferred(source: SshSource, library: Library, tmp_path: Path) -> None:
    longer = make_bundle(tmp_path, then="""find . -type f -exec sh -c 'echo more >> "$0"' {} \\;""")
    assert by_bundle(source, library, tmp_path / "staging", longer).sealed
    assert harvest(source, library, staging=tmp_path / "staging", extractor="raw", archs=("arm64e",)).sealed
    made: dict[str, dict[UUID | None, str]] = {"symcache": {}, "dsc_extractor.bundle": {}, "": {}}
    for image in library.by_name("*"):
        made[image.extractor][image.uuid] = image.sha256
    ours, theirs = made["symcache"], made["dsc_extractor.bundle"]
    assert len(ours) == len(theirs) == images_in("arm64e")
    assert not set(ours.values()) & set(theirs.values())
    for uuid in filter(None, ours):  # one has none
        found = library.resolve(ImageRequest(uuid, Kind.EXECUTABLE))
        assert found is not None
        assert found.sha256 == ours[uuid]


def test_a_guest_without_the_bundle_says_where_another_is(source: SshSource, library: Library, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"has no /usr/lib/dsc_extractor\.bundle: macOS comes with it") as raised:
        by_bundle(source, library, tmp_path / "staging", None)
    assert "--bundle-path" in raised.value.hint
    assert "--extractor raw" in raised.value.hint
    with pytest.raises(NotFoundError, match="has no /nonexistent"):
        by_bundle(source, library, tmp_path / "staging", "/nonexistent")
    with pytest.raises(UsageError, match="absolute path"):
        by_bundle(source, library, tmp_path / "staging", "dsc_extractor.bundle")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"result": "-1"}, "returned -1"),
        ({"then": "rm -rf ./*"}, "did not extract it"),
    ],
)
def test_a_bundle_that_extracts_nothing_is_noticed(
    change: dict[str, str], said: str, source: SshSource, library: Library, tmp_path: Path
) -> None:
    broken = make_bundle(tmp_path, **change)
    result = by_bundle(source, library, tmp_path / "staging", broken)
    assert not result.sealed
    assert any(said in p for p in result.problems), result.problems
    assert not left_behind(broken)
    assert not any(o.cache_uuid for o in library.by_name("*"))


def test_images_that_are_cut_missing_or_others_are_noticed(source: SshSource, library: Library, tmp_path: Path) -> None:
    liar = make_bundle(
        tmp_path,
        then="set -- $(find . -type f ! -name '* *' | sort) && rm $1 && truncate -s 4096 $2 && cp $4 $3 && cp $4 more",
    )
    result = by_bundle(source, library, tmp_path / "staging", liar)
    assert not result.sealed
    assert len(result.missing) == 3
    for said in ("did not extract it", "ends at 0x1000", "the cache lists another"):
        assert sum(said in p for p in result.problems) == 1, result.problems
    assert any("also wrote /more" in n for n in result.notes)


def test_images_of_another_processor_are_noticed(
    source: SshSource, library: Library, system: Path, tmp_path: Path
) -> None:
    """Even where their UUIDs are right."""
    liar = make_bundle(
        tmp_path,
        then="f=$(find . -type f ! -name '* *' | head -n 1)"
        r" && printf '\007\000\000\001\003\000\000\000' | dd of=$f bs=1 seek=4 conv=notrunc 2>/dev/null",
    )
    result = by_bundle(source, library, tmp_path / "staging", liar)
    assert not result.sealed
    assert sum("made an image for x86_64" in p for p in result.problems) == 1, result.problems


def test_a_bundle_for_other_processes_is_tried_as_x86_64(
    source: SshSource, bundle: Path, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfit = tmp_path / "dsc_extractor.bundle"
    unfit.write_text("for arm64e alone\n")
    arch = tmp_path / "arch"
    monkeypatch.setattr(dsc_extractor_bundle, "_ARCH", str(arch))
    arch.write_text("#!/bin/sh\necho 'arch: Bad CPU type in executable' >&2\nexit 86\n")
    arch.chmod(0o755)
    result = by_bundle(source, library, tmp_path / "staging", unfit)
    assert not result.sealed
    (problem,) = (p for p in result.problems if "cannot be loaded" in p)
    assert "ended with 86: arch: Bad CPU type" in problem
    arch.write_text(f'#!/bin/sh\n[ "$1 $3" = "-x86_64 {unfit}" ] || exit 1\nexec "$2" {bundle} "$4" "$5"\n')
    assert by_bundle(source, library, tmp_path / "staging", unfit).sealed


def test_a_library_that_is_no_extractor(source: SshSource, library: Library, tmp_path: Path) -> None:
    code = tmp_path / "other.c"
    code.write_text("int other(void) { return 1; }\n")
    other = compile_here(tmp_path / "other.bundle", "-shared", "-fPIC", code)
    result = by_bundle(source, library, tmp_path / "staging", other)
    assert not result.sealed
    assert any("has no dyld_shared_cache_extract_dylibs_progress" in p for p in result.problems), result.problems


@pytest.mark.parametrize("arch", CACHES)
def test_the_list_is_what_was_built_into_the_cache(
    arch: str, source: SshSource, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        dsc_extractor_bundle, "HEAD_SIZE", 0x400
    )  # such caches have all their tables in the usual first read
    (cache,) = (c for c in source.caches() if c.arch == arch)
    listing = CacheBundle(source, str(bundle)).list_images(cache, tmp_path)
    copy = tmp_path / cache.name
    assert not any(copy.read_bytes()[cache.files[0].size // 2 :])  # its beginning alone was fetched
    assert listing.doubts == []
    assert {i.path for i in listing.images} == {i.path for i in sample(CACHES[arch])}
    assert len(listing.images) == images_in(arch)


@pytest.mark.parametrize("name", ["arm64e-auth", "x86_64-60"])
def test_the_list_is_what_apples_tool_says(name: str, openssh: OpenSshServer, bundle: Path, tmp_path: Path) -> None:
    said = next(f for f in (util_output() / name).glob("*") if f.read_bytes().startswith(b"dylib text infos"))
    assert apple_caches()
    root = make_system(tmp_path / "root", caches=(), apple=(name,), files=False)
    with session_of(openssh, root) as session:
        source = SshSource(session)
        (cache,) = source.caches()
        listing = CacheBundle(source, str(bundle)).list_images(cache, tmp_path)
    assert set(listing.images) == set(parse_text_info(said.read_bytes()))


def test_a_table_that_cannot_be_is_refused(
    openssh: OpenSshServer, bundle: Path, library: Library, tmp_path: Path
) -> None:
    root = make_system(tmp_path / "root", caches=("x86_64",), files=False)
    main = root / CACHE_FOLDER / "dyld_shared_cache_x86_64"
    data = bytearray(main.read_bytes())
    with SharedCache.open(main) as opened:
        offset, _ = opened.main.header.images_table
    data[offset + 24 : offset + 28] = (0xF0000000).to_bytes(4, "little")
    main.write_bytes(data)
    with session_of(openssh, root) as session:
        result = by_bundle(SshSource(session), library, tmp_path / "staging", bundle, ())
    assert not result.sealed
    assert result.problems


def test_a_full_disk_there_is_noticed_before(source: SshSource, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache, *_) = source.caches()
    with (
        pytest.raises(RemoteError, match="MiB are free in /tmp"),
        CacheBundle(source, str(bundle)).extract(cache.path, 1 << 60),
    ):
        pass


def test_nothing_is_left_of_one_that_does_not_end(
    source: SshSource, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = make_bundle(tmp_path, result="(int)sleep(600)")
    for seconds in (2, 20, 120):  # a busy machine may not even have started it
        monkeypatch.setattr(guest_tool, "_EXTRACT_SECONDS", seconds)
        result = by_bundle(source, library, tmp_path / "staging", endless)
        assert any("did not finish in its time" in p for p in result.problems), result.problems
        if Path(f"{endless}.folders").exists():
            break
    assert not left_behind(endless)
    assert not any(str(endless) in command for command in command_lines())


def test_nothing_is_left_of_an_interrupted_one(source: SshSource, bundle: Path) -> None:
    (cache, *_) = source.caches()
    with (
        pytest.raises(KeyboardInterrupt),
        CacheBundle(source, str(bundle)).extract(cache.path, 0) as (tree, complaints),
    ):
        assert complaints == []
        assert Path(tree.root).parent.stat().st_mode & 0o777 == 0o700
        raise KeyboardInterrupt
    assert not left_behind(bundle)
