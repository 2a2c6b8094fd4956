"""Reports that are small and would keep a reader busy for minutes, or fill its memory, or its stack."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from symcache.errors import DumpError
from symcache.reports import parse_report
from tests.dump.test_corpus import truth
from tests.reports.writers import crash, ips

_MOST_SECONDS = 2


@pytest.mark.parametrize(
    "lines",
    [
        # A path, and a name, with a long run of blanks in it.
        ["       0x1000 -        0x1fff x (1) <> /x" + " " * 4000 + "y"] * 100,
        ["       0x1000 -        0x1fff x (1) <> /x" + " {" * 2000 + "y"] * 500,
        ["       0x1000 -        0x1fff x" + " " * 1000 + "y <>"] * 1000,
    ],
    ids=["path", "package", "name"],
)
def test_images_with_blanks_in_them(lines: list[str]) -> None:
    title, listed = "Binary Images:\n", "\n".join(lines)
    text = crash(truth("x86_64")).replace(title, f"{title}{listed}\n")
    start = time.process_time()
    report = parse_report(text, "x")
    assert len(report.images) > len(lines)
    assert time.process_time() - start < _MOST_SECONDS


def test_threads_with_blanks_in_their_names() -> None:
    frame = "0   x    \t0x0000000000001000 main + 4\n\n"
    stacks = "".join(f"Thread {n}:: a{' ' * 1000}b\n{frame}" for n in range(100, 600))
    start = time.process_time()
    parse_report(crash(truth("x86_64")).replace("Thread 0", f"{stacks}Thread 0", 1), "x")
    assert time.process_time() - start < _MOST_SECONDS


def test_a_label_that_is_wrapped_again_and_again() -> None:
    lines = "queue:\n" * 2000
    text = f"Process: x [1]\n\nThread 0:: a  Dispatch queue:\n{lines}0   x    \t0x0000000000001000 main + 4\n"
    assert len(parse_report(text, "x").threads[0].queue) <= 1024


@pytest.mark.parametrize("where", ['"bug_type":', '"workQueueLimits": {"x":'])
def test_values_that_nest_as_deep_as_can_be_parsed(where: str) -> None:
    """To write them as text would take more of the stack than that."""
    head, body = ips(truth("arm64")).split("\n", 1)
    head = head.replace('"bug_type": "309"', '"x": 1')
    for depth in range(1000, 0, -1):
        value = where + "[" * depth + "]" * depth + "}" * where.count("{")
        with suppress(DumpError):
            parse_report(f"{head}\n{{{value}, {body[1:]}", "x")
            break
    assert depth > 500
