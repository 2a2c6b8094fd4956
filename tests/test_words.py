"""The words of the code are the field's: a reader who knows the field should not have to learn ours."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("symcache", "server/symcache_server", "vm_provisioning/symcache_provisioning")

WORDS = {
    "question": "request",
    "answer": "response, result",
    "asked": "requested",
    "alone": "file_lock",
    "mend": "repair",
    "stray": "orphan",
    "shopping": "missing_images",
    "continuing": "resume",
    "shown": "escaped text",
}
"""Out of use in any identifier: the word, and what is said instead."""
NAMES = {
    "Folder": "Indexer",
    "Follower": "RecordReader",
    "Room": "LruFolder",
    "collect": "gc",
    "decisions": "tombstones, preferences",
    "details": "code_fingerprint",
    "found": "what it is: image, row, entry",
    "kept_caches": "raw_caches",
    "published": "atomic_write",
    "publish_bytes": "atomic_write_bytes",
}
"""Out of use as a whole identifier."""


def _identifiers() -> Iterator[tuple[str, str]]:
    """Yield (where, identifier) of modules, classes, functions and parameters."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = str(path.relative_to(ROOT))
            yield where, path.stem
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{where}:{node.lineno}", node.name
                elif isinstance(node, ast.arg):
                    yield f"{where}:{node.lineno}", node.arg


def _words(identifier: str) -> set[str]:
    """Return the words of `snake_case` or `CamelCase` in lower case, without the plural's s."""
    parts = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", identifier)
    return {word for part in parts for word in (part.lower(), part.lower().removesuffix("s"))}


def test_identifiers_use_the_words_of_the_field() -> None:
    assert [
        f"{where}: {name}: say {WORDS[word]}"
        for where, name in _identifiers()
        for word in sorted(_words(name) & WORDS.keys())
    ] == []
    assert [f"{where}: {name}: say {NAMES[name]}" for where, name in _identifiers() if name in NAMES] == []


def test_words_are_found_in_any_spelling() -> None:
    assert _words("_HTTPAnswers") == {"http", "answers", "answer"}
    assert _words("as_asked_for") == {"as", "a", "asked", "for"}
