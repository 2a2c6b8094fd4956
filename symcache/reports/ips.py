"""Crash reports in JSON (`.ips`, since macOS 12): an object that says what it is, and one that says what happened.

Source: Apple's "Interpreting the JSON format of a crash report", and reports of macOS 12 to 26. Early ones have lists
in the place of objects: frames `[image, offset]`, images `[uuid, base, source]`, registers as bare numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from symcache.errors import DumpError
from symcache.reports.document import Document, address_of, dict_of, strings_of, text_of
from symcache.reports.fields import arch_name
from symcache.reports.frames import frames_of
from symcache.reports.model import (
    ADDRESS_END,
    MAX_BACKTRACES,
    MAX_FRAMES,
    MAX_IMAGES,
    MAX_INFORMATION,
    MAX_NAME,
    MAX_TEXT,
    MAX_THREADS,
    Report,
    ReportFrame,
    ReportImage,
    ReportThread,
    exception_of,
    printable_lines,
    split_system,
    statements,
    uuid_of,
)
from symcache.reports.termination import Termination, exception_words, namespace_name
from symcache.text import counted

__all__ = ["frame_reader", "parse_ips"]

_MAX_BACKTRACE = 1 << 20
"""Characters."""
_MAX_SOURCE_LINE = 1 << 31
_SIGNAL = re.compile(r"SIG[A-Z0-9]{2,10}")
_BUILD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_CRASH = {"308": "a fault that the process survived", "385": "a limit that was crossed", "327": "too many threads"}
"""By their `bug_type`: reports with threads that are not of crashes."""
_SIMULATED, _NOT_FATAL = "SIMULATED (this is NOT a crash)", "NON-FATAL CONDITION (this is NOT a crash)"
"""As text reports have it."""
_MODIFICATIONS = (
    ("targeted", "thread_create", "Thread creation by external task."),
    ("targeted", "thread_set_state", "Debugger attached to process."),
    ("caller", "task_for_pid", "Process used task_for_pid()."),
)
_SAID = ("dyldMessages", "fatalDyldError", "vmRegionInfo", "vmregioninfo", "ktriageinfo")
"""Texts that say more of the cause; of those about memory, the first line does."""


def parse_ips(document: Document, name: str) -> Report:
    """Parse a JSON report that has images and threads; `name` stands in messages. Raises DumpError."""
    return _Reader(document, name).report()


def frame_reader(document: Document) -> Callable[[Any], ReportFrame | None]:
    """Return what reads a frame of a report, which refers to its images. Raises DumpError."""
    return _Reader(document, "the report").frame


class _Reader:
    """The two objects of a report, and what of them refers to each other."""

    def __init__(self, document: Document, name: str) -> None:
        self._head, self._body, self._bug_type = document.head, document.body, document.bug_type
        self._threads = [dict_of(thread) for thread in _listed(self._body, "threads", MAX_THREADS, name)]
        self._legacy = dict_of(self._body.get("legacyInfo"))
        extra = self._legacy.get("imageExtraInfo")
        extras = extra if isinstance(extra, list) else []
        self._images = [
            _image(image, dict_of(extras[number]) if number < len(extras) else {})
            for number, image in enumerate(_listed(self._body, "usedImages", MAX_IMAGES, name))
        ]
        self._left_out = 0
        """Frames that refer to no image."""

    def report(self) -> Report:
        """Return all that the report says."""
        body = self._body
        system, cache = dict_of(body.get("osVersion")), dict_of(body.get("sharedCache"))
        version, build = split_system(text_of(self._head.get("os_version")) or text_of(body.get("osVersion")))
        if _BUILD.fullmatch(stated := text_of(system.get("build"))):
            build = stated
        # Faults name no shared cache, but list it as an image.
        caches = [one for one in map(dict_of, body["usedImages"]) if one.get("source") == "S"]
        whole = caches[0] if len(caches) == 1 else {}
        crashed = self._crashed()
        executable = text_of(body.get("procPath")) or text_of(body.get("procName")) or text_of(self._head.get("name"))
        main = uuid_of(self._head.get("slice_uuid"))
        images = tuple(
            replace(image, path=executable) if main and image.uuid == main and not image.path else image
            for image in self._images
            if image.uuid or image.path  # else it is of frames in none
        )
        raised = dict_of(body.get("exception"))
        signal = _SIGNAL.search(text_of(raised.get("signal")))
        termination = _termination(dict_of(body.get("termination")))
        backtraces = body.get("asiBacktraces")
        threads = tuple(self._thread(number, thread, crashed) for number, thread in enumerate(self._threads))
        return Report(
            executable=executable,
            bundle_version=text_of(dict_of(body.get("bundleInfo")).get("CFBundleShortVersionString"))
            or text_of(self._head.get("app_version")),
            os_version=text_of(system.get("train")) or version,
            os_build=build,
            arch=arch_name(text_of(body.get("cpuType")))
            or next((arch for image in images if (arch := arch_name(image.arch))), "arm64"),
            exception=exception_of(
                signal[0] if signal else "",
                text_of(raised.get("type")),
                text_of(raised.get("subtype")),
                text_of(raised.get("codes")) or _codes(raised.get("rawCodes")),
                text_of(raised.get("message")),
            ),
            images=images,
            threads=threads,
            crashed_thread=crashed,
            registers={} if crashed is None else _registers(dict_of(self._threads[crashed].get("threadState"))),
            cache_uuid=uuid_of(cache.get("uuid")) or uuid_of(whole.get("uuid")),
            cache_base=address_of(cache.get("base")) or address_of(whole.get("base")),
            last_exception=tuple(self._frames(body.get("lastExceptionBacktrace"))),
            application_backtraces=tuple(
                frames
                for backtrace in (backtraces[:MAX_BACKTRACES] if isinstance(backtraces, list) else [])
                if (frames := tuple(self._backtrace(backtrace)))
            ),
            information=printable_lines(_information(body.get("asi"))),
            termination=termination,
            cause=statements(self._cause(termination)),
            notes=statements([*strings_of(body.get("reportNotes")), *self._notes(crashed)]),
        )

    def _crashed(self) -> int | None:
        """Return the position of the thread that the report blames, if it does."""
        faulting = self._body.get("faultingThread")
        if type(faulting) is int and 0 <= faulting < len(self._threads):
            return faulting
        highlighted = self._legacy.get("threadHighlighted")
        if type(highlighted) is int and 0 <= highlighted < len(self._threads):
            return highlighted
        return next((number for number, one in enumerate(self._threads) if one.get("triggered") is True), None)

    def _thread(self, number: int, thread: dict[str, Any], crashed: int | None) -> ReportThread:
        told = dict_of(self._legacy.get("threadTriggered")) if number == crashed else {}
        name, queue = (text_of(thread.get(key)) or text_of(told.get(key)) for key in ("name", "queue"))
        return ReportThread(number, name, queue, tuple(self._frames(thread.get("frames"))))

    def _backtrace(self, backtrace: Any) -> list[ReportFrame]:
        """Return an application-specific backtrace, which is text."""
        if isinstance(backtrace, str):
            return frames_of(backtrace[:_MAX_BACKTRACE].splitlines())
        return self._frames(backtrace)

    def _frames(self, frames: Any) -> list[ReportFrame]:
        read = [self.frame(frame) for frame in (frames[:MAX_FRAMES] if isinstance(frames, list) else [])]
        self._left_out += read.count(None)
        return [frame for frame in read if frame]

    def frame(self, frame: Any) -> ReportFrame | None:
        """Return a frame. Return None for one that refers to no image."""
        told = dict_of(frame)
        index, offset = frame[:2] if type(frame) is list and len(frame) > 1 else (told.get("imageIndex"), None)
        offset = address_of(told.get("imageOffset") if offset is None else offset)
        if type(index) is not int or not 0 <= index < len(self._images) or offset is None:
            return None
        image, line = self._images[index], told.get("sourceLine")
        known = type(line) is int and 0 < line < _MAX_SOURCE_LINE
        function = text_of(told.get("symbol"), MAX_NAME)
        return ReportFrame(
            ((image.address or 0) + offset) % ADDRESS_END,
            function,
            address_of(told.get("symbolLocation")) if function else None,  # which may be missing, too
            text_of(told.get("sourceFile")) if known else "",
            line if known else None,
            told.get("inline") is True,
            image.address if image.uuid or image.path else None,
            image.path.rpartition("/")[2],
        )

    def _cause(self, termination: Termination | None) -> Iterator[str]:
        body = self._body
        reason = dict_of(body.get("exceptionReason"))
        named = text_of(reason.get("name")) or text_of(reason.get("class"))
        composed = text_of(reason.get("composed_message")) or text_of(reason.get("format_string"))
        yield ": ".join(part for part in (named, composed) if part)
        if termination:
            yield from termination.words()
        raised = dict_of(body.get("exception"))
        codes = text_of(raised.get("codes")) or _codes(raised.get("rawCodes"))
        yield exception_words(codes, text_of(raised.get("type")))
        yield text_of(raised.get("message"))
        if self._bug_type in _NO_CRASH:
            yield f"no crash, but {_NO_CRASH[self._bug_type]}"
        if body.get("isSimulated") is True or "simulatedCaller" in body:
            caller = text_of(body.get("simulatedCaller"))
            yield _SIMULATED + (f" requested by {caller}" if caller else "")
        elif body.get("isNonFatal") is True:
            yield _NOT_FATAL
        for limit, value in dict_of(body.get("workQueueLimits")).items():
            if isinstance(value, str | int):
                yield f"{limit} Reached: {value}"
        for key in _SAID:
            said = [line for text in strings_of(body.get(key)) for line in text.strip().splitlines()]
            yield from said[:1] if key.lower() == "vmregioninfo" else said
        modified = dict_of(body.get("extMods"))
        for whose, what, words in _MODIFICATIONS if modified.get("warnings") else ():
            if dict_of(modified.get(whose)).get(what):
                yield words
        yield from strings_of(body.get("asiSignatures"))
        for output in dict_of(body.get("diagnosticOutput")).values():
            yield from strings_of(output)

    def _notes(self, crashed: int | None) -> Iterator[str]:
        faulting = self._body.get("faultingThread")
        if type(faulting) is int and crashed is None:
            yield f"thread {faulting}, which it blames, is not among those that it lists"
        if self._left_out:
            frames = counted(self._left_out, "frame that refers", "frames that refer")
            yield f"left out: {frames} to no image of the report"


def _listed(body: dict[str, Any], key: str, most: int, name: str) -> list[Any]:
    value = body.get(key)
    if not isinstance(value, list):
        return []
    if len(value) > most:
        raise DumpError(f"{name}: {len(value)} {key} where at most {most} were expected", hint="no process has so many")
    return value


def _codes(raw: Any) -> str:
    numbers = [address_of(one) for one in raw[:8]] if isinstance(raw, list) else []
    return ", ".join(f"{number:#018x}" for number in numbers if number is not None)


def _image(image: Any, extra: dict[str, Any]) -> ReportImage:
    """Return an image; `extra` is what early reports tell of it elsewhere."""
    if isinstance(image, list):
        image = dict(zip(("uuid", "base", "source"), image, strict=False))
    told = extra | dict_of(image)
    return ReportImage(
        address_of(told.get("base")),
        address_of(told.get("size")) or 0,
        text_of(told.get("path")) or text_of(told.get("name")),
        uuid_of(told.get("uuid")),
        text_of(told.get("arch")),
    )


def _information(asi: Any) -> Iterator[str]:
    """Yield the messages, which are by the image that left them."""
    for messages in dict_of(asi).values():
        for message in strings_of(messages):
            yield message[: MAX_INFORMATION * MAX_TEXT]


def _termination(told: dict[str, Any]) -> Termination | None:
    if not told:
        return None
    namespace, code, by = told.get("namespace"), told.get("code"), text_of(told.get("byProc"))
    pid = told.get("byPid")
    return Termination(
        namespace_name(str(namespace) if type(namespace) is int else text_of(namespace)),
        address_of(code),
        text_of(told.get("indicator")),
        statements([*strings_of(told.get("reasons")), *strings_of(told.get("details"))]),
        f"{by} [{pid}]" if by and type(pid) is int else by,
    )


def _registers(state: dict[str, Any]) -> dict[str, int]:
    numbered = state.get("x")
    values = {f"x{number}": one for number, one in enumerate(numbered[:29] if isinstance(numbered, list) else [])}
    values |= dict(list(state.items())[:64])
    plain = {name: one.get("value") if isinstance(one, dict) else one for name, one in values.items()}
    return {
        name: value
        for name, one in plain.items()
        if re.fullmatch(r"[a-z][a-z0-9]{1,5}", name) and (value := address_of(one)) is not None
    }
