"""Lines of crash reports that are text: frames, images, fields, reasons of an end, each by its own reader."""

from __future__ import annotations

from symcache.reports.fields import Fields, field_of, split_label
from symcache.reports.frames import frame_of
from symcache.reports.images import image_of
from symcache.reports.termination import parse_termination

__all__ = ["SEEDS", "one_input"]


def SEEDS() -> list[bytes]:
    """Return lines of each kind."""
    lines = [
        "0   Ledger Helper 0x1 (GPU)       \t0x00000001043 -[Book open:] + 44 [inlined] (Book.m:12)",
        "12  ???                           \t000000000000000000 0 + 0",
        "3   Ledger  0x10432 0x1044f4000 + 0xda2c // main + 0x8",
        "0x7ff80f1d5000 - 0x7ff80f26dfff +com.example (2.4.1 - 241) <23516be4-29be-350c-91c9-f36e7999f0f1> /x/y z",
        "0x100d1c000 - ??? Ledger arm64  <51614a37062f4a2ea83e1a0092554cb6> /x/Ledger {a}",
        "Termination Reason:  Namespace DYLD, Code 1, Library missing",
        "Exception Codes:       KERN_INVALID_ADDRESS at 0x10 -> 0x20 (possible pointer authentication failure)",
        "Exception Type:  EXC_CRASH (SIGKILL (Code Signature Invalid))",
        "Triggered by Thread: 1  Ledger Import, Dispatch Queue: com.example.q",
        "Namespace <0xF>, Code 0x8badf00d",
        "DYLD, [0x4] Symbol missing",
    ]
    return [line.encode() for line in lines] + ["\n".join(lines).encode()]


def one_input(data: bytes) -> None:
    """Read every line of `data` as each kind of line."""
    fields = Fields()
    for line in data.decode("utf-8", "replace").splitlines():
        if (frame := frame_of(line)) and not (0 <= frame.address < 1 << 64 and len(frame.function) <= 8192):
            raise AssertionError("a frame without bounds")
        if (image := image_of(line)) and not (
            image.address is not None and 0 <= image.address < 1 << 64 and (image.path or image.uuid)
        ):
            raise AssertionError("an image without bounds, or a name")
        if known := field_of(line):
            fields.add(*known)
        else:
            fields.continues(line)
        if "\n" in "".join(split_label(line)):
            raise AssertionError("a label of several lines")
        ended = parse_termination(line, (), "")
        if ended.code is not None and not 0 <= ended.code < 10**20:
            raise AssertionError("a code without bounds")
        list(ended.words())
    if any(not isinstance(said, str) for said in fields.cause()):
        raise AssertionError("a cause that is no text")
    fields.exception()
    fields.system()
    fields.version()
    fields.arch("", [])
