"""Writes crash reports in Apple's two formats, after Apple's description."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

__all__ = ["SAID", "crash", "ips", "thrown"]


def ips(real: dict[str, Any]) -> str:
    """Return the JSON report of a crash."""
    images = [
        {"base": base, "size": 4096, "uuid": str(UUID(uuid)), "path": path, "name": path.rpartition("/")[2]}
        for path, uuid, base in real["modules"]
    ]
    images.append({"base": 0, "size": 0, "uuid": "00000000-0000-0000-0000-000000000000"})
    places = {path: number for number, (path, _, _) in enumerate(real["modules"])}
    threads = [
        {
            "id": 1000 + thread["index"],
            "triggered": thread["index"] == real["crashed_thread"],
            "name": f"thread-{thread['index']}",
            "threadState": {
                "x": [{"value": n} for n in range(29)],
                "pc": {"value": 5, "matchesCrashFrame": 1},
                "flavor": "A",
            },
            "frames": [
                {"imageIndex": places[f["module"]], "imageOffset": f["pc"] - real["modules"][places[f["module"]]][2]}
                for f in thread["frames"]
            ],
        }
        for thread in real["threads"]
    ]
    head = {"app_name": "Ledger", "bug_type": "309", "os_version": "macOS 13.6.9 (22G830)"}
    body = {
        "procName": "Ledger",
        "procPath": real["executable"],
        "cpuType": "ARM-64" if real["arch"] == "arm64" else "X86-64",
        "bundleInfo": {"CFBundleShortVersionString": "2.4"},
        "osVersion": {"train": "macOS 13.6.9", "build": "22G830"},
        "exception": {
            "type": "EXC_BAD_ACCESS",
            "signal": "SIGSEGV",
            "subtype": "KERN_INVALID_ADDRESS at 0x0000000000000008",
        },
        "faultingThread": real["crashed_thread"],
        "threads": threads,
        "usedImages": images,
    }
    return json.dumps(head) + "\n" + json.dumps(body, indent=1)


def crash(real: dict[str, Any]) -> str:
    """Return the text report of a crash."""
    lines = [
        "Process:               Ledger [4711]",
        f"Path:                  {real['executable']}",
        "Version:               2.4 (240)",
        f"Code Type:             {'ARM-64' if real['arch'] == 'arm64' else 'X86-64'} (Native)",
        "OS Version:            macOS 13.6.9 (22G830)",
        "",
        f"Crashed Thread:        {real['crashed_thread']}",
        "Exception Type:        EXC_BAD_ACCESS (SIGSEGV)",
        "Exception Codes:       KERN_INVALID_ADDRESS at 0x0000000000000008",
        "",
    ]
    for thread in real["threads"]:
        state = " Crashed:" if thread["index"] == real["crashed_thread"] else ":"
        lines.append(f"Thread {thread['index']}{state}: thread-{thread['index']}")
        for number, frame in enumerate(thread["frames"]):
            name = frame["module"].rpartition("/")[2]
            source = " (some file.c:1)" if frame["file"] else ""
            lines.append(f"{number:<4}{name:<30}\t{frame['pc']:#018x} {frame['function']} + 12{source}")
        lines.append("")
    lines += [f"Thread {real['crashed_thread']} crashed with X86 Thread State (64-bit):"]
    lines += [
        "  rax: 0x0000000000000001  rbx: 0x0000000000000002  r15: 0x0000000000000003",
        "  rip: 0x0000000109a1483b",
        "",
    ]
    lines += ["Binary Images:"]
    for path, uuid, base in real["modules"]:
        lines.append(f"  {base:#18x} - {base + 4095:#18x} {path.rpartition('/')[2]} (*) <{UUID(uuid)}> {path}")
    return "\n".join([*lines, "", "External Modification Summary:", ""])


SAID = "*** Terminating app due to uncaught exception 'NSRangeException', reason: 'index 5 beyond bounds'"


def thrown(write: Any, real: dict[str, Any], frames: list[dict[str, Any]], said: str = SAID) -> str:
    """Return a report of an uncaught exception, thrown by way of these frames."""
    text: str = write(real)
    if write is crash:
        lines = ["Application Specific Information:", said, "abort() called", "", "Last Exception Backtrace:"]
        lines += [
            f"{n:<4}{f['module'].rpartition('/')[2]:<30}\t{f['pc']:#018x} 0x104a70000 + {n}"
            for n, f in enumerate(frames)
        ]
        return text.replace("Thread 0", "\n".join([*lines, "", "Thread 0"]), 1)
    places = {path: number for number, (path, _, _) in enumerate(real["modules"])}
    head, _, rest = text.partition("\n")
    body = json.loads(rest)
    body["asi"] = {"CoreFoundation": [said], "libsystem_c.dylib": ["abort() called"]}
    body["lastExceptionBacktrace"] = [
        {"imageIndex": places[f["module"]], "imageOffset": f["pc"] - real["modules"][places[f["module"]]][2]}
        for f in frames
    ]
    return f"{head}\n{json.dumps(body)}"
