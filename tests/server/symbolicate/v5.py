"""A request to `/symbolicate/v5` as clients send it, and the shape of the response that they insist on."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.http import Answer, request

__all__ = ["check_shape", "debug_id", "functions_of", "post", "symbolicate"]

_HEX = re.compile(r"-?0x[0-9a-f]+")
_FRAME = {
    "module_offset": _HEX,
    "module": str,
    "frame": int,
    "function": str,
    "function_offset": _HEX,
    "function_size": _HEX,
    "file": str,
    "line": int,
    "inlines": list,
}
"""Source: `APIFrameInfoV5Schema` in src/profile-logic/mozilla-symbolication-api.ts of firefox-devtools/profiler.

It splits the hexadecimal ones at `0x`, whatever else a string may hold.
"""


def debug_id(uuid_hex: str) -> str:
    """Return a UUID as the profiler writes it: upper case, and the age that Mach-O has not."""
    return uuid_hex.upper() + "0"


def functions_of(image: Path) -> dict[str, int]:
    """Return the offset of each function from the image's header, as LLVM's own tool prints it."""
    text = subprocess.run(["llvm-nm-19", "--defined-only", image], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.splitlines()]
    return {name.removeprefix("_"): int(address, 16) for address, _, name in rows}


def post(url: str, payload: Any, path: str = "/symbolicate/v5", headers: Mapping[str, str] | None = None) -> Answer:
    """Send what a browser's page would."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return request(
        url, path, method="POST", headers={"Content-Type": "text/plain;charset=UTF-8"} | dict(headers or {}), body=body
    )


def symbolicate(url: str, payload: Any, path: str = "/symbolicate/v5") -> list[dict[str, Any]]:
    """Return the results, whose shape has been checked."""
    answer = post(url, payload, path)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    document = json.loads(answer.body)
    check_shape(document)
    results: list[dict[str, Any]] = document["results"]
    return results


def check_shape(document: Any) -> None:
    """Fail for what the Firefox Profiler would refuse whole."""
    for job in document["results"]:
        assert all(found in {True, False, None} for found in job["found_modules"].values())
        for stack in job["stacks"]:
            for frame in stack:
                assert {"frame", "module", "module_offset"} <= frame.keys()
                for name, kind in _FRAME.items():
                    if name in frame:
                        value = frame[name]
                        if isinstance(kind, re.Pattern):
                            assert isinstance(value, str)
                            assert kind.fullmatch(value), (name, value)
                        else:
                            assert type(value) is kind, (name, value)
                # Without the one it does not take the other.
                assert ("function" in frame) == ("function_offset" in frame)
                for call in frame.get("inlines", []):
                    assert {type(call.get("function")), type(call.get("file", "")), type(call.get("line", 0))} == {
                        str,
                        int,
                    }
