"""What was harvested, added and pushed under one UUID: which of it may answer, be it asked for a binary or a dSYM."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from symcache.images import ImageRequest
from symcache.library import Library, ingest, prefer
from symcache.model import Kind, Trust
from tests.library.images import Image, harvest

A, CACHE, OTHER_CACHE = UUID(int=1), UUID(int=0xC1), UUID(int=0xC2)


def _put(library: Library, folder: Path, trust: Trust, image: Image, build: str | None = None) -> str:
    name = f"{trust}-{image.kind}-{build}"
    ingest(library, harvest(folder / name, [image], trust=trust, build=build))
    return hashlib.sha256(image.data).hexdigest()


def _image(kind: Kind, seed: int, *, cache: int | None = None) -> Image:
    more = {"cache": cache, "extractor": "symcache", "revision": 1} if cache else {}
    return Image("/usr/lib/a", 1, seed=seed, kind=kind, **more)  # type: ignore[arg-type]


def _told(library: Library, kind: Kind, **pins: object) -> str | None:
    found = library.resolve(ImageRequest(A, kind, **pins), or_unbound=bool(pins))  # type: ignore[arg-type]
    return found.sha256 if found else None


PINS: list[dict[str, object]] = [{}, {"cache": CACHE}, {"cache": OTHER_CACHE}, {"build": "22G120"}, {"build": "23A1"}]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("lower", [Trust.ADDED, Trust.PUSHED])
@pytest.mark.parametrize("kind", list(Kind))
def test_own_files_tell_nothing_of_what_was_harvested(
    local: Library, tmp_path: Path, kind: Kind, lower: Trust, order: Sequence[int]
) -> None:
    """The other kind is there under the same UUID from a harvest; pins make no difference."""
    (other,) = set(Kind) - {kind}
    in_cache = 0xC1 if other is Kind.EXECUTABLE else None
    shas = {}
    for number in order:
        if number:
            _put(local, tmp_path, lower, _image(kind, 2))
        else:
            shas[other] = _put(local, tmp_path, Trust.HARVEST, _image(other, 1, cache=in_cache), "22G120")
    for pins in PINS:
        assert _told(local, kind, **pins) is None, pins
    assert _told(local, other) == shas[other]


def test_what_is_in_no_cache_and_of_no_release_has_a_say_under_every_pin(local: Library, tmp_path: Path) -> None:
    assert not any(local.has_a_say(ImageRequest(A, **pins)) for pins in PINS)  # type: ignore[arg-type]
    _put(local, tmp_path, Trust.ADDED, _image(Kind.DEBUGINFO, 1))
    assert all(local.has_a_say(ImageRequest(A, **pins)) for pins in PINS)  # type: ignore[arg-type]


def test_a_dsym_may_be_pushed_for_a_binary_that_was_added(local: Library, tmp_path: Path) -> None:
    binary = _put(local, tmp_path, Trust.ADDED, _image(Kind.EXECUTABLE, 1))
    dsym = _put(local, tmp_path, Trust.PUSHED, _image(Kind.DEBUGINFO, 2))
    _put(local, tmp_path, Trust.PUSHED, _image(Kind.EXECUTABLE, 3))
    for pins in PINS:
        assert (_told(local, Kind.EXECUTABLE, **pins), _told(local, Kind.DEBUGINFO, **pins)) == (binary, dsym)


@pytest.mark.parametrize("trust", list(Trust))
def test_of_one_trust_binary_and_dsym_go_together(local: Library, tmp_path: Path, trust: Trust) -> None:
    build = "22G120" if trust is Trust.HARVEST else None
    shas = {kind: _put(local, tmp_path, trust, _image(kind, n), build) for n, kind in enumerate(Kind)}
    for pins in ({}, {"cache": CACHE}, {"build": "22G120"}):
        assert {kind: _told(local, kind, **pins) for kind in Kind} == shas, pins


def test_a_dsym_of_the_harvest_answers_under_the_pins_of_its_binary(local: Library, tmp_path: Path) -> None:
    binary = _put(local, tmp_path, Trust.HARVEST, _image(Kind.EXECUTABLE, 1, cache=0xC1), "22G120")
    dsym = _put(local, tmp_path, Trust.HARVEST, _image(Kind.DEBUGINFO, 2), "22G120")
    _put(local, tmp_path, Trust.PUSHED, _image(Kind.DEBUGINFO, 3))
    _put(local, tmp_path, Trust.ADDED, _image(Kind.DEBUGINFO, 4))
    for pins in ({}, {"cache": CACHE}, {"build": "22G120"}):
        assert (_told(local, Kind.EXECUTABLE, **pins), _told(local, Kind.DEBUGINFO, **pins)) == (binary, dsym)
    assert _told(local, Kind.EXECUTABLE, build="23A1") is None


def test_an_imported_release_answers_for_itself_and_for_no_harvest(local: Library, tmp_path: Path) -> None:
    """An unchanged image, harvested with one release and imported with another, as from a share of an earlier tool."""
    harvested = _put(local, tmp_path, Trust.HARVEST, _image(Kind.EXECUTABLE, 1, cache=0xC1), "22G120")
    imported = _put(local, tmp_path, Trust.ADDED, _image(Kind.EXECUTABLE, 2), "23A1")
    assert _told(local, Kind.EXECUTABLE) == harvested
    assert _told(local, Kind.EXECUTABLE, build="22G120") == harvested
    assert _told(local, Kind.EXECUTABLE, build="23A1") == imported
    assert _told(local, Kind.EXECUTABLE, cache=OTHER_CACHE) is None


def test_a_person_may_decide_otherwise(local: Library, tmp_path: Path) -> None:
    binary = _put(local, tmp_path, Trust.HARVEST, _image(Kind.EXECUTABLE, 1, cache=0xC1), "22G120")
    dsym = _put(local, tmp_path, Trust.ADDED, _image(Kind.DEBUGINFO, 2))
    _put(local, tmp_path, Trust.PUSHED, _image(Kind.DEBUGINFO, 3))
    assert _told(local, Kind.DEBUGINFO) is None
    prefer(local, A, dsym)
    for pins in ({}, {"cache": CACHE}):
        assert (_told(local, Kind.EXECUTABLE, **pins), _told(local, Kind.DEBUGINFO, **pins)) == (binary, dsym)


def test_notes_of_a_dsym_that_does_not_answer_are_not_told(local: Library, tmp_path: Path) -> None:
    noted = Image("/usr/lib/a", 1, kind=Kind.DEBUGINFO, seed=2, sources=[("/Users/ci", "/pushed")])
    _put(local, tmp_path, Trust.PUSHED, noted)
    assert local.sources([A]) == {A: [("/Users/ci", "/pushed")]}
    _put(local, tmp_path, Trust.HARVEST, _image(Kind.EXECUTABLE, 1), "22G120")
    assert local.sources([A]) == {}
