"""A child that asks has responses; one that asks for anything else, or too often, is stopped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from symcache.confined import Bounds, Cause, ConfinedProcess, Conversation, NoRequestError, ProcessFailure
from symcache.own_program import own_environment, own_python

_ASK = """
import os, sys, time
pipe, requests = os.fdopen(int(sys.argv[1])), os.fdopen(int(sys.argv[2]), "w", buffering=1)
def ask(text):
    print(text, file=requests)
    return pipe.readline().strip()
"""


def _respond(request: bytes) -> bytes:
    if request == b"nonsense":
        raise NoRequestError("sends nonsense")
    return request.upper() + b"\n"


def _child(folder: Path, body: str, conversation: Conversation, *, terminal: bool = False) -> ConfinedProcess:
    script = folder / "script.py"
    script.write_text(_ASK + body)
    work = folder / "work"
    work.mkdir()
    arguments = [str(descriptor) for descriptor in conversation.child_ends]
    return ConfinedProcess(
        *(own_python, str(script), arguments, Bounds(seconds=0.4 if "sleep" in body else 60)),
        environment=own_environment(),
        folder=work,
        terminal=terminal,
        conversation=conversation,
    )


def test_it_asks_while_it_works_and_our_time_is_not_its(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, late = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock() + late)

    def respond_late(request: bytes) -> bytes:
        nonlocal late
        late += 1000
        return _respond(request)

    body = "print(len(pipe.readline()), flush=True)\nfor n in range(3): print(ask('x' * 100000 + str(n))[-2:])\n"
    with Conversation(3) as conversation, _child(tmp_path, body, conversation) as child:
        conversation.begin(b"x" * 1_000_000 + b"\n", respond_late)
        assert child.read("it") == (0, b"1000001\nX0\nX1\nX2\n")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("while True: ask('x')", "it sends more than 3 requests and was stopped"),
        (
            "os.write(requests.fileno(), b'x\\ny\\n'); input()",
            "it sends a request before it has the response to another",
        ),
        ("ask('x' * (1 << 20) + 'x')", "it sends a request of more than 1 MiB"),
        ("ask('nonsense')", "it sends nonsense and was stopped"),
    ],
)
def test_what_asks_for_what_it_may_not_is_stopped(tmp_path: Path, body: str, expected: str) -> None:
    with Conversation(3) as conversation, _child(tmp_path, "pipe.readline()\n" + body, conversation) as child:
        conversation.begin(b"first\n", _respond)
        with pytest.raises(ProcessFailure, match=expected) as error:
            child.read("it")
    assert error.value.cause is Cause.REQUEST


@pytest.mark.parametrize(("terminal", "expected"), [(False, "was not done"), (True, "did not read what it was sent")])
def test_what_does_not_read_is_stopped(tmp_path: Path, terminal: bool, expected: str) -> None:
    with (
        Conversation(3) as conversation,
        _child(tmp_path, "time.sleep(600)", conversation, terminal=terminal) as child,
    ):
        conversation.begin(b"x" * 1_000_000, _respond)
        with pytest.raises(ProcessFailure, match=f"it {expected} after 0.4 seconds and was stopped") as error:
            child.wait("it") if terminal else child.read("it")
    assert error.value.cause is Cause.TIME


def test_what_wants_to_hear_nothing_may_work_on(tmp_path: Path) -> None:
    body = "pipe.close(); requests.close(); print('done')"
    with Conversation(3) as conversation, _child(tmp_path, body, conversation) as child:
        conversation.begin(b"x" * 1_000_000, _respond)
        assert child.read("it") == (0, b"done\n")
