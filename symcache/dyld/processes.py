"""Batches of images over several processes.

The children are plain programs that read batches from standard input, a line each, and write results to standard
output. They import this room and what lies below it, whatever the program is, and need no guard in its main module.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from symcache.dyld.batch import Batch, Extracted, Failed, Outcome, extract_batch
from symcache.dyld.cache import SharedCache
from symcache.dyld.image_writer import Extractor
from symcache.errors import StorageError, SymcacheError
from symcache.own_program import own_environment, own_python

__all__ = ["main", "run_in_processes"]


def run_in_processes(cache: SharedCache, output: Path, batches: Sequence[Batch], workers: int) -> Iterator[Outcome]:
    """Extract the batches in `workers` processes, of which this one is one; yield what became of each, in any order.

    Raises StorageError when the output cannot be written or a child dies.
    """
    todo: queue.SimpleQueue[Batch] = queue.SimpleQueue()
    for batch in batches:
        todo.put(batch)
    done: queue.SimpleQueue[Outcome | StorageError] = queue.SimpleQueue()
    stop = threading.Event()
    threads = [
        threading.Thread(target=_drive, args=(cache, output, todo, done, stop), daemon=True) for _ in range(workers - 1)
    ]
    for thread in threads:
        thread.start()
    extractor = Extractor(cache)
    try:
        for _ in batches:
            try:
                response = done.get_nowait()
            except queue.Empty:
                try:
                    response = extract_batch(cache, extractor, output, todo.get_nowait())
                except queue.Empty:
                    response = done.get()
            if isinstance(response, StorageError):
                raise response
            yield response
    finally:
        stop.set()  # a child finishes the batch that it has: no half file is left behind
        for thread in threads:
            thread.join()


def _drive(
    cache: SharedCache,
    output: Path,
    todo: queue.SimpleQueue[Batch],
    done: queue.SimpleQueue[Outcome | StorageError],
    stop: threading.Event,
) -> None:
    """Start one child and feed it until there is nothing left to do."""
    partial = "partial" if any(not m.companion.optional for m in cache.missing) else "whole"
    command = own_python("-m", "symcache.dyld", str(cache.path), str(output), partial)
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii", env=own_environment()
        ) as child:
            assert child.stdin is not None and child.stdout is not None  # noqa: S101  # they are pipes
            while not stop.is_set():
                try:
                    batch = todo.get_nowait()
                except queue.Empty:
                    break
                child.stdin.write(json.dumps(batch) + "\n")
                child.stdin.flush()
                done.put(_parse_response(cache, child.stdout.readline()))
    except (OSError, ValueError) as error:
        done.put(
            StorageError(
                f"{cache.path}: a process that extracted it died ({error})",
                hint="the files must not change meanwhile, and memory must suffice; try --jobs 1",
            )
        )


def _parse_response(cache: SharedCache, line: str) -> Outcome | StorageError:
    """Parse a child's line. Raises ValueError for an empty one, which is what a dead child leaves."""
    response: dict[str, Any] = json.loads(line)
    if "refused" in response:
        return StorageError(response["refused"], hint=response["hint"])
    outcome: Outcome = []
    for row in response["images"]:
        image = cache.images[row["index"]]
        if "reason" in row:
            outcome.append((image.index, Failed(image.path, image.uuid, row["reason"])))
        else:
            uuid = UUID(row["uuid"]) if row["uuid"] else None
            file = Path(row["file"])
            extracted = Extracted(image.path, uuid, row["arch"], file, row["size"], row["unbacked"])
            outcome.append((image.index, extracted))
    return outcome


def _row(index: int, result: Extracted | Failed) -> dict[str, Any]:
    if isinstance(result, Failed):
        return {"index": index, "reason": result.reason}
    return {
        "index": index,
        "uuid": str(result.uuid) if result.uuid else None,
        "arch": result.arch,
        "file": str(result.file),
        "size": result.size,
        "unbacked": result.unbacked,
    }


def main(path: str, output: str, extent: str) -> None:
    """Serve batches until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this process in good order
    try:
        with SharedCache.open(Path(path), partial=extent == "partial") as cache:
            extractor = Extractor(cache)
            for line in sys.stdin:
                outcome = extract_batch(cache, extractor, Path(output), [(i, name) for i, name in json.loads(line)])
                _respond({"images": [_row(index, result) for index, result in outcome]})
    except (SymcacheError, OSError) as error:
        _respond({"refused": str(error), "hint": getattr(error, "hint", "")})


def _respond(response: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(response) + "\n")
    sys.stdout.flush()
