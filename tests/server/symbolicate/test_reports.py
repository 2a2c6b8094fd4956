"""`POST /api/v1/symbolicate`: whole crash reports, in and out."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID

import pytest

from tests.server.symbolicate.conftest import PAGE, Closed, Own
from tests.server.symbolicate.v5 import debug_id, functions_of, symbolicate
from tests.support.http import Answer, request
from tests.support.servers import Server, uuid_of
from tests.support.waiting import until

Report = tuple[list[tuple[str, UUID, int]], list[tuple[str, int]], list[str]]
_PATH = "/api/v1/symbolicate"
_BASE, _SIZE = 0x10_4000_0000, 0x10000
_NOBODY = UUID(int=0x5150)


def _text(images: list[tuple[str, UUID, int]], frames: list[tuple[str, int]]) -> str:
    """Return a report as macOS 11 writes it, with a name of its own in the last frame; its user is called Ada."""
    stack = [f"{n:<4}{name:<30}\t{address:#018x} 0x0 + {address}" for n, (name, address) in enumerate(frames)]
    listed = [
        f"{base:#18x} - {base + _SIZE - 1:#18x} {name} (0) <{str(uuid).upper()}> /Users/ada/{name}"
        for name, uuid, base in images
    ]
    head = [
        "Process:               own [7]",
        "Path:                  /Users/ada/own",
        "Code Type:             X86-64 (Native)",
    ]
    system = ["OS Version:            macOS 13.6.9 (22G830)", "", "Exception Type:        EXC_CRASH (SIGABRT)", ""]
    return "\n".join([*head, *system, "Thread 0 Crashed:", *stack, "", "Binary Images:", *listed, ""])


def _ips(images: list[tuple[str, UUID, int]], frames: list[tuple[str, int]]) -> str:
    """Return the same as macOS 12 and later write it."""
    names = [name for name, _, _ in images]
    listed = [
        {
            "source": "P",
            "arch": "x86_64",
            "base": base,
            "size": _SIZE,
            "uuid": str(uuid),
            "path": f"/Users/ada/{name}",
            "name": name,
        }
        for name, uuid, base in images
    ]
    stack = [
        {"imageOffset": address - images[names.index(name)][2], "imageIndex": names.index(name)}
        for name, address in frames
    ]
    body = {
        "procName": "own",
        "procPath": "/Users/ada/own",
        "cpuType": "X86-64",
        "faultingThread": 0,
        "osVersion": {"train": "macOS 13.6.9", "build": "22G830", "releaseType": "User"},
        "exception": {"type": "EXC_CRASH", "signal": "SIGABRT", "codes": "0x0, 0x0"},
        "threads": [{"id": 1, "triggered": True, "frames": stack}],
        "usedImages": listed,
    }
    head = {"app_name": "own", "bug_type": "309", "os_version": "macOS 13.6.9 (22G830)"}
    return f"{json.dumps(head)}\n{json.dumps(body, indent=2)}\n"


@pytest.fixture(scope="module")
def report(own: Own) -> Report:
    """Return images and frames of a report, and the functions of those frames that the server has."""
    functions = functions_of(own.image)
    images = [(own.image.name, uuid_of(own.image), _BASE), ("nobody", _NOBODY, _BASE + (1 << 32))]
    # The top one exact, at its first byte; the others return behind the first instruction.
    frames = [(own.image.name, _BASE + functions["of_header"])]
    frames += [(own.image.name, _BASE + functions[name] + 1) for name in ("nameless", "last")]
    return images, [*frames, ("nobody", _BASE + (1 << 32) + 0x77)], ["of_header", "nameless", "last"]


def _send(server: Server, body: str | bytes, query: str = "", **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else body
    return request(
        server.url, _PATH + query, method="POST", headers={"Content-Type": "text/plain"} | headers, body=data
    )


@pytest.mark.parametrize("write", [_text, _ips])
def test_the_names_are_those_of_the_other_protocol(own: Own, report: Report, write: Callable[..., str]) -> None:
    images, frames, names = report
    answer = _send(own.server, write(images, frames))
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    document = json.loads(answer.body)
    shown = document["threads"][0]["frames"]
    assert [f["function"] for f in shown] == [*names, None]
    assert {f["source"] for f in shown} == {"dwarf", None}
    assert [m["found"] for m in document["modules"]] == [True, False]
    assert document["system"]["build"] == "22G830"
    lowered = [address - _BASE - (number > 0) for number, (_, address) in enumerate(frames[:3])]
    job = {"memoryMap": [["own", debug_id(images[0][1].hex)]], "stacks": [[[0, offset] for offset in lowered]]}
    for ours, theirs in zip(shown, symbolicate(own.server.url, job)[0]["stacks"][0], strict=False):
        assert (ours["function"], ours["file"], ours["line"]) == (theirs["function"], theirs["file"], theirs["line"])


def test_what_nobody_has_is_missing_with_the_build_of_the_report(own: Own, report: Report) -> None:
    assert _send(own.server, _text(*report[:2])).status == 200
    missing = json.loads(request(own.server.url, "/api/v1/missing").body)["missing"]
    rows = [(row["build"], row["name"]) for row in missing if UUID(row["uuid"]) == _NOBODY]
    assert rows == [("22G830", "nobody")]


def test_a_report_comes_back_in_its_own_format(own: Own, report: Report) -> None:
    images, frames, names = report
    sent = _text(images, frames)
    answer = _send(own.server, sent, "?form=report")
    assert answer.headers["content-type"] == "application/octet-stream"
    lines = answer.body.decode().splitlines()
    changed = [line for line, before in zip(lines, sent.splitlines(), strict=True) if line != before]
    assert [line.split("\t")[1].split()[1] for line in changed] == names
    sent = _ips(images, frames)
    body = json.loads(_send(own.server, sent, "?form=report").body.split(b"\n", 1)[1])
    assert [frame.get("symbol") for frame in body["threads"][0]["frames"]] == [*names, None]
    answer = _send(own.server, sent, "?form=text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert all(f" {name} + " in answer.body.decode() for name in names)


def test_what_is_no_report_is_refused(own: Own) -> None:
    for body in (b"", b"hello", b"{}", b'{"bug_type": "309"}\n{"threads": [', b"\xff\xfe\x00", b"[" * 50_000):
        answer = _send(own.server, body)
        assert answer.status == 422, body[:20]
        assert json.loads(answer.body).keys() == {"error", "hint"}
    assert _send(own.server, b" " * ((16 << 20) + 1)).status == 413
    assert _send(own.server, b"x", "?form=html").status == 400
    many = _text([("own", UUID(int=1), _BASE)], [])
    stack = "\n".join(f"{n:<4}own{'':<27}\t{_BASE + n:#018x} 0x0 + 1" for n in range(1000))
    many = many.replace("Thread 0 Crashed:", "\n\n".join(f"Thread {n}:\n{stack}" for n in range(101)))
    answer = _send(own.server, many)
    assert (answer.status, "101000 frames" in json.loads(answer.body)["error"]) == (400, True)


def test_reports_are_for_no_log_and_no_other_page(closed: Closed, report: Report) -> None:
    server, sent = closed.server, _text(*report[:2])
    token = {"Authorization": f"Bearer {closed.reader}"}
    assert _send(server, sent).status == 401
    assert _send(server, sent, **token).status == 200
    assert _send(server, sent.replace("Thread 0", "Tread 0"), **token).status in {200, 422}
    assert _send(server, sent, Origin="https://evil.example", **token).status == 403
    assert "access-control-allow-origin" not in _send(server, sent, Origin=PAGE, **token).headers
    until(lambda: closed.access_log.read_text().count(_PATH) >= 5)
    for log in (closed.access_log, server.folder / "stderr"):
        assert "ada" not in log.read_text().lower()
    kept = [p for p in server.folder.rglob("*") if p.is_file() and b"/Users/ada" in p.read_bytes()]
    assert kept == []
