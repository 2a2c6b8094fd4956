"""The files that `symcache setup lldb` gives LLDB: the script of `symcache load`, what it is to do, and tokens apart.

A folder of its own for each init file. What may hold a token is for the user alone (0600); LLDB's init file holds none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from symcache.client import split_tokens
from symcache.dump import LLDB_SCRIPT
from symcache.errors import StorageError
from symcache.files import atomic_write
from symcache.own_program import own_environment, own_python

__all__ = ["PROGRAM", "LldbFiles", "folder_for"]

PROGRAM = "symcache-dsymforuuid"
_PRIVATE = 0o600
_URLS = "plugin.symbol-locator.debuginfod.server-urls"


def folder_for(init_file: Path) -> Path:
    """Return the folder of the files that belong to an init file of LLDB."""
    name = hashlib.sha256(os.fsencode(init_file.absolute())).hexdigest()[:16]
    return platformdirs.user_data_path("symcache") / "lldb" / name


@dataclass(frozen=True)
class LldbFiles:
    """What is to lie in the folder."""

    folder: Path
    contents: dict[str, tuple[int, str]]
    """By file name: mode and text."""
    hook: Path | None
    """What a Mac is to run for dsymForUUID."""
    notes: tuple[str, ...]
    """What the user is to know."""

    @classmethod
    def plan(cls, folder: Path, servers: Sequence[str], pin: str, options: Sequence[str]) -> LldbFiles:
        """Decide what to write. `pin` is a path behind the servers' URLs, `options` the same for dsymForUUID.

        They are for what LLDB asks by itself: with `symcache load` the dump tells what it is of.

        LLDB sends its one file of headers to whatever server it asks: a token keeps it from asking any other server
        than those that the token is for.
        """
        plain, tokens = split_tokens(servers)
        token = next(iter(tokens.values()), None)
        asked = [url for url in plain if tokens.get(url) == token] if token else plain
        others = [url for url in plain if url not in asked]
        notes = []
        if others:
            notes.append(
                f"LLDB itself asks only {', '.join(asked)}: it would send its token to {', '.join(others)}, too"
            )
        settings = {
            "program": own_python("-m", "symcache"),
            "environment": own_environment({}),
            "commands": list(_commands([url + pin for url in asked], exclusive=token is not None)),
            "headers": str(folder / "headers") if token else "",
        }
        contents = {
            LLDB_SCRIPT.name: (0o644, LLDB_SCRIPT.read_text(encoding="utf-8")),
            "settings.json": (0o644, json.dumps(settings, indent=2) + "\n"),
            "servers": (_PRIVATE, " ".join(servers) + "\n"),
        }
        if token:
            contents["headers"] = (_PRIVATE, f"Authorization: Bearer {token}\n")
        found = shutil.which(PROGRAM) if sys.platform == "darwin" else None
        if found:
            contents[PROGRAM] = (0o755, _hook(Path(found).absolute(), folder, options))
        return cls(folder, contents, folder / PROGRAM if found else None, tuple(notes))

    def init_lines(self) -> list[str]:
        """Return the lines for LLDB's init file."""
        return [f'command script import "{self.folder / LLDB_SCRIPT.name}"']

    def summary(self) -> Iterator[str]:
        """Yield what is told of the files: no token."""
        yield f"{self.folder}:"
        for name, (mode, text) in self.contents.items():
            secret = mode == _PRIVATE
            yield f"  {name} (mode {mode:o}{', for you alone' if secret else ''})"
            if name == "settings.json":
                yield from (f"    {line}" for line in json.loads(text)["commands"])

    def write(self) -> None:
        """Write the files, and nothing else stays there. Raises StorageError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name, (mode, text) in self.contents.items():
                with atomic_write(self.folder / name, mode=mode) as part:
                    part.write_text(text, encoding="utf-8")
            for old in self.folder.iterdir():
                if old.name not in self.contents and old.is_file():
                    old.unlink()
        except OSError as error:
            raise StorageError(
                f"{self.folder}: {error.strerror or error}", hint="check who may write there, and the free space"
            ) from error


def _commands(urls: Sequence[str], *, exclusive: bool) -> Iterator[str]:
    """Yield LLDB's commands that make it ask servers. `exclusive`: no others."""
    if not urls:
        return
    yield "settings set symbols.enable-external-lookup true"
    if exclusive:
        yield f"settings set {_URLS} " + " ".join(f'"{url}"' for url in urls)
    else:
        # Before those that LLDB came with, which would otherwise be asked first for every system library.
        yield from (f'settings insert-before {_URLS} 0 "{url}"' for url in reversed(urls))
    # LLDB keeps what it fetched by the path of the URL without the pin: each pin needs a folder of its own.
    name = hashlib.sha256(" ".join(urls).encode()).hexdigest()[:16]
    cache = platformdirs.user_cache_path("symcache") / "lldb" / name
    yield f'settings set plugin.symbol-locator.debuginfod.cache-path "{cache}"'


def _hook(program: Path, folder: Path, options: Sequence[str]) -> str:
    """Return a program that runs ours with the servers and pins that were named; LLDB gives it the UUID alone."""
    servers, command = shlex.quote(str(folder / "servers")), shlex.join([str(program), *options])
    # LLDB's Python may have been given a home of its own, which is not our program's.
    return (
        "#!/bin/sh\n"
        "unset PYTHONHOME PYTHONPATH\n"
        f'if [ -z "${{SYMCACHE_URL:-}}" ]; then SYMCACHE_URL=$(cat {servers}); export SYMCACHE_URL; fi\n'
        f'exec {command} "$@"\n'
    )
