"""What README and docs tell one to type, as tests find it there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["PAGES", "ROOT", "blocks", "command_lines", "fenced", "placed", "unfenced"]

ROOT = Path(__file__).resolve().parents[2]
_WRITTEN = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "reference"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *_WRITTEN]
"""What people wrote: the reference is made from the code."""
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_OURS = re.compile(r"(?<![\w./-])(?:\S*/bin/)?(?:(symcache) |(opendump) )(.*)")
_ELSEWHERE = re.compile(r"\(lldb\)|^Description=|^[^$].*\bpip install|^#|\bsystemctl | --?[\w-]+ symcache ")
"""Lines in which the name is no command of ours."""


def fenced(text: str) -> list[tuple[str, str]]:
    """Return kind and text of each fenced block."""
    return [(kind, re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)) for indent, kind, body in _FENCE.findall(text)]


def unfenced(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", text)


def blocks(page: str, kind: str) -> list[str]:
    """Return the blocks of a kind of `docs/PAGE`; README is `../README.md`."""
    return [body for found, body in fenced((ROOT / "docs" / page).read_text()) if found == kind]


def placed(script: str, places: Mapping[str, object]) -> str:
    """Return a script with ports, folders and URLs of a test in the place of those that are written there."""
    for written, here in places.items():
        script = script.replace(written, str(here))
    return script


def command_lines(text: str) -> Iterator[tuple[list[str], bool]]:
    """Yield the words of each command of ours in a page, behind `symcache`, and whether it is whole.

    Within a sentence, as in `symcache push`, arguments may be left out, and what is optional stands in brackets.
    """
    for kind, body in fenced(text):
        if kind not in {"text", "json", "python", "nginx", "toml"}:
            for line in body.splitlines():
                if (found := _OURS.search(line)) and not _ELSEWHERE.search(line):
                    yield _words(found), True
    for span in re.findall(r"`([^`\n]+)`", unfenced(text)):
        if (found := _OURS.match(span)) and not found[3].startswith("load"):  # LLDB's own `symcache load`
            yield _words(found, re.sub(r"[\[\]]", "", found[3])), False


def _words(found: re.Match[str], rest: str | None = None) -> list[str]:
    lexer = shlex.shlex(found[3] if rest is None else rest, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split, words = True, ["open"] if found[2] else []
    for word in lexer:
        if set(word) <= set("();<>|&"):
            break
        words.append(word)
    return words
