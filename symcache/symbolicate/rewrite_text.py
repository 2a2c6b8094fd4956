"""Names filled into the frames of a text report, as Apple writes them: `…\t0x104321a2c main + 44 (main.m:12)`."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from symcache.reports import ReportFrame, bare_frames, frame_of, frame_pieces, is_escaped, split_frame, stack_begins
from symcache.symbolicate.model import Location, NameSource
from symcache.symbolicate.named_frames import knows_more
from symcache.symbolicate.naming import NamedReport

__all__ = ["frame_text", "rewrite_text"]

_QUOTED = re.compile(r"[> \t|]{0,80}")
_NUMBER = re.compile(r"(\s*)(\d{1,5})(\s+)")
_ADJACENT = re.compile(r"[^\r\n]\r?\n[^\r\n]")
_NEXT_REPORT = ("Process:", "Incident Identifier:")


@dataclass(slots=True)
class _Line:
    """A frame in the text: one line, or more where a mail program has broken it."""

    raw: str
    """With quoting in front and line ends behind."""
    front: str
    """What comes before the name: quoting, number, image, address."""
    ending: str
    frame: ReportFrame


def rewrite_text(text: str, named: NamedReport) -> str:
    """Return a report that is text, or the text in front of one in JSON, with names filled in."""
    lines = text.splitlines(keepends=True) if "\r" in text and "\n" not in text else text.split("\n")
    if lines and not lines[-1].endswith("\r"):
        lines = [line + "\n" for line in lines[:-1]] + [lines[-1]]
    return "".join(_Rewriter(text, named).run(lines))


class _Rewriter:
    def __init__(self, text: str, named: NamedReport) -> None:
        self._named = named
        self._escaped = is_escaped(text)
        self._spaced = not _ADJACENT.search(text)
        """It has doubled line ends, too."""
        self._stack: list[_Line] = []
        self._thrown: bool | None = None
        """Whether the stack is of return addresses alone; None outside of one."""

    def run(self, lines: list[str]) -> Iterator[str]:
        """Yield the lines of the report."""
        number, images = 0, False
        while number < len(lines):
            line, following = lines[number], lines[number + 1] if number + 1 < len(lines) else ""
            body = _body(line)
            if images and body.startswith(_NEXT_REPORT):
                break
            images = images or body.startswith("Binary Images")
            number += 1
            if self._thrown is not None:
                if found := self._frame(lines, number - 1):
                    frame, number = found
                    self._stack.append(frame)
                    continue
                if not self._stack and self._thrown and (bare := bare_frames(body)):
                    yield from self._written_out(bare, line)
                    continue
                # The other half of a doubled line end; more than two are no part of a stack.
                if not body.strip() and self._spaced and self._stack and len(self._stack[-1].ending) <= 2:
                    self._stack[-1].raw += line
                    self._stack[-1].ending += line
                    continue
                if not body.strip() and not self._stack:
                    yield line
                    continue
            yield from self._ended()
            self._thrown = stack_begins(body.rstrip(), _body(following))
            yield line
        yield from self._ended()
        yield from lines[number:]

    def _frame(self, lines: list[str], number: int) -> tuple[_Line, int] | None:
        """Return the frame that begins at a line, and the number of the line behind it."""
        quoting = _QUOTED.match(lines[number])
        start = quoting.end() if quoting else 0
        following = (_body(lines[next_one]) for next_one in range(number + 1, len(lines)))
        pieces = frame_pieces(itertools.chain([_split_ending(lines[number][start:])[0]], following))
        body = " ".join(pieces)
        frame, columns = frame_of(body), split_frame(body)
        if frame is None or columns is None:
            return None
        end = number + len(pieces)
        front = lines[number][:start] + body[: columns.end]
        return _Line("".join(lines[number:end]), front, _split_ending(lines[end - 1])[1], frame), end

    def _ended(self) -> Iterator[str]:
        """Yield the stack that has been read."""
        stack, self._stack = self._stack, []
        added = place = 0
        frames = self._named.physical_frames((line.frame for line in stack), thrown=bool(self._thrown))
        for group, _, offset, location in frames if stack else ():
            lines = stack[place : place + len(group)]
            place += len(group)
            if location is None or not knows_more(location, group):
                yield from (_renumbered(line.raw, added, line.front) for line in lines)
                continue
            texts = _frame_texts(location, offset)
            front = lines[0].front
            for number, text in enumerate(texts):
                shown = html.escape(text, quote=False) if self._escaped else text
                yield _renumbered(f"{front} {shown}{lines[-1].ending}", added + number, front)
            added += len(texts) - len(group)

    def _written_out(self, frames: list[ReportFrame], line: str) -> Iterator[str]:
        """Yield a backtrace that was one line of addresses, one line a frame, if any has a name."""
        stack = list(self._named.physical_frames(frames, thrown=True))
        if not any(frame.location for frame in stack):
            yield line
            return
        ending = _split_ending(line)[1] or "\n"
        number = 0
        for (frame, *_), image, offset, location in stack:
            start, apart = (0, frame.address) if image is None else (self._named.start_of(image), offset)
            title = self._named.report.images[image].path.rpartition("/")[2] if image is not None else "???"
            known = location and _frame_texts(location, offset)
            for text in known or [f"{start:#x} + {apart}"]:
                yield f"{number:<4}{title:<30}\t{frame.address:#018x} {text}{ending}"
                number += 1


def _frame_texts(location: Location, offset: int) -> list[str]:
    """Return what stands behind the address of a frame, a line a function; `offset`: from the image's header."""
    *inner, outer = location.calls
    texts = [frame_text(call.function, 0, call.file, call.line, mark="inlined") for call in inner]
    mark = "nearest" if location.source is NameSource.NEAREST else ""
    return [*texts, frame_text(outer.function, max(offset - location.start, 0), outer.file, outer.line, mark=mark)]


def frame_text(function: str, offset: int | None, file: str, line: int | None, *, mark: str = "") -> str:
    """Return the text behind the address of a frame: name, offset, mark, source line."""
    text = function if offset is None else f"{function} + {offset}"
    text += f" [{mark}]" if mark else ""
    return text + (f" ({file.rpartition('/')[2]}:{line})" if file and line else "")


def _renumbered(line: str, added: int, front: str) -> str:
    """Return a line of a frame whose number is greater by `added`; its columns stay, if there is room."""
    quoting = _QUOTED.match(front)
    start = quoting.end() if quoting else 0
    if not added or not (match := _NUMBER.match(line, start)):
        return line
    number = str(int(match[2]) + added)
    room = len(match[2]) + len(match[3])
    return f"{line[:start]}{match[1]}{number:<{max(room - 1, 0)}} {line[match.end() :]}"


def _body(line: str) -> str:
    match = _QUOTED.match(line)
    return line[match.end() if match else 0 :].rstrip("\r\n")


def _split_ending(line: str) -> tuple[str, str]:
    body = line.rstrip("\r\n")
    return body, line[len(body) :]
