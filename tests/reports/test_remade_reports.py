"""Re-made reports of many systems and kinds, where somebody has put them: what stands beside each is found in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.errors import DumpError
from symcache.reports import Report, ReportFrame, is_report, read_report

_SAME = {"x29": "fp", "x30": "lr", "rfl": "rflags"}
"""Registers of two names."""


def _expectations(verdict: str) -> list[Any]:
    folder = os.environ.get("SYMCACHE_TEST_REPORTS", "")
    files = sorted(Path(folder).glob("*.expected.json")) if folder else []
    found = [(path, json.loads(path.read_text())) for path in files]
    return [
        pytest.param(path.with_name(told["file"]), told, id=told["file"])
        for path, told in found
        if told["verdict"] == verdict
    ] or [pytest.param(None, None, marks=pytest.mark.skip("SYMCACHE_TEST_REPORTS is not set"))]


@pytest.mark.parametrize(("path", "expected"), _expectations("read"))
def test_all_that_a_report_says_is_read(path: Path, expected: dict[str, Any]) -> None:
    assert is_report(path)
    report = read_report(path)
    assert report.arch == expected["arch"]
    assert report.executable.rpartition("/")[2] == expected["executable"]
    assert report.os_build == expected["os_build"]
    if expected.get("cache_uuid"):
        assert report.cache_uuid == UUID(expected["cache_uuid"])
    assert report.crashed_thread == expected["crashed_thread"]
    assert [(t.index, t.name or None, t.queue or None) for t in report.threads] == [
        (t["index"], t["name"], t["queue"]) for t in expected["threads"]
    ]
    stacks = [*(t.frames for t in report.threads), report.last_exception, *report.application_backtraces]
    wanted = [t["frames"] for t in expected["threads"]]
    wanted += [expected.get("last_exception") or [], *(expected.get("application_backtraces") or [])]
    assert [_seen(report, *pair) for pair in zip(stacks, wanted, strict=True)] == [_wanted(one) for one in wanted]
    assert {i.address: i.uuid for i in report.images} == {
        int(i["base"], 16): UUID(i["uuid"]) if i["uuid"] else None for i in expected["images"]
    }
    paths = {i.address: i.path for i in report.images}
    assert all(paths[int(i["base"], 16)] == i["path"] for i in expected["images"] if i["path"])
    sizes = {i.address: i.size for i in report.images}
    assert all(sizes[int(i["base"], 16)] == i["size"] for i in expected["images"] if i.get("size"))
    exception = expected["exception"]
    assert report.exception.signal == exception.get("signal")
    assert report.exception.kind == exception["type"]
    assert report.exception.message == exception.get("message")
    if exception.get("address"):
        told = {int(word, 16) for word in re.findall(r"0x[0-9a-f]+", report.exception.description)}
        assert int(exception["address"], 16) in told
    assert set(expected.get("information") or []) <= set(report.information)
    said = " ".join((report.exception.description, *report.cause, *report.information, *report.notes)).lower()
    assert [words for words in expected.get("cause") or [] if words.lower() not in said] == []
    registers = {_SAME.get(name, name): value for name, value in report.registers.items()}
    assert registers.items() >= {_SAME.get(n, n): int(v, 16) for n, v in (expected["registers"] or {}).items()}.items()


@pytest.mark.parametrize(("path", "expected"), _expectations("refused"))
def test_a_file_of_another_kind_is_named(path: Path, expected: dict[str, Any]) -> None:
    assert is_report(path)
    with pytest.raises(DumpError) as raised:
        read_report(path)
    sentence = str(raised.value).replace(str(path), "").lower()
    for words in expected["says"]:
        assert any(word.lower() in sentence for word in words)
    said = sentence + raised.value.hint.lower()
    assert [words for words in expected["must_not_say"] if words.lower() in said] == []
    assert raised.value.hint


def _others() -> list[Any]:
    folder = os.environ.get("SYMCACHE_TEST_REPORTS", "")
    files = sorted(path for path in Path(folder).glob("*") if path.is_file()) if folder else []
    known = {path.name.removesuffix(".expected.json") for path in files if path.name.endswith(".expected.json")}
    skipped = (".expected.json", ".py", ".md")
    return [path for path in files if path.name not in known and not path.name.endswith(skipped)]


@pytest.mark.parametrize("path", _others() or [None], ids=lambda path: path.name if path else "none")
def test_a_report_without_expectations_is_read_or_refused_with_a_sentence(path: Path | None) -> None:
    """Whoever has real reports may put them there."""
    if path is None or not is_report(path):
        return
    try:
        report = read_report(path)
    except DumpError as error:
        assert error.hint
    else:
        assert any(thread.frames for thread in report.threads)


def _seen(report: Report, frames: tuple[ReportFrame, ...], wanted: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what is known of frames, without the names of images of which nothing is `wanted`."""
    out = []
    for f, expected in zip(frames, wanted, strict=True):
        at = max((i.address for i in report.images if i.address and i.address <= f.address), default=None)
        image = next((i for i in report.images if at is not None and i.address == at), None)
        inside = image if image and (not image.size or f.address < at + image.size) else None
        place = (inside.path.rpartition("/")[2] or None, f.address - at) if inside else (None, None)
        if expected["image"] is None and expected["offset"] is not None:
            place = (None, place[1])
        out.append((f.address, *place, f.function or None, f.offset, f.file or None, f.line, f.inlined))
    return out


def _wanted(frames: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    keys = ("image", "offset", "symbol", "symbol_offset", "file", "line")
    return [(int(f["address"], 16), *(f.get(key) for key in keys), bool(f.get("inlined"))) for f in frames]
