"""Crash reports as people have them: Apple's forms of headings, frames and images, and what copying makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from symcache.dump import parse_report

HEAD = """\
Process:               Ledger [712]
Path:                  /Applications/Ledger.app/Contents/MacOS/Ledger
Version:               2.4.1 (241)
Code Type:             X86-64 (Native)
OS Version:            Mac OS X 10.15.7 (19H15)

"""
FIELDS = """\
Crashed Thread:        0  Dispatch queue: com.apple.main-thread

Exception Type:        EXC_BAD_ACCESS (SIGSEGV)
Exception Codes:       KERN_INVALID_ADDRESS at 0x0000000000000010

"""
LEDGER = "       0x10a3f2000 -        0x10a44efff +com.example.ledger (2.4.1 - 241) <E68DE610-908A-4061-9F1D-429BDE8842D7> /Applications/Ledger.app/Contents/MacOS/Ledger\n"  # noqa: E501
KERNEL = "    0x7fff602b4000 -     0x7fff602dfff6  libsystem_kernel.dylib (6153.141.1) <DE086F8F-E459-4BE4-9D39-885C1D67E898> /usr/lib/system/libsystem_kernel.dylib\n"  # noqa: E501
IMAGES = f"Binary Images:\n{LEDGER}{KERNEL}\nExternal Modification Summary:\n"
MAIN = "0   com.example.ledger            \t0x000000010a3f4a54 main + 68\n"


PROFILE = "\nModel: Mac14,7, BootROM 10151.140.19, proc 8:4:4 processors, 16 GB\nGraphics: Apple M2, {spdisplays}\n"


def payload() -> dict[str, Any]:
    return {
        "procName": "Ledger",
        "cpuType": "ARM-64",
        "osVersion": {"train": "macOS 15.4", "build": "24E248"},
        "faultingThread": 0,
        "threads": [
            {
                "id": 1,
                "triggered": True,
                "name": "Ledger Import",
                "queue": "com.example.ledger.import",
                "frames": [
                    {"imageIndex": 1, "imageOffset": 0},
                    {"imageIndex": 0, "imageOffset": 64, "symbol": "Money::sum()", "symbolLocation": 12, "inline": True}
                    | {"sourceFile": "Money.h", "sourceLine": 41},
                    {"imageIndex": 0, "imageOffset": 64, "symbol": "post", "symbolLocation": 20},
                    {"imageIndex": 0, "imageOffset": 80, "symbol": "start"},
                ],
            },
            {"id": 2, "queue": "com.apple.main-thread", "frames": []},
        ],
        "usedImages": [
            {"base": 4096, "size": 4096, "uuid": "e68de610-908a-4061-9f1d-429bde8842d7", "path": "/x/Ledger"},
            {"base": 0, "size": 0, "uuid": "00000000-0000-0000-0000-000000000000", "source": "A"},
        ],
        "sharedCache": {"base": 1 << 32, "size": 1 << 32, "uuid": "49bb9b67-8dc7-4706-b7e8-b2e419d80b16"},
    }


LINE = json.dumps({"app_name": "Ledger", "bug_type": "309", "os_version": "macOS 15.4 (24E248)"}) + "\n"


@pytest.mark.parametrize("indent", [None, 2])
def test_text_behind_json(indent: int | None) -> None:
    """As the dialog of a crash copies it: a profile of the system follows."""
    body = json.dumps(payload(), indent=indent)
    report = parse_report(LINE + body, "x.ips")
    assert parse_report(LINE + body + PROFILE, "x.ips") == report
    assert parse_report(LINE + body + "\n" + body, "x.ips") == report
    alone = parse_report(body, "x.ips")  # without the line in front
    assert alone.threads == report.threads
    assert parse_report(body + PROFILE, "x.ips") == alone
    assert parse_report(("\ufeff" + LINE + body + PROFILE).replace("\n", "\r\n"), "x.ips") == report


def test_a_translated_report_with_the_full_one_behind_it() -> None:
    """The full one says more, such as which shared cache was mapped."""
    line, short = "-" * 37, "-" * 11
    text = f"{HEAD}{FIELDS}Thread 0 Crashed:\n{MAIN}\n{IMAGES}"
    head = f"{line}\nTranslated Report (Full Report Below)\n{line}\n\n{text}\n{short}\nFull Report\n{short}\n\n"
    body = json.dumps(payload(), indent=2)
    full = parse_report(LINE + body, "x")
    assert parse_report(head + LINE + body + PROFILE, "x") == full
    assert str(full.header.cache_uuid) == "49bb9b67-8dc7-4706-b7e8-b2e419d80b16"
    assert parse_report(head + LINE + body[: len(body) // 2], "x") == parse_report(text, "x")
