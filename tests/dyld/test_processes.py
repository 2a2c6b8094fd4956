"""Batches of images over processes: what a child may do that it should not."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.dyld import Batch, Extractor, Row, SharedCache, run_in_processes
from symcache.errors import StorageError
from symcache.own_program import own_environment, own_python
from tests.dyld.tiny import Cache, Image


class Saying:
    """Work whose child says something else."""

    def __init__(self, program: str) -> None:
        self._program = program

    def command(self) -> Sequence[str]:
        return "-c", self._program

    def run(self, cache: SharedCache, extractor: Extractor, batch: Batch) -> list[Row]:
        return [{"index": index} for index, _ in batch]


def test_a_terminal_does_not_interrupt_children(tmp_path: Path) -> None:
    file = Cache([Image("/usr/lib/liba", UUID(int=1)), Image("/usr/lib/libb", UUID(int=2))] * 40).write(tmp_path)
    work = Saying(
        "import json, os, sys\nfor _ in sys.stdin: print(json.dumps({'images': [os.getpgid(0)]}), flush=True)"
    )
    with SharedCache.open(file) as cache:
        groups: list[Any] = [
            rows[0] for rows in run_in_processes(cache, work, [(n, "") for n in range(80)], 2, busy=True)
        ]
    assert groups
    assert os.getpgid(0) not in groups


def test_what_ended_a_child_is_told(tmp_path: Path) -> None:
    file = Cache([Image("/usr/lib/liba", UUID(int=1)), Image("/usr/lib/libb", UUID(int=2))] * 40).write(tmp_path)
    work = Saying("import os, signal; input(); os.kill(os.getpid(), signal.SIGKILL)")
    with SharedCache.open(file) as cache, pytest.raises(StorageError, match=r"died \(SIGKILL\)"):
        list(run_in_processes(cache, work, [(n, "") for n in range(80)], 2, busy=True))


@pytest.mark.parametrize("said", ["{}", "[]", "null", "7", '{"refused": "x"}', ""])
def test_a_child_that_says_something_else_ends_it(said: str, tmp_path: Path) -> None:
    file = Cache([Image(f"/usr/lib/lib{n}", UUID(int=n + 1)) for n in range(70)]).write(tmp_path)
    errors: list[StorageError] = []

    def run(cache: SharedCache) -> None:
        try:
            work = Saying(f"print({said!r}, flush=True); input()")
            for _ in run_in_processes(cache, work, [(n, "") for n in range(70)], 2, busy=True):
                pass
        except StorageError as error:
            errors.append(error)

    with SharedCache.open(file) as cache:
        thread = threading.Thread(target=run, args=(cache,), daemon=True)
        thread.start()
        thread.join(20)
        assert errors and not thread.is_alive()


def test_a_child_whose_parent_is_gone_ends_without_a_word(tmp_path: Path) -> None:
    file = Cache([Image("/usr/lib/liba", UUID(int=1))]).write(tmp_path)
    child = subprocess.Popen(
        own_python("-m", "symcache.dyld", str(tmp_path / "out"), str(file), "whole"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=own_environment(),
    )
    assert child.stdin and child.stdout and child.stderr
    child.stdout.close()
    child.stdin.write(b'[[0, "usr/lib/liba"]]\n')
    child.stdin.close()
    assert child.stderr.read() == b""
    assert child.wait() == 0


def test_a_batch_that_takes_long_can_be_stopped(tmp_path: Path) -> None:
    file = Cache([Image("/usr/lib/liba", UUID(int=1)), Image("/usr/lib/libb", UUID(int=2))] * 40).write(tmp_path)
    work, batch = Saying("import sys; sys.stdin.read()"), [(n, "") for n in range(80)]
    with SharedCache.open(file) as cache, pytest.raises(StorageError, match="stopped"):
        list(run_in_processes(cache, work, batch, 2, busy=True, stopped=lambda: True))


def test_children_are_told_when_no_more_is_wanted(tmp_path: Path) -> None:
    file = Cache([Image("/usr/lib/liba", UUID(int=1)), Image("/usr/lib/libb", UUID(int=2))] * 80).write(tmp_path)
    work = Saying("import sys; input(); print('{\"images\": []}', flush=True); sys.stdin.read()")
    with SharedCache.open(file) as cache:
        batches = run_in_processes(cache, work, [(n, "") for n in range(160)], 2, busy=True)
        assert next(batches) == []
        thread = threading.Thread(target=batches.close, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
