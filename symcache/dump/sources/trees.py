"""Source files of own binaries, from a folder or a revision of a git repository, and nothing beside these.

A tree is written `PREFIX=FOLDER` or `PREFIX=git:REPOSITORY@REVISION`: what the compiler recorded as `PREFIX/x/y.c` is
`x/y.c` in there. In REVISION, `{uuid}` stands for the binary's UUID (32 lower-case hex digits), so that a build can
leave a ref for each of its binaries.
"""

from __future__ import annotations

import os
import posixpath
import stat
import subprocess
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from symcache.errors import EnvironmentFailure, NotFoundError, UsageError

__all__ = ["MAX_SOURCE", "SourceTree", "SourceTrees", "source_path"]

MAX_SOURCE = 16 << 20
"""Bytes of one file."""
_MAX_PATH = 4096
_GIT_SECONDS = 20
_GIT_AT_ONCE = threading.BoundedSemaphore(4)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def source_path(text: str) -> str:
    """Return an absolute path as debug info has it, without `.`, `..` and empty parts. Raises UsageError."""
    if not text.startswith("/") or len(text) > _MAX_PATH or not text.isprintable():
        raise UsageError(f"{text[:80]!r}: not the absolute path of a source file")
    # By its letters alone, as compilers mean `build/../main.c`: what leads out of every prefix is in none.
    return posixpath.normpath("/" + text.lstrip("/"))


@dataclass(frozen=True, slots=True)
class SourceTree:
    """One folder or revision; `repository` is empty for a folder."""

    prefix: str
    folder: str = ""
    repository: str = ""
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> SourceTree:
        """Read `PREFIX=FOLDER` or `PREFIX=git:REPOSITORY@REVISION`. Raises UsageError."""
        prefix, equals, place = text.partition("=")
        hint = "write PREFIX=FOLDER or PREFIX=git:REPOSITORY@REVISION, with the PREFIX that the compiler recorded"
        if not equals or not place or not prefix.startswith("/"):
            raise UsageError(f"{text!r}: names no sources", hint=hint)
        prefix = source_path(prefix)
        if not place.startswith("git:"):
            if not Path(place).is_dir():
                raise UsageError(f"{text!r}: {place} is no folder", hint=hint)
            return cls(prefix, folder=str(Path(place).absolute()))
        repository, at, revision = place.removeprefix("git:").rpartition("@")
        if not at or not repository or not revision or revision.startswith("-") or not revision.isprintable():
            raise UsageError(f"{text!r}: names no revision", hint=hint)
        tree = cls(prefix, repository=str(Path(repository).absolute()), revision=revision)
        _git(tree.repository, "rev-parse", "--git-dir", failure=UsageError(f"{repository}: no git repository"))
        if "{uuid}" not in revision:
            wrong = UsageError(f"{repository}: has no revision {revision!r}", hint="name a commit, tag or branch")
            _git(tree.repository, "rev-parse", "--verify", "--quiet", revision + "^{tree}", failure=wrong)
        return tree

    def inside(self, path: str) -> list[str] | None:
        """Return the parts of `path` (see `source_path`) below the prefix, or None if it does not lie there."""
        start = self.prefix.rstrip("/") + "/"
        return path.removeprefix(start).split("/") if path.startswith(start) else None

    def read(self, parts: Sequence[str], uuid: UUID) -> bytes | None:
        """Return a file's content, or None if there is none that may be read. Raises EnvironmentFailure, OSError."""
        # Repositories and build folders keep what is not for everybody in hidden files.
        if any(part.startswith(".") or "\0" in part for part in parts):
            return None
        return self._read_revision(parts, uuid) if self.repository else self._read_folder(parts)

    def _read_folder(self, parts: Sequence[str]) -> bytes | None:
        # From folder to folder, following no link: no other process can lead outside meanwhile.
        folder = os.open(self.folder, _FOLDER)
        try:
            for part in parts[:-1]:
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            # Not blocking: it may be a pipe.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(parts[-1], flags, dir_fd=folder)
        except OSError:
            return None
        finally:
            os.close(folder)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SOURCE:
            os.close(descriptor)
            return None
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_SOURCE + 1)
        return data if len(data) <= MAX_SOURCE else None

    def _read_revision(self, parts: Sequence[str], uuid: UUID) -> bytes | None:
        revision = self.revision.replace("{uuid}", uuid.hex)
        listed = _git(self.repository, "ls-tree", "-z", "-l", "--full-tree", revision, "--", "/".join(parts))
        fields, tab, name = (listed or b"").partition(b"\t")
        if not tab or name != "/".join(parts).encode() + b"\0":
            return None
        mode, kind, identity, size = fields.split()
        if kind != b"blob" or not mode.startswith(b"100") or int(size) > MAX_SOURCE:  # 120000 is a link
            return None
        data = _git(self.repository, "cat-file", "blob", identity.decode())
        return data if data is not None and len(data) == int(size) else None


class SourceTrees:
    """Several trees; of those that hold a path, the one with the longest prefix comes first."""

    def __init__(self, trees: Iterable[SourceTree]) -> None:
        self._trees = sorted(trees, key=lambda tree: -len(tree.prefix))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._trees)

    def read(self, path: str, uuid: UUID) -> bytes:
        """Return the content of a source file of the binary `uuid`.

        Raises NotFoundError, UsageError (no absolute path), EnvironmentFailure, OSError.
        """
        path = source_path(path)
        for tree in self._trees:
            if (parts := tree.inside(path)) and (data := tree.read(parts, uuid)) is not None:
                return data
        raise NotFoundError(f"{path[:200]!r}: no source file that is served here")


def _git(repository: str, *arguments: str, failure: Exception | None = None) -> bytes | None:
    """Return what git prints; where it fails, raise `failure`, or return None if there is no such."""
    keep = {name: os.environ[name] for name in ("HOME", "PATH", "XDG_CONFIG_HOME") if name in os.environ}
    quiet = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"}
    command = ["git", "-C", repository, "--literal-pathspecs", "--no-replace-objects", *arguments]
    try:
        with _GIT_AT_ONCE:
            done = subprocess.run(
                command,
                env=keep | quiet,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_GIT_SECONDS,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it takes too long"
        raise EnvironmentFailure(f"{repository}: git cannot be asked: {reason}", hint="is git installed?") from error
    if done.returncode == 0:
        return done.stdout
    if failure is not None:
        raise failure
    return None
