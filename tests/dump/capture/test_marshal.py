"""The talk between a crashing process and the handler: Python with Python, C with Python, and with nonsense."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import threading
from pathlib import Path

import pytest

import symcache.dump.capture
from symcache.dump.capture import CrashReport, Task, marshal, serve
from symcache.errors import DumpError, StorageError

HEADER = Path(symcache.dump.capture.__file__).with_name("symcache_marshal.h")
REPORT = CrashReport(4711, "/Applications/Ä.app/Contents/MacOS/Ä", "1.2")


class Receiver:
    """In place of a Mach port: the 'task' is the name that was sent."""

    name = "symcache.dump.1.abc"

    def __init__(self) -> None:
        self.came = threading.Event()

    def receive(self) -> Task:
        assert self.came.wait(10)
        return object()  # type: ignore[return-value]


def _pipes() -> tuple[io.BufferedReader, io.BufferedWriter, io.BufferedReader, io.BufferedWriter]:
    request_read, request_write = os.pipe()
    answer_read, answer_write = os.pipe()
    return (
        os.fdopen(request_read, "rb"),
        os.fdopen(request_write, "wb"),
        os.fdopen(answer_read, "rb"),
        os.fdopen(answer_write, "wb"),
    )


def test_a_crash_is_reported_and_answered() -> None:
    requests, to_handler, from_handler, answers = _pipes()
    receiver, seen, sent = Receiver(), [], []

    def send(name: str) -> None:
        sent.append(name)
        receiver.came.set()

    client = threading.Thread(target=marshal, args=(to_handler, from_handler, REPORT, send))
    client.start()
    assert serve(requests, answers, lambda: receiver, lambda _task, report: seen.append(report))
    client.join(10)
    assert not client.is_alive()
    assert seen == [REPORT]
    assert sent == [receiver.name]


def test_a_dump_that_fails_is_told_to_the_process() -> None:
    requests, to_handler, from_handler, answers = _pipes()
    receiver = Receiver()
    receiver.came.set()
    failures: list[DumpError] = []

    def crash() -> None:
        try:
            marshal(to_handler, from_handler, REPORT, lambda _name: None)
        except DumpError as error:
            failures.append(error)

    client = threading.Thread(target=crash)
    client.start()

    def full(_task: Task, _report: CrashReport) -> None:
        raise StorageError("disk full")

    with pytest.raises(StorageError):
        serve(requests, answers, lambda: receiver, full)
    client.join(10)
    assert "could not write" in str(failures[0])


def test_a_process_that_ends_without_crashing_asks_for_nothing() -> None:
    assert not serve(io.BytesIO(), io.BytesIO(), Receiver, lambda _task, _report: None)


HELLO = struct.Struct("<4sHHQII")


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (HELLO.pack(b"XXXX", 1, 0, 1, 0, 0), "XXXX"),
        (HELLO.pack(b"SYMC", 2, 0, 1, 0, 0), "version 2"),
        (HELLO.pack(b"SYMC", 1, 0, 1, 1 << 31, 0), "not believed"),
        (HELLO.pack(b"SYMC", 1, 0, 1, 10, 0) + b"short", "went away"),
        (b"SYM", "went away"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_: bytes, complaint: str) -> None:
    with pytest.raises(DumpError, match=complaint) as error:
        serve(io.BytesIO(request_), io.BytesIO(), Receiver, lambda _task, _report: None)
    assert error.value.hint  # the next step


C_CLIENT = r"""
#include "symcache_marshal.h"
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    char name[SYMCACHE_MAX_NAME + 1];
    int to_handler = atoi(argv[1]), from_handler = atoi(argv[2]);
    int status = symcache_request(to_handler, from_handler, 4711, argv[3], argv[4], name);
    if (argc != 5 || status != SYMCACHE_OK) return 10 + status;
    fputs(name, stdout);
    return symcache_wait(from_handler);
}
"""


def test_native_code_speaks_the_same_language(tmp_path: Path) -> None:
    compiler = shutil.which("clang-19") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed (apt-get install clang-19)")
    (tmp_path / "client.c").write_text(C_CLIENT)
    program = tmp_path / "client"
    flags = ("-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror")
    subprocess.run(
        [compiler, *flags, "-I", str(HEADER.parent), str(tmp_path / "client.c"), "-o", str(program)],
        check=True,
        capture_output=True,
    )
    requests, to_handler, from_handler, answers = _pipes()
    receiver, seen = Receiver(), []
    receiver.came.set()

    ends = (to_handler.fileno(), from_handler.fileno())
    process = subprocess.Popen(
        [str(program), *map(str, ends), REPORT.executable, REPORT.bundle_version], stdout=subprocess.PIPE, pass_fds=ends
    )
    to_handler.close()
    from_handler.close()
    assert serve(requests, answers, lambda: receiver, lambda _task, report: seen.append(report))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output.decode() == receiver.name
    assert seen == [REPORT]
