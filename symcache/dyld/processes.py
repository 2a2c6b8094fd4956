"""Batches of images over several processes.

The children are plain programs that read batches from standard input, a line each, and write what became of them to
standard output. They need no guard in the main module of the program that starts them.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import IO, Any

from symcache.dyld.batch import Batch, ImageWork, Row
from symcache.dyld.cache import SharedCache
from symcache.dyld.image_writer import Extractor
from symcache.errors import StorageError, SymcacheError
from symcache.own_program import own_environment, own_python

__all__ = ["input_has_ended", "run_in_processes", "serve_batches"]

_BATCH = 64
"""Images that a worker takes at a time: enough pages to decode side by side, few enough to share the work evenly."""
_MAX_WORKERS = 8
_POLL_SECONDS = 0.2


def run_in_processes(
    cache: SharedCache,
    work: ImageWork,
    images: Batch,
    jobs: int | None = None,
    *,
    busy: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[list[Row], None, None]:
    """Do the work of some images in batches over processes; yield what became of each batch, in any order.

    Without `jobs`, one process a core is used, but not more than 8. This process is one of them, unless it is `busy`
    with something else and there is more than one batch. Raises StorageError when what is made cannot be written, a
    child dies, or it is `stopped`, which is asked now and then.
    """
    # By address: neighbours share pages and the window of the file that is in memory.
    ordered = sorted(images, key=lambda one: cache.images[one[0]].address)
    batches = [ordered[n : n + _BATCH] for n in range(0, len(ordered), _BATCH)]
    workers = min(jobs or min(os.cpu_count() or 1, _MAX_WORKERS), len(batches))
    here = workers < 2 or not busy
    return _run(cache, work, batches, stopped, children=workers - here, here=here)


def _run(
    cache: SharedCache,
    work: ImageWork,
    batches: Sequence[Batch],
    stopped: Callable[[], bool],
    *,
    children: int,
    here: bool,
) -> Generator[list[Row], None, None]:
    todo: queue.SimpleQueue[Batch] = queue.SimpleQueue()
    for batch in batches:
        todo.put(batch)
    done: queue.SimpleQueue[list[Row] | StorageError] = queue.SimpleQueue()
    stop = _Stop()
    threads = [
        threading.Thread(target=_drive, args=(cache, work, todo, done, stop), daemon=True) for _ in range(children)
    ]
    for thread in threads:
        thread.start()
    try:
        extractor = Extractor(cache) if here else None
        for _ in batches:
            try:
                response = done.get_nowait()
            except queue.Empty:
                if extractor is None:
                    response = _next(done, stopped)
                else:
                    try:
                        response = work.run(cache, extractor, todo.get_nowait())
                    except queue.Empty:
                        response = _next(done, stopped)
            if isinstance(response, StorageError):
                raise response
            yield response
    finally:
        stop.set()  # a child finishes what it has begun: no half file is left behind
        for thread in threads:
            thread.join()


def _next(done: queue.SimpleQueue[list[Row] | StorageError], stopped: Callable[[], bool]) -> list[Row] | StorageError:
    while not stopped():
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=_POLL_SECONDS)
    return StorageError("making images was stopped", hint="run the same command again")


class _Stop(threading.Event):
    """Set when no more batches are wanted; children see it as the end of their input."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[IO[str]] = []

    def set(self) -> None:
        super().set()
        for one in self.inputs:
            with contextlib.suppress(OSError, ValueError):
                one.close()


def input_has_ended() -> bool:
    """Return whether no more batches will come, in a child that has one: its parent is gone, or has given up."""
    return bool(select.select([sys.stdin], [], [], 0)[0])  # the next batch comes only after the answer to this one


def _drive(
    cache: SharedCache,
    work: ImageWork,
    todo: queue.SimpleQueue[Batch],
    done: queue.SimpleQueue[list[Row] | StorageError],
    stop: _Stop,
) -> None:
    """Start one child and feed it until there is nothing left to do."""
    partial = "partial" if any(not m.companion.optional for m in cache.missing) else "whole"
    command = own_python(*work.command(), str(cache.path), partial)
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="ascii",
            env=own_environment(),
            process_group=0,  # a terminal interrupts this process alone, which ends its children in good order
        ) as child:
            assert child.stdin is not None and child.stdout is not None  # noqa: S101  # they are pipes
            stop.inputs.append(child.stdin)
            while not stop.is_set():
                try:
                    batch = todo.get_nowait()
                except queue.Empty:
                    break
                child.stdin.write(json.dumps(batch) + "\n")
                child.stdin.flush()
                if not (line := child.stdout.readline()):
                    code = child.wait()
                    raise ChildProcessError(signal.Signals(-code).name if code < 0 else f"exit status {code}")
                response: dict[str, Any] = json.loads(line)
                done.put(
                    StorageError(response["refused"], hint=response["hint"])
                    if "refused" in response
                    else response["images"]
                )
    except Exception as error:  # whatever it is: somebody waits for the batch
        done.put(
            StorageError(
                f"{cache.path}: a process that extracted it died ({error})",
                hint="the files must not change meanwhile, and memory must suffice; then run the same command again",
            )
        )


def serve_batches(work: ImageWork, path: str, extent: str) -> None:
    """Do the work of the batches that standard input brings, as a child of `run_in_processes`, until it ends."""
    try:
        with SharedCache.open(Path(path), partial=extent == "partial") as cache:
            extractor = Extractor(cache)
            for line in sys.stdin:
                batch = [(index, name) for index, name in json.loads(line)]
                _respond({"images": work.run(cache, extractor, batch)})
    except (SymcacheError, OSError) as error:
        _respond({"refused": str(error), "hint": getattr(error, "hint", "")})


def _respond(response: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(response) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the parent is gone: there is nobody to tell it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit from None
