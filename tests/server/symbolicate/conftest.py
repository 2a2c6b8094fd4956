"""Two servers for all tests of this folder: one of own binaries, and one that strangers could reach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from symcache.library import Library, ingest, stage_paths
from symcache_server.http.auth import Scope, TokenStore
from tests.support.servers import Samples, Server, homes, serve
from tests.support.toolchain import compile_image, dsym, need_toolchain

PAGE = "https://profiler.firefox.com"
_HEADER = """static inline __attribute__((always_inline)) int twice(int *x) {
  *x ^= 77;
  return *x * 2;
}
int of_header(int x) { return x * 5; }
"""
_SOURCE = """#include "own.h"
static inline __attribute__((always_inline)) int
inner(int *x) {
  *x += 3;
  return twice(x);
}
int outer(int *x) {
  return inner(x) + 1; // é
}
__attribute__((visibility("hidden"))) int nameless(int *x) { *x = 5; return *x * 9; }
int last(int *x) { return nameless(x) + *x; }
"""


@dataclass
class Own:
    """A server with a binary that has inlined calls, whose dSYM and sources are there, and one that was stripped."""

    server: Server
    image: Path
    inner: Path
    """Its dSYM's inner file."""
    stripped: Path
    sources: Path


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    need_toolchain()
    folder = tmp_path_factory.mktemp("own")
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "own.h").write_text(_HEADER)
    image = compile_image(folder / "a", "libown.dylib", _SOURCE)
    bundle = dsym(image)
    stripped = compile_image(folder / "b", "libstripped.dylib", _SOURCE + "int other(void) { return 4; }\n")
    subprocess.run(["llvm-strip-19", "-x", stripped], check=True)
    with Library.open(folder / "library", create=True) as library:
        ingest(library, stage_paths([image, bundle, stripped], folder / "scratch"))
    inner = next((bundle / "Contents/Resources/DWARF").iterdir())
    sources = folder / "a"
    with serve(folder / "library", folder / "server", "--sources", f"{sources}={sources}") as server:
        yield Own(server, image, inner, stripped, sources)


@dataclass
class Closed:
    """A server that needs tokens, and lets one page in."""

    server: Server
    prefix: str
    """Of paths, with a token in it."""
    reader: str
    """A token that may read."""
    access_log: Path


@pytest.fixture(scope="session")
def closed(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    folder = tmp_path_factory.mktemp("closed")
    command = [sys.executable, "-m", "symcache", "token", "create", "profiler", "--names"]
    env = os.environ | homes(folder)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    reader = TokenStore(folder / "state/symcache/tokens.json").create("reader", [Scope.READ])
    sources = f"{samples.folder / 'own'}={samples.folder / 'own'}"
    options = ("--require-token", "--allow-origin", PAGE, "--access-log", str(folder / "access"), "--sources", sources)
    with serve(samples.library, folder, *options) as server:
        yield Closed(server, done.stdout.strip(), reader, folder / "access")
