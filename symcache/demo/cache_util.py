"""A stand-in for Apple's `dyld_shared_cache_util`, for machines that are no Macs.

It offers `-list` (with `-uuid`, `-vmaddr`), `-text_info`, `-info` and `-extract`, prints what the original prints
(dyld's other-tools/dyld_shared_cache_util.cpp, dyld-1378), complains in its words and is as blind as it is: an image
table is believed wherever it stands, a `.symbols` companion may be missing, and a sub-cache given as the main file ends
in success with nothing extracted. Images are really extracted, by symcache's own extractor.

    python -m symcache.demo.cache_util -list -uuid dyld_shared_cache_arm64e
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from symcache.demo.cache_files import CacheFile, ToolError, check_signature, open_cache
from symcache.demo.cache_info import info_lines
from symcache.dyld import SharedCache, extract_all, is_cache_name
from symcache.errors import SymcacheError
from symcache.model import uuid_text

__all__ = ["run"]

Place = Callable[[str], Path]
"""Where the files of a path on the command line lie."""

_USAGE = """\
Usage: dyld_shared_cache_util <command> [-fs-root] [-inode] [-versions] [-vmaddr] [shared-cache-file]
    Commands:
        -list [-uuid] [-vmaddr]                  list images
        -info                                    print the identity and layout of the cache
        -text_info                               print the extent of every image's code
        -extract <directory>                     extract the images of the cache into a directory
"""
_COMMANDS = ("-list", "-info", "-text_info", "-extract")
_MODIFIERS = {"-uuid": "-list", "-vmaddr": "-list", "-versions": "-dependents"}
_ONE_COMMAND = (
    "Error: select one of: -list, -dependents, -info, -slide_info, -verbose_slide_info, -linkedit, -map, -extract,"
    " or -size"
)
_NO_UUID = "00000000-0000-0000-0000-000000000000"


@dataclass
class _Arguments:
    command: str
    directory: str
    modifiers: set[str]
    cache: str | None


class _WrongUse(Exception):
    """The command line makes no sense: said with the usage text."""


def run(argv: Sequence[str], stdout: TextIO, stderr: TextIO, place: Place = Path) -> int:
    """Do what the tool does with these arguments (without its own name), and return its exit status."""
    try:
        arguments = _parse(argv)
    except _WrongUse as error:
        stderr.write(f"{error}\n{_USAGE}")
        return 1
    for modifier in sorted(arguments.modifiers):
        if modifier in _MODIFIERS and _MODIFIERS[modifier] != arguments.command:
            stderr.write(f"Warning: {modifier} option ignored outside of {_MODIFIERS[modifier]} mode\n")
    if arguments.cache is None:
        stderr.write("Could not get in-memory shared cache\n")
        return 1
    try:
        if arguments.command == "-extract":
            return _extract(arguments, stderr, place)
        files = open_cache(arguments.cache, place)
        lines = {"-list": _list, "-info": _info, "-text_info": _text_info}[arguments.command](arguments, files, place)
        stdout.write("".join(f"{line}\n" for line in lines))
    except ToolError as error:
        stderr.write(f"Error: {error}\n")
        return error.status
    return 0


def _parse(argv: Sequence[str]) -> _Arguments:
    command, directory, cache = "", "", None
    modifiers: set[str] = set()
    rest = iter(argv)
    for word in rest:
        if word in _COMMANDS:
            if command:
                raise _WrongUse(_ONE_COMMAND)
            command = word
            if word == "-extract":
                directory = next(rest, "")
                if not directory:
                    raise _WrongUse("Error: option -extract requires a directory argument")
        elif word in {"-uuid", "-vmaddr", "-inode", "-versions", "-fs-root"}:
            modifiers.add(word)
        elif word.startswith("-"):
            raise _WrongUse(f"Error: unrecognized option {word}")
        else:
            cache = word
    if not command:
        raise _WrongUse("Error: no command selected")
    return _Arguments(command, directory, modifiers, cache)


def _list(arguments: _Arguments, files: list[CacheFile], place: Place) -> Iterator[str]:
    if "-inode" in arguments.modifiers:
        raise ToolError("'-inode' option only valid on simulator shared caches")
    images = files[0].images()
    by_address = {i.address: i for i in images}
    rows = [(i, i.path) for i in images]
    for path, address in _aliases(arguments.cache or "", place):
        if address in by_address:
            rows.append((by_address[address], path))
    for image, path in rows:
        start = f"0x{image.address:08X} " if "-vmaddr" in arguments.modifiers else ""
        uuid = f"<{uuid_text(image.uuid) if image.uuid else _NO_UUID}> " if "-uuid" in arguments.modifiers else ""
        yield f"{start}{uuid}{path}"


def _aliases(cache: str, place: Place) -> list[tuple[str, int]]:
    """Return the other paths of images, with their addresses; none where the trie that names them cannot be read."""
    try:
        with SharedCache.open(place(cache)) as opened:
            return [(path, opened.images[index].address) for path, index in opened.aliases.items()]
    except SymcacheError:
        return []


def _text_info(arguments: _Arguments, files: list[CacheFile], place: Place) -> Iterator[str]:
    del arguments, place
    images = files[0].images()
    yield f"dylib text infos (count={len(images)}):"
    for image in images:
        uuid = uuid_text(image.uuid) if image.uuid else _NO_UUID
        yield f"   0x{image.address:09X} -> 0x{image.address + image.text_size:09X}  <{uuid}>  {image.path}"


def _info(arguments: _Arguments, files: list[CacheFile], place: Place) -> Iterator[str]:
    del arguments, place
    return info_lines(files)


def _extract(arguments: _Arguments, stderr: TextIO, place: Place) -> int:
    cache = arguments.cache or ""
    files = open_cache(cache, place)
    for file in files:
        if complaint := check_signature(file):
            stderr.write(f"Error: {complaint}\nError: shared cache failed validity check for file at {file.path}\n")
            return 255
    path = place(cache)
    if not is_cache_name(path.name):
        return 0  # a sub-cache as main: its images lie elsewhere, and nobody says so
    try:
        with SharedCache.open(path) as opened:
            if opened.main.header.symbol_file_uuid and opened.symbols is None:
                stderr.write(f"Error: stat failed for dyld shared cache at {cache}.symbols\n")
            report = extract_all(opened, place(arguments.directory), jobs=1)
    except SymcacheError as error:
        stderr.write(f"Error: {error}\n")
        return 255
    for failed in report.failed:
        stderr.write(f"Error: {failed.path}: {failed.reason}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], sys.stdout, sys.stderr))
