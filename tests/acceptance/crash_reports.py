"""Reports of real crashes, read where they are, and the names that macOS gave their frames, against ours.

Nothing of a report is kept: they are counted, and a frame that differs is named by image and offset, if the image is
the system's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from symcache.errors import DumpError
from symcache.images import ImageRequest
from symcache.library import Library
from symcache.model import Kind, uuid_text
from symcache.reports import Report, ReportFrame, ReportImage, physical_frames, read_report
from tests.acceptance.mac import Mac
from tests.acceptance.names import AGAINST_US
from tests.acceptance.part import Part, SkippedError
from tests.acceptance.symbol_names import Name, judge, our_names, symbols_at
from tests.dyld.macho_reader import read

__all__ = ["crash_reports"]

_FOLDERS = "Library/Logs/DiagnosticReports"
_MANY = 200
_SYSTEM = ("/System/", "/usr/lib/")


def crash_reports(mac: Mac, part: Part) -> None:
    """Each report by itself: that it can be read, and what its frames are called."""
    frames: dict[UUID, dict[tuple[int, ReportFrame], ReportImage]] = {}
    for path in _reports(mac):
        try:
            report = read_report(path)
        except DumpError as error:
            # Of other kinds than crashes, which are refused by name.
            kind = "is no crash" if ", not the report of a crash" in str(error) else "not read"
            part.count(kind)
            part.check(kind == "is no crash", "a report cannot be read", form=path.suffix)
            continue
        part.check(bool(report.threads), "a report without threads", form=path.suffix)
        part.count("reports")
        for image, offset, frame in _system_frames(report):
            frames.setdefault(image.uuid or UUID(int=0), {})[offset, frame] = image
    if not mac.libraries:
        raise SkippedError("no release was harvested to name frames with", "run the part `harvests` before it")
    for library in mac.libraries.values():
        with Library.open(library) as opened:
            for uuid in [u for u in frames if u.int]:
                with part.optional("an image"):
                    _compare(mac, part, opened, uuid, frames[uuid])


def _reports(mac: Mac) -> list[Path]:
    folders = [mac.home / _FOLDERS, mac.at(f"/{_FOLDERS}")]
    found: list[Path] = []
    for folder in folders:
        try:
            found += [p for p in folder.iterdir() if p.suffix in {".ips", ".crash"}]
        except FileNotFoundError:
            continue
        except PermissionError as error:
            todo = "grant Full Disk Access to the terminal: System Settings > Privacy & Security > Full Disk Access"
            raise SkippedError(f"{_FOLDERS} may not be listed", todo) from error
    if not found:
        raise SkippedError(f"no report is in {_FOLDERS}", "let a program crash first: the part is for real reports")
    return sorted(found, key=lambda p: p.stat().st_mtime)[-_MANY:]


def _system_frames(report: Report) -> Iterator[tuple[ReportImage, int, ReportFrame]]:
    """Yield each frame in an image of the system that macOS has named: image, offset to look up, frame."""
    for thread in report.threads:
        for depth, group in enumerate(physical_frames(thread.frames)):
            frame = group[-1]
            image = next(
                (i for i in report.images if i.address is not None and i.address <= frame.address < i.address + i.size),
                None,
            )
            if image is None or image.address is None or not image.path.startswith(_SYSTEM) or not frame.function:
                continue
            # Below the top, what is kept is the address behind a call.
            called = 0 if depth == 0 else 4 if report.arch.startswith("arm") else 1
            yield image, frame.address - image.address - called, frame


def _compare(
    mac: Mac, part: Part, library: Library, uuid: UUID, frames: dict[tuple[int, ReportFrame], ReportImage]
) -> None:
    found = library.resolve(ImageRequest(uuid, Kind.EXECUTABLE))
    if found is None:
        return
    with TemporaryDirectory(prefix="report-", dir=mac.work) as folder:
        file = Path(folder) / "image"
        library.materialize(found.sha256, found.size, file)
        names = our_names(mac, file, uuid, [offset for offset, _ in frames])
        known = symbols_at(read(file))
    for ((offset, frame), listed), ours in zip(frames.items(), names, strict=True):
        at = frame.address - (listed.address or 0)
        theirs = Name(frame.function, "", None if frame.offset is None else at - frame.offset)
        kind = judge(ours, theirs, known)
        part.count(kind)
        part.check(kind not in AGAINST_US, kind, image=listed.path, uuid=uuid_text(uuid), offset=offset)
