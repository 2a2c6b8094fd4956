"""Names filled into the frames of a JSON report: `symbol`, `symbolLocation`, `sourceFile`, `sourceLine`, `inline`.

Frames are changed where they stand in the text, and written as their neighbours are: a report that was parsed and
written anew would have other spaces, numbers and escapes everywhere. Source: Apple's "Interpreting the JSON format of a
crash report", and reports of macOS 12 to 26.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from symcache.reports import Document, ReportFrame, frame_reader
from symcache.symbolicate.model import Location, NameSource
from symcache.symbolicate.named_frames import knows_more
from symcache.symbolicate.naming import NamedReport
from symcache.symbolicate.rewrite_text import rewrite_text

__all__ = ["rewrite_ips"]

# Possessive: else 100 bytes are kept for each escape in a string, to go back to.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]', re.DOTALL)
_PAIR = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"(\s*:\s*)', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"\s*")
_MAX_SPACE = 256
"""Characters of white space that are repeated as they stand: hostile reports have megabytes, for each of many pairs."""
_BACKTRACE = "Application Specific Backtrace 0:\n"
_DECODER = json.JSONDecoder(strict=False)


class _Span(NamedTuple):
    start: int
    end: int


def rewrite_ips(text: str, document: Document, named: NamedReport) -> str:
    """Return the text from where a document begins, with names filled in. Raises DumpError as for reading it."""
    read = frame_reader(document)
    changes: list[tuple[_Span, str]] = []
    for key, spans in _stacks(text[: document.end], document.start):
        if text[spans[0].start] == '"':
            changes += [(span, _renamed_text(text[slice(*span)], named)) for span in spans]
        else:
            changes += _changes(text, spans, read, named, thrown=key != "threads")
    pieces, place = [], document.start
    for span, written in sorted(changes):
        if span.start < place:  # two were read as one: what is written would be no JSON
            return text[document.start :]
        pieces += [text[place : span.start], written]
        place = span.end
    return "".join([*pieces, text[place:]])


def _stacks(text: str, start: int) -> Iterator[tuple[str, list[_Span]]]:
    """Yield where the frames of each stack stand, or a backtrace that is a string, with the key that it is under.

    The document has been parsed before: what stands here is JSON. As there, what comes last under a key counts.
    """
    labels: list[str | int] = []
    """Keys and positions that lead to where the scan is."""
    starts: list[int] = []
    stacks: dict[str, dict[tuple[str | int, ...], list[_Span]]] = {}
    key = False
    for match in _TOKEN.finditer(text, start):
        mark = text[match.start()]
        if mark in "{[":
            if not starts:  # the second object, which has the frames
                stacks.clear()
            starts.append(match.start())
            labels.append("" if mark == "{" else 0)
            key = mark == "{"
        elif mark == ",":
            if labels and isinstance(label := labels[-1], int):
                labels[-1] = label + 1
            key = bool(labels) and isinstance(labels[-1], str)
        elif mark == '"':
            if key:
                labels[-1] = _DECODER.decode(match[0]) if "\\" in match[0] else match[0][1:-1]
                if len(labels) == 1:
                    stacks.pop(str(labels[0]), None)
                elif len(labels) == 3:
                    stacks.get(str(labels[0]), {}).pop(tuple(labels), None)
            elif len(labels) == 2 and labels[0] == "asiBacktraces" and isinstance(labels[1], int):
                stacks.setdefault("asiBacktraces", {})[tuple(labels)] = [_Span(*match.span())]
        elif mark == ":":
            key = False
        else:
            begin = starts.pop()
            labels.pop()
            if _is_frame(labels):
                of_key = stacks.setdefault(str(labels[0]), {})
                of_key.setdefault(tuple(labels[:-1]), []).append(_Span(begin, match.end()))
    yield from ((key, spans) for key, of_key in stacks.items() for spans in of_key.values())


def _is_frame(labels: Sequence[str | int]) -> bool:
    if not labels or not isinstance(labels[-1], int):
        return False
    if labels[0] == "threads":
        return len(labels) == 4 and labels[2] == "frames"
    return len(labels) == {"lastExceptionBacktrace": 2, "asiBacktraces": 3}.get(str(labels[0]))


def _renamed_text(literal: str, named: NamedReport) -> str:
    """Return a string with a backtrace in it, its frames named."""
    value = _DECODER.decode(literal)
    written = rewrite_text(_BACKTRACE + value, named).removeprefix(_BACKTRACE)
    if written == value:
        return literal
    # Those that are bytes of the file, and no text, become these bytes again; those of escapes can be nothing else.
    own = set(_SURROGATE.findall(literal))
    return _SURROGATE.sub(
        lambda match: match[0] if match[0] in own else f"\\u{ord(match[0]):04x}",
        json.dumps(written, ensure_ascii=False),
    )


def _changes(
    text: str, spans: Sequence[_Span], read: Any, named: NamedReport, *, thrown: bool
) -> Iterator[tuple[_Span, str]]:
    """Yield what stands in the place of frames that have better names."""
    frames: list[tuple[_Span, ReportFrame]] = []
    for span in spans:
        if frame := read(_DECODER.decode(text[slice(*span)])):
            frames.append((span, frame))
    place = 0
    for group, _, offset, location in named.physical_frames((frame for _, frame in frames), thrown=thrown):
        first, last = frames[place][0], frames[place + len(group) - 1][0]
        place += len(group)
        if location is None or not knows_more(location, group):
            continue
        between = text[last.end : frames[place][0].start] if place < len(frames) else ""
        if between.strip() != "," or len(between) > _MAX_SPACE:
            before = text[max(first.start - _MAX_SPACE, 0) : first.start]
            between = "," + before[len(before.rstrip()) :]
        yield _Span(first.start, last.end), between.join(_objects(text[slice(*last)], location, offset))


def _objects(raw: str, location: Location, offset: int) -> list[str]:
    """Return the JSON of the frames that replace the one in `raw`, one for each call, the innermost first."""
    frame = _Frame(raw)
    objects = []
    for call in location.calls[:-1]:
        inner = {"symbol": call.function, "symbolLocation": 0, **_line(call.file, call.line), "inline": True}
        objects.append(frame.written(inner, keep=("imageOffset", "imageIndex")))
    outer = location.calls[-1]
    known: dict[str, Any] = {"symbol": outer.function, "symbolLocation": max(offset - location.start, 0)}
    if location.source is NameSource.NEAREST:
        known["symbolSource"] = str(location.source)
    return [*objects, frame.written(known | _line(outer.file, outer.line))]


def _line(file: str, line: int | None) -> dict[str, Any]:
    return {"sourceLine": line, "sourceFile": file.rpartition("/")[2]} if file and line else {}


class _Frame:
    """A frame as it stands in the text: its pairs, and the white space between them."""

    def __init__(self, raw: str) -> None:
        self.pairs: dict[str, str] = {}
        self._colon, self._open, self._comma, self._close = ":", "", "", ""
        if raw.startswith("["):  # as early reports have it: image and offset
            index, offset = json.loads(raw)[:2]
            self.pairs = {"imageOffset": str(offset), "imageIndex": str(index)}
            return
        place = 1
        self._open = self._comma = _space(raw, place)[:_MAX_SPACE]
        while match := _PAIR.match(raw, place + len(_space(raw, place))):
            if not self.pairs:
                self._colon = match[2] if len(match[2]) <= _MAX_SPACE else ":"
            _, end = _DECODER.raw_decode(raw, match.end())
            self.pairs[match[1]] = raw[match.end() : end]
            place = end + len(_space(raw, end))
            if raw[place] != ",":
                self._close = _space(raw, end)[:_MAX_SPACE]
                break
            place += 1
            self._comma = _space(raw, place)[:_MAX_SPACE]

    def written(self, known: dict[str, Any], keep: Sequence[str] | None = None) -> str:
        """Return the frame with other values; of its own only those to `keep`, or all."""
        pairs = {key: value for key, value in self.pairs.items() if keep is None or key in keep}
        pairs |= {key: json.dumps(value, ensure_ascii=False) for key, value in known.items()}
        inside = f",{self._comma}".join(f'"{key}"{self._colon}{value}' for key, value in pairs.items())
        return f"{{{self._open}{inside}{self._close}}}"


def _space(text: str, place: int) -> str:
    match = _SPACE.match(text, place)
    return match[0] if match else ""
