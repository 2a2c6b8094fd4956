"""What the LLDB child says is somebody else's: it has seen hostile input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from symcache.dump.lldb_child.protocol import ChildReport
from symcache.errors import DebuggerError, DumpError

FRAME = {"pc": 4096, "inlined": False, "function": "lib_inn\udce9r"}
REPORT: dict[str, Any] = {
    "version": "lldb version 19.1.7",
    "modules": [{"state": "loaded", "symbols": True, "file_address": 0, "detail": ""}],
    "threads": [{"name": None, "frames": [FRAME]}],
}


def test_a_report_becomes_values() -> None:
    report = ChildReport.parse(json.dumps(REPORT).encode(), "x.zip")
    assert report.modules[0].state == "loaded"
    assert (report.threads[0].name, report.threads[0].frames[0].function) == ("", "lib_inn\\xe9r")


@pytest.mark.parametrize(
    "report", [b"", b"{", b"[]", b"7", b"{}", b'["error"]', json.dumps(REPORT | {"modules": [{"state": 1}]}).encode()]
)
def test_what_is_no_report_is_an_error(report: bytes) -> None:
    with pytest.raises(DebuggerError, match="LLDB's report is not"):
        ChildReport.parse(report, "x.zip")


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 1},
        {"threads": [{"name": 7, "frames": [FRAME]}]},
        {"threads": [{"name": "", "frames": [FRAME | {"pc": "4096"}]}]},
        {"threads": [{"name": "", "frames": [FRAME | {"line": [[]]}]}]},
        {"threads": [{"name": "", "frames": [FRAME | {"function": None}]}]},
        {"modules": [REPORT["modules"][0] | {"symbols": "yes"}]},
    ],
)
def test_values_of_another_kind_are_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(DebuggerError, match=r"LLDB's report is not the expected one: TypeError \w+ where"):
        ChildReport.parse(json.dumps(REPORT | changes).encode(), "x.zip")


def test_a_core_that_lldb_refuses() -> None:
    with pytest.raises(DumpError, match="LLDB does not open the core: it is none"):
        ChildReport.parse(b'{"error": "it is none"}', "x.zip")
