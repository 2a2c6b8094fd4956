"""Crash reports with named frames: names come from a `Namer` that knows the images, or from the report itself."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

from symcache.reports import Report, ReportFrame, physical_frames
from symcache.symbolicate.image_names import call_offsets
from symcache.symbolicate.model import Location
from symcache.symbolicate.named_frames import NamedFrame, PhysicalFrame, named_frames

__all__ = [
    "ModuleNames",
    "ModuleOffsets",
    "NamedReport",
    "Namer",
    "is_trampoline",
    "name_report",
]

_UNKNOWN_SIZE = 16 << 20
"""Bytes of an image's code, where neither the report nor a next image bounds it."""
_ADDRESS_BITS = (1 << 47) - 1
"""Of arm64: above them may be a pointer authentication code."""
_OFFSETS = 1 << 32


@dataclass(frozen=True, slots=True)
class ModuleOffsets:
    """Places in one image whose names are wanted."""

    uuid: UUID | None
    name: str
    """Of its file, without folders."""
    path: str
    arch: str
    offsets: npt.NDArray[np.int64]
    """From the image's header, distinct; of return addresses, of the calls before them."""


@dataclass(frozen=True, slots=True)
class ModuleNames:
    """What is known of them, one by one."""

    locations: Sequence[Location | None]
    found: bool
    """Whether there is a file of that image, even if it names nothing."""
    problem: str = ""
    """Why names may exist, but cannot be had now."""


class Namer(Protocol):
    """Whoever knows images: from files on this machine, by a server, or inside one."""

    def look_up(self, modules: Sequence[ModuleOffsets]) -> list[ModuleNames]:
        """Return what is known of each of these modules, in their order. Raises SymcacheError."""
        ...


@dataclass(frozen=True)
class NamedReport:
    """A report, and the names of its frames."""

    report: Report
    used: Mapping[int, bool]
    """The images that frames are in, by their number in the report: whether there is a file of each."""
    _places: _Places = field(repr=False, compare=False)

    @cached_property
    def threads(self) -> tuple[tuple[NamedFrame, ...], ...]:
        """The frames of each thread of the report, which has their numbers, names and queues."""
        return tuple(self._named(thread.frames, thrown=False) for thread in self.report.threads)

    @cached_property
    def last_exception(self) -> tuple[NamedFrame, ...]:
        """As of the report."""
        return self._named(self.report.last_exception, thrown=True)

    @cached_property
    def application_backtraces(self) -> tuple[tuple[NamedFrame, ...], ...]:
        """As of the report."""
        return tuple(self._named(frames, thrown=True) for frames in self.report.application_backtraces)

    def _named(self, frames: Sequence[ReportFrame], *, thrown: bool) -> tuple[NamedFrame, ...]:
        return tuple(named_frames(self.physical_frames(frames, thrown=thrown), self.report.images))

    @property
    def counts(self) -> tuple[int, int]:
        """Of how many places something is known, and how many there are, each once."""
        known = self._places.known
        return sum(location is not None for location in known.values()), len(known)

    def physical_frames(self, frames: Iterable[ReportFrame], *, thrown: bool) -> Iterator[PhysicalFrame]:
        """Yield the addresses of one of the report's stacks.

        `thrown`: all of them are return addresses, as of an exception's backtrace.
        """
        for group, place in self._places.walk(frames, thrown=thrown):
            if place is None:
                yield PhysicalFrame(group, None, 0, None)
            else:
                offset = place.address - self.start_of(place.image)
                yield PhysicalFrame(group, place.image, offset, self._places.known.get(place))

    def start_of(self, image: int) -> int:
        """Return the address of an image of the report."""
        return self._places.starts[image]


class _Place(NamedTuple):
    image: int
    address: int
    call: bool
    """What is looked up is the call before the address."""


class _Places:
    """Which images the addresses of a report are in, and what is known of them."""

    def __init__(self, report: Report) -> None:
        images = [(image.address, n) for n, image in enumerate(report.images) if image.address is not None]
        self.starts = {number: address for address, number in images}
        self.known: dict[_Place, Location | None] = {}
        self._mask = _ADDRESS_BITS if report.arch.startswith("arm64") else (1 << 64) - 1
        self._at = dict(images)
        self._sorted = sorted(self._at.items())
        self._addresses = [address for address, _ in self._sorted]
        self._sizes = {number: report.images[number].size for number in self.starts}

    def walk(self, frames: Iterable[ReportFrame], *, thrown: bool) -> Iterator[tuple[list[ReportFrame], _Place | None]]:
        """Yield the frames of a stack, each behind those inlined into it, with what has to be looked up for it."""
        exact = not thrown  # the program counter, and what a signal interrupted, are no return addresses
        for group in physical_frames(frames):
            place = self._place(group[-1], call=not exact)
            yield group, place
            location = self.known.get(place) if place else None
            exact = is_trampoline(group[-1].function) or (
                location is not None and is_trampoline(location.calls[-1].function)
            )

    def _place(self, frame: ReportFrame, *, call: bool) -> _Place | None:
        address = frame.address
        image = self._at.get(frame.base) if frame.base is not None else None
        if image is None and frame.base is None:
            address = frame.address & self._mask
            image = self._covering(address)
        return None if image is None else _Place(image, address, call)

    def _covering(self, address: int) -> int | None:
        position = bisect.bisect_right(self._addresses, address) - 1
        if position < 0:
            return None
        start, image = self._sorted[position]
        end = start + (self._sizes[image] or _UNKNOWN_SIZE)
        return image if address < end else None

    def missing(self, stacks: Sequence[tuple[Sequence[ReportFrame], bool]]) -> dict[int, list[_Place]]:
        """Return what has not been looked up yet, by image."""
        places: dict[int, dict[_Place, None]] = {}
        for frames, thrown in stacks:
            for _, place in self.walk(frames, thrown=thrown):
                if place is not None and place not in self.known:
                    places.setdefault(place.image, {})[place] = None
        return {image: list(wanted) for image, wanted in places.items()}


def name_report(report: Report, namer: Namer) -> NamedReport:
    """Name the frames of a report; the names that it has itself stay where no more is known. Raises SymcacheError."""
    places = _Places(report)
    stacks: list[tuple[Sequence[ReportFrame], bool]] = [(thread.frames, False) for thread in report.threads]
    stacks += [(frames, True) for frames in (report.last_exception, *report.application_backtraces)]
    used: dict[int, bool] = {}
    for _ in range(2):
        if wanted := places.missing(stacks):
            _look_up(report, namer, places, wanted, used)
        # What lies below a signal trampoline that had no name before is another place now.
        if not any(location and is_trampoline(location.calls[-1].function) for location in places.known.values()):
            break
    return NamedReport(report, used, places)


def is_trampoline(function: str) -> bool:
    """Return whether a function is what a signal's handler returns to: the frame below it was interrupted, no call."""
    return function.lstrip("_") == "sigtramp"


def _look_up(
    report: Report, namer: Namer, places: _Places, wanted: Mapping[int, list[_Place]], used: dict[int, bool]
) -> None:
    modules, orders = [], []
    for number, of_image in wanted.items():
        image = report.images[number]
        arch = image.arch or report.arch
        # Numbers of 64 bits wrap; what is no offset is thrown away below.
        apart = [place.address - places.starts[number] for place in of_image]
        offsets = np.array([offset if 0 <= offset < _OFFSETS else -1 for offset in apart], np.int64)
        calls = np.array([place.call for place in of_image])
        if arch and calls.any():
            offsets[calls] = call_offsets(offsets[calls], arch)
        distinct, order = np.unique(offsets, return_inverse=True)
        name = image.path.rpartition("/")[2]
        modules.append(ModuleOffsets(image.uuid, name, image.path, arch, distinct))
        orders.append(order)
    for (number, of_image), order, names in zip(wanted.items(), orders, namer.look_up(modules), strict=True):
        used[number] = used.get(number, False) or names.found
        for place, position in zip(of_image, order.tolist(), strict=True):
            places.known[place] = names.locations[position]
