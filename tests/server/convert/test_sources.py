"""Sources of own binaries: what is served, and above all what is not."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

import symcache.demo
from symcache.dump import SourceTree
from symcache.errors import UsageError
from symcache.library import Library, ingest, stage_paths
from symcache.macho import identify
from symcache_server.convert.sources import line_files
from tests.support.http import Answer, request
from tests.support.servers import Server, serve, set_uuid, uuid_of
from tests.support.toolchain import compile_image, dsym, need_toolchain

_APP = Path(symcache.demo.__file__).with_name("assets") / "app" / "arm64"
_SOURCES = Path(__file__).parents[2] / "corpus" / "src" / "ledger"
_RECORDED = "/Users/dev/Ledger"
_NAMED = (
    *("/tag/main.c", "/by-uuid/main.c", "/branch/main.c", f"{_RECORDED}/over/main.c", "/tag/sub/main.c", "/tag/none.c"),
    *(f"{_RECORDED}/{place}/main.c" for place in ("deep", "out", "linked", "pipe", "huge", "a folder", ".git", "none")),
    *(f"{_RECORDED}/{place}" for place in ("../main.c", "x/../../main.c", "deep", "main.c/main.c")),
    *(f"{_RECORDED}-other/main.c", "/etc/passwd", f"{_RECORDED}/build/../deep/./two.c"),
)
"""What the line tables of somebody name who would like to read all that."""


def _git(repository: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", repository, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass
class Served:
    """A server with the application in its library, and what lies in and around the folder of its sources."""

    server: Server
    uuid: UUID
    """Of the executable, whose dSYM is there, too."""
    named: UUID
    """Of what has `_NAMED` in its line tables."""
    bare: UUID
    """Of what has no line tables."""
    whole: UUID
    """Of what has no dSYM, but the line tables of `named` itself."""
    folder: Path
    repository: Path
    library: Path

    def ask(self, path: str, uuid: UUID | None = None, method: str = "GET") -> Answer:
        return request(self.server.url, f"/buildid/{(uuid or self.uuid).hex}/source{path}", method=method)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    top = tmp_path_factory.mktemp("sources")
    (top / "scratch").mkdir()
    code = "".join(f'#line 1 "{path}"\nint f{n}(int x) {{ return x * {n}; }}\n' for n, path in enumerate(_NAMED))
    named, bare = compile_image(top / "own", "named", code), compile_image(top / "bare", "bare", "int bare;\n")
    bundle = dsym(named)
    whole = bytearray((bundle / "Contents/Resources/DWARF/named").read_bytes())
    struct.pack_into("<I", whole, 12, 2)  # mach_header_64.filetype: MH_EXECUTE
    (top / "whole").write_bytes(whole)
    images = [_APP, named, bundle, bare, set_uuid(top / "whole", UUID(int=5))]
    with Library.open(top / "library", create=True) as library:
        assert ingest(library, stage_paths(images, top / "scratch")).problems == []
    uuid = identify(_APP / "Ledger.app.dSYM/Contents/Resources/DWARF/Ledger")[0].uuid
    assert uuid is not None
    folder = top / "src"
    shutil.copytree(_SOURCES, folder)
    # The line table has a main.c; whether one is served is a question of where it lies.
    (top / "outside").mkdir()
    for place in (top, top / "outside", folder / "deep", folder / ".git"):
        place.mkdir(exist_ok=True)
        (place / "main.c").write_text(f"in {place.name}\n")
    (folder / "unnamed.c").write_text("no line of the program comes from here\n")
    (folder / "deep" / "two.c").write_text("two\n")
    (folder / "out").symlink_to(top / "outside")
    (folder / "linked").mkdir()
    (folder / "linked" / "main.c").symlink_to(top / "main.c")
    for name in ("pipe", "huge", "a folder/main.c"):
        (folder / name).mkdir(parents=True)
    os.mkfifo(folder / "pipe" / "main.c")
    with (folder / "huge" / "main.c").open("wb") as file:
        file.truncate((16 << 20) + 1)
    repository = top / "repository"
    shutil.copytree(_SOURCES, repository)
    _git(top, "init", "-q", "repository")
    (repository / "sub").mkdir()
    (repository / "sub" / "main.c").symlink_to("../../main.c")
    _git(repository, "add", ".")
    _git(repository, "commit", "-q", "-m", "as it was built")
    _git(repository, "tag", "v1")
    _git(repository, "update-ref", f"refs/symcache/{uuid_of(named).hex}", "HEAD")
    (repository / "main.c").write_text("changed since\n")
    _git(repository, "commit", "-q", "-a", "-m", "later")
    options = [f"{_RECORDED}={folder}", f"/tag=git:{repository}@v1", f"/branch=git:{repository}@HEAD"]
    options += [f"/by-uuid=git:{repository}@refs/symcache/{{uuid}}", f"{_RECORDED}/over=git:{repository}@v1"]
    arguments = [word for option in options for word in ("--sources", option)]
    with serve(top / "library", top / "server", *arguments) as server:
        yield Served(server, uuid, uuid_of(named), uuid_of(bare), UUID(int=5), folder, repository, top / "library")


def test_a_source_file_is_served_under_its_recorded_path(served: Served) -> None:
    truth = (_SOURCES / "main.c").read_bytes()
    got = served.ask(f"{_RECORDED}/main.c")
    assert (got.status, got.body) == (200, truth)
    assert got.headers["x-debuginfod-size"] == got.headers["content-length"] == str(len(truth))
    head = served.ask(f"{_RECORDED}/main.c", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k != "date"} == {
        k: v for k, v in got.headers.items() if k != "date"
    }
    path = f"/buildid/{served.uuid.hex}/source{_RECORDED}/main.c"
    part = request(served.server.url, path, headers={"Range": "bytes=2-5"})
    assert (part.status, part.body) == (206, truth[2:6])
    same = request(served.server.url, path, headers={"If-None-Match": got.headers["etag"]})
    assert same.status == 304


@pytest.mark.parametrize(
    "path",
    [
        "%2FUsers%2Fdev%2FLedger%2Fmain.c",
        f"/{_RECORDED}/main.c",
        "/Users/dev/Ledger/x/../main.c",
        "/Users/d%65v/Ledger//main.c/",
    ],
)
def test_paths_as_debug_info_and_clients_write_them(served: Served, path: str) -> None:
    """debuginfod's rules: percent-decoded once; `..` as compilers leave it in."""
    got = served.ask(path if path.startswith("/") else "/" + path)
    assert (got.status, got.body) == (200, (_SOURCES / "main.c").read_bytes())


@pytest.mark.parametrize(
    "path",
    [
        *("/../main.c", "/x/../../main.c", "/..%2fmain.c", "/%2e%2e/main.c", "/%252e%252e/main.c", "/..%5cmain.c"),
        *("/out/main.c", "/linked/main.c", "/pipe/main.c", "/huge/main.c", "/a%20folder/main.c", "/deep", "/", ""),
        *("/.git/main.c", "/none/main.c", "/main.c/main.c", "/main.c%00", "/main.c%0a", "/%ff/main.c"),
        *("/unnamed.c", "-other/main.c", "/MAIN.C"),
    ],
)
def test_nothing_else_is_served(served: Served, path: str) -> None:
    for uuid in (served.uuid, served.named):
        for method in ("GET", "HEAD"):
            assert served.ask(_RECORDED + path, uuid, method).status in {400, 404}


def test_only_for_binaries_that_the_library_holds(served: Served) -> None:
    assert served.ask(f"{_RECORDED}/main.c", UUID(int=1)).status == 404
    assert served.ask("/etc/passwd").status == 404
    kit = identify(_APP / "LedgerKit.framework.dSYM/Contents/Resources/DWARF/LedgerKit")[0].uuid
    # Its line table has LedgerKit.c, not main.c.
    assert served.ask(f"{_RECORDED}/LedgerKit.c", kit).status == 200
    assert served.ask(f"{_RECORDED}/main.c", kit).status == 404


def test_a_file_of_the_same_name_elsewhere_is_another_one(served: Served) -> None:
    assert served.ask(f"{_RECORDED}/deep/main.c").status == 404
    assert served.ask(f"{_RECORDED}/deep/main.c", served.named).body == b"in deep\n"
    assert served.ask(f"{_RECORDED}/main.c", served.named).status == 404


def test_line_tables_may_lie_in_the_binary_itself(served: Served) -> None:
    assert served.ask(f"{_RECORDED}/deep/main.c", served.whole).body == b"in deep\n"
    assert served.ask(f"{_RECORDED}/main.c", served.whole).status == 404


def test_without_line_tables_nothing_is_served(served: Served) -> None:
    got = served.ask(f"{_RECORDED}/main.c", served.bare)
    assert got.status == 404
    assert b"has no line tables" in got.body
    assert b"its dSYM" in got.body


@pytest.mark.parametrize("path", ["build/../deep/./two.c", "deep/two.c", "build/%2E%2E/deep/%74wo.c"])
def test_a_path_is_written_as_compilers_do_or_plain(served: Served, path: str) -> None:
    assert served.ask(f"{_RECORDED}/{path}", served.named).body == b"two\n"


def test_a_revision_of_a_git_repository(served: Served) -> None:
    built = (_SOURCES / "main.c").read_bytes()
    assert served.ask("/tag/main.c", served.named).body == built
    assert served.ask("/by-uuid/main.c", served.named).body == built
    assert served.ask("/branch/main.c", served.named).body == b"changed since\n"
    assert served.ask(f"{_RECORDED}/over/main.c", served.named).body == built
    for path in ("/tag/sub/main.c", "/tag/sub", "/tag/../main.c", "/tag/none.c", "/tag/*.c", "/tag/:(top)main.c"):
        assert served.ask(path, served.named).status in {400, 404}
    # A binary that nobody has left a ref for.
    assert served.ask("/by-uuid/main.c", served.whole).status == 404


def test_debuginfod_find_gets_sources(served: Served, tmp_path: Path) -> None:
    if not shutil.which("debuginfod-find"):
        pytest.skip("not installed: debuginfod-find (apt-get install debuginfod)")
    environment = os.environ | {"DEBUGINFOD_URLS": served.server.url, "DEBUGINFOD_CACHE_PATH": str(tmp_path)}

    def find(path: str) -> subprocess.CompletedProcess[str]:
        command = ["debuginfod-find", "source", served.uuid.hex, path]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert Path(find(f"{_RECORDED}/main.c").stdout.strip()).read_bytes() == (_SOURCES / "main.c").read_bytes()
    assert find(f"{_RECORDED}/none.c").returncode == 1


def _build(folder: Path, version: int) -> Path:
    """Return the DWARF of a dylib of several units, compiled in two folders, one of them an assembler's."""
    need_toolchain()
    files = {
        "inc/deep/inl.h": "static inline __attribute__((always_inline)) int inl(int x) { return x * 3; }",
        "inc/types.h": "struct only_a_type { int a; };",
        "src/core/one.c": '#include "../../inc/deep/inl.h"\n#include "types.h"\nint one(int x) { return inl(x); }',
        "src/two.c": '#include "inl.h"\n#include "types.h"\nint NAME(struct only_a_type *t) { return inl(t->a); }',
        "src/three.s": ".globl _three\n_three: nop\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    (folder / "build").mkdir()
    target = ["clang-19", "-target", "arm64-apple-macos12", f"-gdwarf-{version}"]
    include = ["-O1", "-I../inc", "-I../inc/deep", "-DNAME=two"]
    units = (
        [*include, "../src/core/one.c"],
        [*include, "../src/./two.c"],
        ["../src/three.s"],
        [*include, "-UNAME", "-DNAME=four", "-ffile-compilation-dir=/rec/./orded/x/..", "../src/two.c"],
    )
    for number, unit in enumerate(units):
        subprocess.run([*target, "-c", *unit, "-o", f"{number}.o"], cwd=folder / "build", check=True)
    link = ["ld64.lld-19", "-arch", "arm64", "-platform_version", "macos", "12.0", "12.0", "-dylib", "-o", "units"]
    subprocess.run([*link, *(f"{n}.o" for n in range(len(units)))], cwd=folder / "build", check=True)
    return dsym(folder / "build" / "units") / "Contents/Resources/DWARF/units"


def _dwarfdump(image: Path) -> set[str]:
    """Return the files of the line tables, as LLVM reads them."""

    def dump(section: str) -> str:
        return subprocess.run(["llvm-dwarfdump-19", section, image], capture_output=True, text=True, check=True).stdout

    compiled_in = re.findall(r'DW_AT_comp_dir\t\("(.*)"\)', dump("--debug-info"))
    tables = dump("--debug-line").split("debug_line[")[1:]
    files = set()
    for table, folder in zip(tables, compiled_in, strict=True):
        folders = {"0": ""} | dict(re.findall(r'include_directories\[ *(\d+)\] = "(.*)"', table))
        for name, number in re.findall(r'name: "(.*)"\n *dir_index: (\d+)', table):
            files.add(posixpath.normpath(posixpath.join(folder, folders[number], name)))
    return files


@pytest.mark.parametrize("version", [4, 5])
def test_the_line_tables_name_what_llvm_says(tmp_path: Path, version: int) -> None:
    built = _build(tmp_path, version)
    found = line_files(built.read_bytes())
    assert found == _dwarfdump(built)
    assert {"/rec/inc/deep/inl.h", "/rec/src/two.c", str(tmp_path / "src/three.s")} <= found
    assert line_files(built.read_bytes()[: -(1 << 10)]) <= found


@pytest.mark.parametrize(
    "option", ["x", "a=/tmp", "/a=", "/a=/none", "/a=git:/tmp", "/a=git:{r}@", "/a=git:{r}@--all", "/a=git:{r}@none"]
)
def test_an_operator_learns_at_once_what_is_wrong(served: Served, option: str) -> None:
    with pytest.raises(UsageError):
        SourceTree.parse(option.replace("{r}", str(served.repository)))


def test_without_the_option_no_source_is_served(served: Served, tmp_path: Path) -> None:
    with serve(served.library, tmp_path) as server:
        path = f"/buildid/{served.uuid.hex}/source{_RECORDED}/main.c"
        assert request(server.url, path).status == 404
