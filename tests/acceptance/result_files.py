"""The two files of a run: JSON for us, Markdown for whoever wants to read it before it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symcache.files import atomic_write
from tests.acceptance.part import Part
from tests.acceptance.redaction import Redaction

__all__ = ["verdict", "write_results"]

SCHEMA_VERSION = 1
_ROWS = 60
"""Of one table in the Markdown file; the other file has all."""


def write_results(folder: Path, system: Mapping[str, Any], parts: Sequence[Part], redaction: Redaction) -> list[Path]:
    """Write both files, without anything personal. Raises PersonalDataError, and then writes neither."""
    document = redaction.clean(
        {"schema_version": SCHEMA_VERSION, "system": system, "parts": [_as_json(part) for part in parts]}
    )
    redaction.check(document)
    stem = f"mac-acceptance-{document['system'].get('build') or 'unknown'}-{document['system'].get('machine') or 'mac'}"
    files = {
        folder / f"{stem}.json": json.dumps(document, indent=1) + "\n",
        folder / f"{stem}.md": "\n".join(_markdown(document)) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        with atomic_write(path) as half:
            half.write_text(text)
    return list(files)


def _as_json(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "verdict": verdict(part),
        "checks": part.checks,
        "differences": part.differing.total(),
        "kinds": dict(part.differing),
        "listed": part.differences,
        "facts": part.facts,
        "tables": part.tables,
        "seconds": part.seconds,
        "skipped": [{"why": why, "next": todo} for why, todo in part.skipped],
        "failed": part.failed,
    }


def verdict(part: Part) -> str:
    """Return in a few words what came of a part."""
    if part.failed:
        return "failed"
    if part.differing:
        return f"{part.differing.total()} differences in {part.checks} checks"
    if part.checks:
        return f"as expected, {part.checks} checks" + (", some left out" if part.skipped else "")
    return "skipped" if part.skipped else "nothing to check"


def _markdown(document: Mapping[str, Any]) -> Iterator[str]:
    system = document["system"]
    yield f"# symcache on macOS {system.get('version', '?')} ({system.get('build', '?')})"
    yield ""
    yield from _table([{"what": key.replace("_", " "), "value": value} for key, value in system.items()])
    yield from _table([{"part": part["name"], "result": part["verdict"]} for part in document["parts"]])
    for part in document["parts"]:
        yield f"## {part['name']}: {part['verdict']}"
        yield ""
        if part["failed"]:
            yield f"- failed: {part['failed']}"
        yield from (f"- left out: {s['why']} (to have it: {s['next']})" for s in part["skipped"])
        yield from (f"- {key.replace('_', ' ')}: {value}" for key, value in part["facts"].items())
        yield from (f"- {what}: {seconds} s" for what, seconds in part["seconds"].items())
        yield ""
        for kind, count in part["kinds"].items():
            yield f"### {kind}: {count}"
            yield ""
            yield from _table([d for d in part["listed"] if d["kind"] == kind])
        for name, rows in part["tables"].items():
            yield f"### {name.replace('_', ' ')}"
            yield ""
            yield from _table(rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return
    yield "| " + " | ".join(column.replace("_", " ") for column in columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows[:_ROWS]:
        yield "| " + " | ".join(_cell(row.get(column)) for column in columns) + " |"
    if len(rows) > _ROWS:
        yield f"| … and {len(rows) - _ROWS} more |" + " |" * (len(columns) - 1)
    yield ""


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|")
