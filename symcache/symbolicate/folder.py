"""Artifacts of names in a bounded folder, made when they are first wanted, in a process of its own."""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from symcache.confined import Bounds, Cause, ConfinedProcess, ProcessFailure
from symcache.errors import IntegrityError, StorageError, SymcacheError
from symcache.files import atomic_write, atomic_write_bytes
from symcache.lru_folder import LruFolder, touch
from symcache.own_program import own_environment, own_python
from symcache.scratch import ScratchFolder
from symcache.symbolicate.artifact import FORMAT, FRAME, Artifact
from symcache.symbolicate.image_names import ImageNames

__all__ = ["Content", "NamesFolder"]

DEFAULT_LIMIT = 4 << 30
"""Bytes."""
_BOUNDS = Bounds(seconds=180, memory=4 << 30, output=1 << 30)
_FAILURE_SECONDS = 3600.0
_MOST_OPEN = 256
_SMALL = 32 << 20
"""Bytes of a file that is read together with others."""
_LEAST_TOGETHER, _MOST_TOGETHER = 3, 64
_OF_OTHERS = {Cause.UNCONFINED}


@dataclass(frozen=True)
class Content:
    """One thin or universal image, or the inner file of a dSYM."""

    sha256: str
    """In hexadecimal."""
    open: Callable[[], int]
    """Returns an open descriptor, which the caller closes."""


class NamesFolder:
    """At most `limit` bytes of artifacts, keyed by content, UUID and builder; several processes may share it.

    It can be deleted at any time. Raises StorageError and OSError where it cannot be written.
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        from importlib.metadata import version  # noqa: PLC0415 (takes its time to import)

        self._folder, self._files = folder, LruFolder(folder, limit)
        self._builder = f"{FORMAT}-{version('symbolic')}"
        self._lock = threading.Lock()
        self._opened: OrderedDict[Path, Artifact] = OrderedDict()
        self._children: set[ConfinedProcess] = set()
        self._stopped = False

    def stop(self) -> None:
        """Build nothing more, and end running builds: callers that wait for one get StorageError."""
        self._stopped = True
        for child in list(self._children):
            child.kill()

    def open(self, uuid: UUID, contents: Sequence[Content]) -> ImageNames:
        """Return the names of a UUID: of its dSYM, if there is one, then of its binary, as `contents` has them.

        Raises IntegrityError when nothing of it can be read; that is remembered for an hour.
        """
        artifacts: list[Artifact] = []
        errors: list[IntegrityError] = []
        for content in contents:
            try:
                artifacts.append(self._artifact(uuid, content))
            except IntegrityError as error:
                errors.append(error)
        if not artifacts:
            raise errors[0] if errors else IntegrityError(f"{uuid}: no file names its code")
        return ImageNames(artifacts)

    def build_small(self, wanted: Sequence[tuple[UUID, Content]]) -> None:
        """Build what is not there yet of many images, in few processes: most are small, and a start costs more.

        What cannot be read, or not in such company, is left for `open`, which says why.
        """
        missing = [one for one in dict.fromkeys(wanted) if not self.is_built(one[0], [one[1]])]
        if len(missing) < _LEAST_TOGETHER:
            return
        groups = max(min(os.cpu_count() or 1, len(missing) // _LEAST_TOGETHER), -(-len(missing) // _MOST_TOGETHER))
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="names") as pool:
            list(pool.map(self._build_together, [missing[n::groups] for n in range(groups)]))

    def _build_together(self, wanted: Sequence[tuple[UUID, Content]]) -> None:
        with ScratchFolder("names") as work, ExitStack() as stack:
            arguments: list[str] = []
            descriptors: list[int] = []
            small: list[tuple[UUID, Content]] = []
            for uuid, content in wanted:
                try:
                    descriptor = content.open()
                except (SymcacheError, OSError):
                    continue
                stack.callback(os.close, descriptor)
                if os.fstat(descriptor).st_size <= _SMALL:
                    small.append((uuid, content))
                    descriptors.append(descriptor)
                    arguments += [str(uuid), f"/dev/fd/{descriptor}"]
            if len(small) < _LEAST_TOGETHER:
                return
            with Path(work, "artifacts").open("w+b") as made:
                with suppress(ProcessFailure), self._child(arguments, descriptors, Path(work)) as process:
                    process.copy("reading symbols", made)
                size = made.tell()
                made.seek(0)
                while len(head := made.read(FRAME.size)) == FRAME.size:
                    number, length = FRAME.unpack(head)
                    if number >= len(small) or made.tell() + length > size:
                        break
                    self._publish(self._path(*small[number]), made.read(length))

    def _publish(self, path: Path, artifact: bytes) -> None:
        def write() -> None:
            if not path.exists():
                atomic_write_bytes(path, artifact)

        self._files.write(path, len(artifact), write)

    @contextmanager
    def _child(self, arguments: Sequence[str], descriptors: Sequence[int], work: Path) -> Iterator[ConfinedProcess]:
        process = ConfinedProcess(
            own_python,
            "-m",
            ["symcache.symbolicate.builder", *arguments],
            _BOUNDS,
            environment=own_environment({"PATH": "/usr/bin:/bin"}),
            folder=work,
            descriptors=descriptors,
        )
        self._children.add(process)
        try:
            with process:
                if self._stopped:
                    process.kill()
                yield process
        finally:
            self._children.discard(process)

    def is_built(self, uuid: UUID, contents: Sequence[Content]) -> bool:
        """Return whether `open` has nothing to build: it succeeds, or fails, at once."""
        return all(
            (path := self._path(uuid, c)) in self._opened or path.exists() or self._failure(path) for c in contents
        )

    def _path(self, uuid: UUID, content: Content) -> Path:
        return self._folder / content.sha256[:2] / f"{content.sha256[2:]}-{uuid.hex}-{self._builder}"

    def _artifact(self, uuid: UUID, content: Content) -> Artifact:
        path = self._path(uuid, content)
        with self._lock:
            if artifact := self._opened.get(path):
                self._opened.move_to_end(path)
                return artifact
        artifact = _mapped(path)
        if artifact is None:
            if failure := self._failure(path):
                raise IntegrityError(failure)
            self._files.write(path, 1 << 20, lambda: self._build(path, uuid, content))
            artifact = _mapped(path)
            if artifact is None:
                raise IntegrityError(self._failure(path) or f"{uuid}: its names cannot be read")
        with self._lock:
            self._opened[path] = artifact
            while len(self._opened) > _MOST_OPEN:
                self._opened.popitem(last=False)
        return artifact

    def _build(self, path: Path, uuid: UUID, content: Content) -> None:
        """Write the artifact, or why there is none, unless another thread or process has."""
        if path.exists() or self._failure(path):
            return
        try:
            descriptor = content.open()
        except OSError as error:  # as an OSError, it would be taken for one of our own folder
            message = f"{uuid}: its file cannot be opened: {error.strerror or error}"
            raise IntegrityError(message, hint="run again once it can be read") from error
        try:
            with ScratchFolder("names") as work, atomic_write(path, mode=0o600) as part:
                child = self._child([str(uuid), f"/dev/fd/{descriptor}"], [descriptor], Path(work))
                with child as process, part.open("wb") as out:
                    process.copy(f"{uuid}: reading its symbols", out)
        except ProcessFailure as error:
            if error.cause in _OF_OTHERS or self._stopped:
                raise StorageError(str(error), hint="ask again") from error
            atomic_write_bytes(_failed(path), json.dumps(str(error)).encode())
        finally:
            os.close(descriptor)

    def _failure(self, path: Path) -> str:
        """Return why the artifact could not be made within the last hour; empty if it can be tried."""
        with suppress(OSError, ValueError):
            failed = _failed(path)
            if 0 <= time.time() - failed.stat().st_mtime < _FAILURE_SECONDS:
                return str(json.loads(failed.read_bytes()))
        return ""


def _failed(path: Path) -> Path:
    return path.with_name(f"{path.name}.failed")


def _mapped(path: Path) -> Artifact | None:
    """Return an artifact; None where there is none, or one that cannot be read, which is removed."""
    try:
        with path.open("rb") as file:
            touch(path, os.fstat(file.fileno()))
            return Artifact(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        return None
    except (IntegrityError, ValueError):
        path.unlink(missing_ok=True)
        return None
