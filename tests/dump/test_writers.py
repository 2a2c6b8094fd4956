"""Dumps in the layouts of several writers, where somebody has put such: whoever made them told what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.dump.test_cli import run
from tests.support.apple import written_dumps


@pytest.fixture(scope="module")
def reports() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return what is true of each dump, and what was found in it."""
    folder = written_dumps()
    truths = [json.loads(path.read_text()) for path in sorted(folder.glob("*.expected.json"))]
    dumps = [folder / truth["file"] for truth in truths]
    before = [path.read_bytes() for path in dumps]
    done = run("analyze", *dumps, "--symbols", folder / "binaries", "--json")
    assert done.returncode == 0, done.stderr
    assert [path.read_bytes() for path in dumps] == before
    found = json.loads(done.stdout)
    assert [Path(one["dump"]).name for one in found] == [truth["file"] for truth in truths]
    return list(zip(truths, found, strict=True))


def test_every_frame_of_every_dump(reports: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for truth, found in reports:
        said = {t["index"]: t["frames"] for t in found["threads"]}
        assert said.keys() == {t["index"] for t in truth["threads"]}
        for thread in truth["threads"]:
            frames = said[thread["index"]]
            assert [(f["address"], f["module_offset"], f["function"], f["offset"]) for f in frames] == [
                (f["address"], f["offset"], f["symbol"], f["symbol_offset"]) for f in thread["frames"]
            ], truth["file"]
            for one, true in zip(frames, thread["frames"], strict=True):
                assert one["module"] == (true["image"] or one["module"])


def test_what_happened_in_every_dump(reports: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for truth, found in reports:
        told, name = found["exception"], truth["file"]
        if truth["exception"]:
            assert told["signal"] == truth["exception"]["signal"], name
            assert told["address"] == truth["exception"]["address"], name
        assert found["crashed_thread"] == truth["crashed_thread"], name
        assert found["process"]["arch"] == truth["arch"], name
        assert found["system"]["build"] == truth["os_build"], name
        assert {n: found["registers"][n] for n in truth["registers"]} == truth["registers"], name
        assert {t["index"]: t["name"] for t in found["threads"]} == {t["index"]: t["name"] for t in truth["threads"]}


def test_the_modules_of_every_dump(reports: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for truth, found in reports:
        said = {(m["address"], m["uuid"]): m["path"] for m in found["modules"]}
        assert said.keys() == {(m["base"], m["uuid"]) for m in truth["images"]}, truth["file"]
        for image in truth["images"]:  # where the dump has no path, it is that of the binary
            assert said[image["base"], image["uuid"]] == (image["path"] or said[image["base"], image["uuid"]])
