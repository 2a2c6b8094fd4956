"""What `--json` prints: the keys, with a line each, and whether what was printed has others."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from tests.reference.command_line import every_command
from tests.reference.docstrings import attribute_docs
from tests.reference.errors import UndescribedError
from tests.reference.markdown import anchor, code, page, table

__all__ = ["common_description", "json_page", "undescribed_keys"]

_FILE = Path(__file__).with_suffix(".toml")
_WHERE = f"tests/reference/{_FILE.name}"
_DOCS = Path(__file__).parents[2] / "docs"
_INTRODUCTION = """\
What commands print with `--json`. Keys are added and never change their meaning; one that goes is there for one version
more. A reader passes over what it does not know. `findings[].code` is the key `code` of each entry of the list
`findings`; `{build}` stands for keys that are builds. Errors of a command are no JSON: they are sentences on standard
error, with an [exit code](exit-codes.md). Characters that are not printable are `\\u` escapes."""

Where = tuple[str, ...]
"""Of a value in a document: keys, and `[]` for the entries of a list."""


@dataclass(frozen=True)
class Output:
    """What one command prints."""

    prints: str
    page: str
    """The hand-written page that has its keys, from `docs`, with the heading; or empty."""
    keys: dict[str, str]


def common_description(key: str) -> str:
    """Return what a key means wherever it stands, or an empty text."""
    text: str = _document()["common"].get(key, "")
    return text


def json_page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    for name in _json_commands():
        output = _output(name)
        parts += [f"## symcache {name}", output.prints]
        if output.page:
            parts.append(f"[{'More keys' if output.keys else 'Its keys'}](../{output.page}).")
        if output.keys:
            parts.append(table(["key", "is"], [[code(key), text] for key, text in output.keys.items() if text]))
    return page("JSON", *parts)


def undescribed_keys(arguments: Sequence[str], value: Any) -> list[str]:
    """Return what a command printed that no page tells of, each with where to tell it."""
    name = next((n for n in _json_commands() if list(arguments[: len(n.split())]) == n.split()), None)
    if name is None:
        return []
    pattern, page_words = _described(name)
    return [
        f"`{'.'.join(path).replace('.[]', '[]')}` of `symcache {name} --json` has no description: write it in {_WHERE},"
        " then run `make reference`"
        for path in dict.fromkeys(_paths(value, ()))
        if path[-1] not in page_words and not pattern.fullmatch("\0".join(path))
    ]


@cache
def _described(name: str) -> tuple[re.Pattern[str], frozenset[str]]:
    """Return the pattern of the keys that are described, and the words that tell of others."""
    output = _output(name)
    pattern = "|".join(dict.fromkeys(pattern for key in output.keys for pattern in _patterns(key)))
    return re.compile(pattern), _told(output.page) if output.page else frozenset()


@cache
def _json_commands() -> list[str]:
    named = [c.name.removeprefix("symcache ") for c in every_command() if any("--json" in o.names for o in c.options)]
    return sorted([*named, "dsymforuuid"])


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text("utf-8"))


@cache
def _output(name: str) -> Output:
    if (entry := _document()["commands"].get(name)) is None:
        raise UndescribedError(f"`symcache {name} --json`", f"{_WHERE}, under commands")
    keys: dict[str, str] = {}
    own = entry.get("keys", {})
    for prefix, home in entry.get("models", {}).items():
        module, _, cls = home.partition(":")
        model = getattr(importlib.import_module(module), cls)
        docs = attribute_docs(model)
        keys |= {f"{prefix}.{f.name}".lstrip("."): docs.get(f.name, "") for f in fields(model) if f.name[0] != "_"}
    for key, text in own.items():
        for one in _spelled(key):
            keys[one] = text or keys.get(one) or common_description(one.rpartition(".")[2].removesuffix("[]"))
    keys = {key: text for key, text in keys.items() if text != "-"}  # a field that is not printed
    for key, text in keys.items():
        if not text and not key.endswith("**"):
            raise UndescribedError(f"`{key}` of `symcache {name} --json`", _WHERE)
    return Output(entry["prints"], entry.get("page", ""), keys)


def _spelled(key: str) -> list[str]:
    """Return the keys that one with a list such as `{added, removed}` stands for."""
    match = re.match(r"\{(\w+(?:, \w+)+)\}", key)
    return [name + key[match.end() :] for name in match[1].split(", ")] if match else [key]


def _patterns(key: str) -> Iterator[str]:
    """Yield the patterns of a key and of all that it is in."""
    parts = key.replace("[]", ".[]").strip(".").split(".")
    shapes = [".*" if p == "**" else "[^\0]+" if p.startswith("{") else re.escape(p) for p in parts]
    yield from ("\0".join(shapes[:length]) for length in range(1, len(shapes) + 1))


def _paths(value: Any, path: Where) -> Iterator[Where]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(inner, dict) or not inner:
                yield (*path, key)
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner, (*path, "[]"))


@cache
def _told(link: str) -> frozenset[str]:
    """Return the words that the section of a page, up to the next heading of its level, has as code."""
    name, _, wanted = link.partition("#")
    text = (_DOCS / name).read_text("utf-8")
    for heading in re.finditer(r"^(#+) (.+)$", text, re.MULTILINE):
        if anchor(heading[2]) == wanted:
            section = re.split(rf"(?m)^#{{1,{len(heading[1])}}} ", text[heading.end() :], maxsplit=1)[0]
            spans = re.findall(r"`([^`]+)`", re.sub(r"(?ms)^```.*?^```|``.*?``", "", section))
            return frozenset(word for span in spans for word in re.findall(r"\w+", span))
    raise LookupError(f"{link}: no such heading")
