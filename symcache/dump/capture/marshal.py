"""How a crashing process requests its dump from a handler: two pipes and one Mach message.

::

    crashing process                            handler (its standard input and output)
    ── "SYMC", version, thread, texts ────────▶
    ◀──────────────── "SYMP", version, name ──   the bootstrap name of a port it listens on
    ── Mach message with the task port ───────▶
    ◀────────────── "SYMD", version, status ──   0: the dump is written; the process may go on or end

Numbers are little-endian. `symcache_marshal.h` is the crashing process's half for native code; a change of a message
raises the version, and either side ends the talk with one that it does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO, Protocol

from symcache.dump.capture.task import CrashReport, Task
from symcache.errors import DumpError

__all__ = ["WIRE_VERSION", "TaskReceiver", "marshal", "serve"]

WIRE_VERSION = 1
"""Of the messages between a crashing process and the handler."""
_HELLO, _PORT, _DONE = b"SYMC", b"SYMP", b"SYMD"
_HELLO_LAYOUT = struct.Struct("<4sHHQII")
"""magic, version, reserved, thread id, sizes of executable and bundle version (UTF-8)."""
_PORT_LAYOUT = struct.Struct("<4sHH")
"""magic, version, size of the name."""
_DONE_LAYOUT = struct.Struct("<4sHH")
"""magic, version, status: 0 written, 1 failed."""
_MAX_TEXT = 16 << 10
_MAX_NAME = 127
"""BOOTSTRAP_MAX_NAME_LEN without its NUL."""


class TaskReceiver(Protocol):
    """A Mach port with a name, on which one task port is waited for."""

    name: str

    def receive(self) -> Task:
        """Return the task whose port comes. Raises EnvironmentFailure after a time-out."""


def marshal(
    to_handler: BinaryIO, from_handler: BinaryIO, report: CrashReport, send_task: Callable[[str], None]
) -> None:
    """Do the crashing process's half, in Python; `send_task` sends its task port to the port of that name.

    Returns when the dump is written. Raises DumpError when the handler fails or talks another language.
    """
    executable, bundle = report.executable.encode(), report.bundle_version.encode()
    if max(len(executable), len(bundle)) > _MAX_TEXT:
        raise DumpError(f"{report.executable[:80]}…: names of more than {_MAX_TEXT} bytes are not sent")
    hello = _HELLO_LAYOUT.pack(_HELLO, WIRE_VERSION, 0, report.thread_id, len(executable), len(bundle))
    to_handler.write(hello + executable + bundle)
    to_handler.flush()
    magic, version, size = _PORT_LAYOUT.unpack(_exactly(from_handler, _PORT_LAYOUT.size))
    _check(magic, _PORT, version)
    if not 0 < size <= _MAX_NAME:
        raise DumpError(f"the handler names a port of {size} bytes")
    send_task(_exactly(from_handler, size).decode())
    magic, version, status = _DONE_LAYOUT.unpack(_exactly(from_handler, _DONE_LAYOUT.size))
    _check(magic, _DONE, version)
    if status:
        raise DumpError("the handler could not write the dump", hint="its standard error says why")


def serve(
    requests: BinaryIO,
    responses: BinaryIO,
    receiver: Callable[[], TaskReceiver],
    write: Callable[[Task, CrashReport], None],
) -> bool:
    """Do the handler's half for one crash; return False if the other side went away without a request.

    `receiver` opens a port, `write` writes the dump. Raises what they raise; if no port can be opened, the process
    learns that there will be no dump from the end of the pipe, later by a status. DumpError for a request that makes no
    sense.
    """
    first = requests.read(1)
    if not first:
        return False
    magic, version, _, thread, executable_size, bundle_size = _HELLO_LAYOUT.unpack(
        first + _exactly(requests, _HELLO_LAYOUT.size - 1)
    )
    _check(magic, _HELLO, version)
    if max(executable_size, bundle_size) > _MAX_TEXT:
        raise DumpError(
            f"a crash report with texts of {executable_size} and {bundle_size} bytes is not believed",
            hint="use symcache_marshal.h and symcache of one release",
        )
    executable = _exactly(requests, executable_size).decode("utf-8", "replace")
    report = CrashReport(thread, executable, _exactly(requests, bundle_size).decode("utf-8", "replace"))
    port = receiver()
    name = port.name.encode()
    responses.write(_PORT_LAYOUT.pack(_PORT, WIRE_VERSION, len(name)) + name)
    responses.flush()
    status = 1
    try:
        write(port.receive(), report)
        status = 0
    finally:
        responses.write(_DONE_LAYOUT.pack(_DONE, WIRE_VERSION, status))
        responses.flush()
    return True


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = source.read(size - len(data))
        if not piece:
            raise DumpError(
                f"the other side went away in the middle of a message, after {len(data)} of {size} bytes",
                hint="it ended before its dump could be written",
            )
        data += piece
    return data


def _check(magic: bytes, expected: bytes, version: int) -> None:
    if magic != expected:
        raise DumpError(
            f"a message begins with {magic!r} where {expected!r} was expected",
            hint="connect pipes to a program that calls symcache_marshal: `symcache dump --c-header`",
        )
    if version != WIRE_VERSION:
        raise DumpError(
            f"the other side speaks version {version}, this one {WIRE_VERSION}",
            hint="use symcache_marshal.h and symcache of one release",
        )
