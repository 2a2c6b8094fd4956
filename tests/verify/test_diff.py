"""What changed between two releases, and what clients still miss."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

import pytest

from symcache.errors import NotFoundError
from symcache.library import Library
from symcache.model import ManifestEntry, Origin, Trust
from symcache.verify import MissedRequest, diff_releases, missing_images
from tests.verify.releases import BUILD, CACHED, DYLD, OTHER_BUILD, Workshop

PLAIN, MORE = "/usr/lib/libplain.dylib", "/usr/lib/libmore.dylib"
STRANGER = UUID(int=99)


def test_changed_images_differ_in_uuid_and_unchanged_ones_do_not(harvested_twice: Path) -> None:
    with Library.open(harvested_twice) as library:
        diff = diff_releases(library, OTHER_BUILD, BUILD)
    assert (diff.added, diff.removed) == ([], [])
    # In each of three caches every image but libplain was rebuilt; on disk both slices of dyld.
    changed = {(d.path, d.cache) for d in diff.changed if d.family == "system"}
    assert changed == {(p, a) for p in CACHED if p != PLAIN for a in ("arm64e", "x86_64", "x86_64h")}
    assert {(d.path, d.cache) for d in diff.changed if d.family == "files"} == {(DYLD, "x86_64"), (DYLD, "arm64")}
    assert diff.same == 3 + 1
    workshop = Workshop(harvested_twice)
    for d in diff.changed:
        if (d.path, d.cache) == (MORE, "arm64e"):
            assert d.before == (workshop.object(MORE, "arm64e", OTHER_BUILD).uuid,)
            assert d.after == (workshop.object(MORE, "arm64e").uuid,)


def test_images_come_and_go(workshop: Workshop, harvested_twice: Path, tmp_path: Path) -> None:
    shutil.copytree(harvested_twice, tmp_path / "two")
    two = Workshop(tmp_path / "two")
    two.change_manifest(lambda m: [e for e in m if e.path != PLAIN])
    with two.open() as library:
        forth, back = diff_releases(library, OTHER_BUILD, BUILD), diff_releases(library, BUILD, OTHER_BUILD)
    assert {(d.path, d.cache) for d in forth.removed} == {(PLAIN, a) for a in ("arm64e", "x86_64", "x86_64h")}
    assert back.added == [type(d)(d.family, d.cache, d.path, d.arch, d.kind, d.after, d.before) for d in forth.removed]


def test_an_image_may_have_no_uuid_in_one_of_them(harvested_twice: Path, tmp_path: Path) -> None:
    shutil.copytree(harvested_twice, tmp_path / "two")
    two = Workshop(tmp_path / "two")
    uuid = two.object("/usr/bin/tool", "x86_64", cached=False).uuid
    two.change_manifest(lambda m: [e.model_copy(update={"uuid": None}) if e.path == "/usr/bin/tool" else e for e in m])
    with two.open() as library:
        diff = diff_releases(library, OTHER_BUILD, BUILD)
    assert [(d.before, d.after) for d in diff.changed if d.path == "/usr/bin/tool"] == [((uuid,), ())]


def test_an_unknown_build_is_said_so(harvested: Path) -> None:
    with Library.open(harvested) as library, pytest.raises(NotFoundError, match="22G1"):
        diff_releases(library, BUILD, "22G1")


def test_what_was_pushed_lists_nothing_to_compare(workshop: Workshop) -> None:
    workshop.rewrite(lambda r: r.model_copy(update={"trust": Trust.PUSHED}))
    with workshop.open() as library, pytest.raises(NotFoundError, match="nothing of it was harvested"):
        diff_releases(library, BUILD, BUILD)


def test_the_missing_images_drops_what_came_since_and_adds_up_the_rest(harvested: Path) -> None:
    have = Workshop(harvested).object(PLAIN, "x86_64").uuid
    assert have
    log = [
        MissedRequest(have, "executable", 50, "libplain.dylib"),
        MissedRequest(have, "breakpad", 40, "libplain.dylib"),
        MissedRequest(have, "meta", 30, "libplain.dylib"),
        MissedRequest(have, "debuginfo", 2, "libplain.dylib"),
        MissedRequest(STRANGER, "executable", 3, "libmore.dylib", first_asked="2026-11-02", last_asked="2026-11-03"),
        MissedRequest(STRANGER, "executable", 4, "", "22G91", first_asked="2026-11-01", last_asked="2026-11-02"),
    ]
    with Library.open(harvested) as library:
        wanted = missing_images(library, log)
    assert [(w.request.uuid, w.request.kind, w.request.times, w.request.name) for w in wanted] == [
        (STRANGER, "executable", 7, "libmore.dylib"),
        (have, "debuginfo", 2, "libplain.dylib"),
    ]
    assert (wanted[0].request.first_asked, wanted[0].request.last_asked) == ("2026-11-01", "2026-11-03")
    assert wanted[0].build == "22G91"
    assert "not here" in wanted[0].hint
    assert "dSYM" in wanted[1].hint


def test_neighbours_are_known_by_name(harvested: Path, harvested_twice: Path) -> None:
    with Library.open(harvested) as library:
        (near,) = missing_images(library, [MissedRequest(STRANGER, "executable", 2, "libmore.dylib")])
    assert near.hint.startswith(f"{BUILD} has another libmore.dylib:")
    with Library.open(harvested_twice) as library:
        known, *unknown = missing_images(
            library,
            [
                MissedRequest(STRANGER, "executable", 2, "libmore.dylib"),
                *(MissedRequest(UUID(int=n), "executable", 1, name) for n, name in enumerate(("Notes", "lib*", ""))),
            ],
        )
    assert f"{OTHER_BUILD} to {BUILD}" in known.hint
    assert ["program of your own" in wanted.hint for wanted in unknown] == [True, True, True]


def test_a_pinned_shared_cache_tells_its_release(harvested: Path) -> None:
    cache = Workshop(harvested).object(PLAIN, "arm64e").cache_uuid
    with Library.open(harvested) as library:
        known, unknown = missing_images(
            library,
            [
                MissedRequest(STRANGER, "executable", 2, "libmore.dylib", cache_uuid=cache),
                MissedRequest(UUID(int=98), "executable", 1, "libmore.dylib", cache_uuid=UUID(int=97)),
            ],
        )
    assert known.build == BUILD
    assert "which is here, but lacks it" in known.hint
    assert (unknown.build, "no harvest has seen" in unknown.hint) == ("", True)


def test_what_a_harvest_saw_but_could_not_store_is_known_for_certain(workshop: Workshop) -> None:
    cache = workshop.object(PLAIN, "arm64e").cache_uuid
    lost = ManifestEntry(
        path="/usr/lib/liblost.dylib", arch="arm64e", uuid=STRANGER, origin=Origin.CACHE, cache_uuid=cache
    )
    workshop.change_manifest(lambda m: [*m, lost])
    with workshop.open() as library:
        (wanted,) = missing_images(library, [MissedRequest(STRANGER, "executable", 1)])
    assert wanted.build == BUILD
    assert "/usr/lib/liblost.dylib" in wanted.hint
