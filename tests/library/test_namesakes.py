"""Systems that Apple gave one build number: the iPhones' iOS 18.0 and its simulator are both 22A3351."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from symcache.errors import NotFoundError, UsageError
from symcache.library import (
    Library,
    export_device_support,
    export_raw_caches,
    ingest,
    plan_removal,
    reextract,
    removals,
    remove_build,
    undo_removal,
)
from symcache.model import ReleaseId, canonical_product
from tests.library.images import Image, harvest

BUILD = "22A3351"
DEVICE, SIMULATOR = f"iOS:{BUILD}", f"iOS simulator:{BUILD}"
KIT = "/System/Library/Frameworks/UIKit.framework/UIKit"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """A whole harvest of a device's libraries, half a simulator of the same build, and that of a Mac beside."""
    with Library.open(tmp_path / "library", create=True) as library:
        device = [Image(KIT, 1, cache=9), Image("/usr/lib/libc.dylib", 2, cache=9), Image("/usr/lib/dyld", 3)]
        simulator = [Image(KIT, 11, cache=8), Image("/usr/lib/dyld", 3)]
        build, version = BUILD, "18.0"
        ingest(library, harvest(tmp_path / "1", device, build=build, version=version, product="iOS"))
        lost = [Image("/usr/lib/libc.dylib", 12, cache=8)]
        of = {"product": "iOS simulator", "source": "runtime", "raw": [("sim", 8, b"raw")]}
        ingest(library, harvest(tmp_path / "2", simulator, build=build, version=version, lost=lost, **of))  # type: ignore[arg-type]
        ingest(library, harvest(tmp_path / "3", [Image("/usr/lib/dyld", 4)]))
        yield library


def test_each_is_a_release_of_its_own(library: Library) -> None:
    rows = {r.name: (r.product, r.sealed, r.harvests, r.images, r.listed) for r in library.releases()}
    assert rows == {
        DEVICE: ("iOS", True, 1, 3, 3),
        SIMULATOR: ("iOS simulator", False, 1, 2, 3),
        "22G120": ("macOS", True, 1, 1, 1),
    }


def test_a_build_that_may_mean_either_means_neither(library: Library) -> None:
    def refused(verb: Callable[[Library, str], object]) -> None:
        with pytest.raises(UsageError, match=f"^{BUILD}: is a build of iOS and of iOS simulator$") as raised:
            verb(library, BUILD)
        assert raised.value.hint == f"name the one that is meant: {DEVICE}, '{SIMULATOR}'"

    for verb in (remove_build, reextract, lambda of, name: plan_removal(of, [name])):
        refused(verb)
    remove_build(library, DEVICE)
    remove_build(library, SIMULATOR)
    refused(undo_removal)


def test_one_is_taken_back_and_brought_back_without_the_other(library: Library) -> None:
    assert len(remove_build(library, SIMULATOR)) == 1
    assert [str(r.release) for r in removals(library)] == [SIMULATOR]
    assert [r.name for r in library.releases()] == [BUILD, "22G120"]
    with pytest.raises(NotFoundError):
        remove_build(library, SIMULATOR)
    assert [(r.product, r.build) for r in undo_removal(library, SIMULATOR)] == [("iOS simulator", BUILD)]
    assert len(library.releases()) == 3


def test_what_is_exported_is_of_one_of_them(library: Library, tmp_path: Path) -> None:
    (folder,) = export_device_support(library, DEVICE.lower().replace("22a", "22A"), tmp_path).folders
    assert folder == tmp_path / f"iOS DeviceSupport/18.0 ({BUILD}) arm64e"
    assert (folder / f"Symbols{KIT}").read_bytes() == Image(KIT, 1).data
    assert (folder / ".finalized").exists(), "nothing that it lists is missing"
    with pytest.raises(NotFoundError, match="no raw shared cache"):
        export_raw_caches(library, DEVICE, tmp_path / "raw")


def test_a_harvest_takes_nothing_over_of_the_other(library: Library, tmp_path: Path) -> None:
    """Even one of the same place: a folder's content was replaced by another system's."""
    whole = [Image(KIT, 11, cache=8), Image("/usr/lib/libc.dylib", 12, cache=8), Image("/usr/lib/dyld", 3)]
    of = {"build": BUILD, "version": "18.0", "source": "runtime"}
    assert ingest(library, harvest(tmp_path / "4", whole, product="tvOS", **of)).supersedes == ()  # type: ignore[arg-type]
    again = ingest(library, harvest(tmp_path / "5", whole, product="iOS simulator", **of))  # type: ignore[arg-type]
    assert len(again.supersedes) == 1


@pytest.mark.parametrize(
    ("told", "product"),
    [
        *(("Mac OS X", "macOS"), ("iPhone OS", "iOS"), ("Watch OS", "watchOS"), ("Apple TVOS", "tvOS")),
        *(("xrOS simulator", "visionOS simulator"), ("iPadOS", "iPadOS"), ("unknown system", "unknown system")),
    ],
)
def test_systems_have_one_name(told: str, product: str) -> None:
    assert canonical_product(told) == product
    assert ReleaseId(product, BUILD).is_meant_by(f"{told}:{BUILD}")


def test_one_system_of_several_names_is_one(library: Library, tmp_path: Path) -> None:
    """SystemVersion.plist of an iPhone calls it so; Xcode's folders and caches do not."""
    ingest(library, harvest(tmp_path / "4", [Image("/bin/ls", 5)], build=BUILD, version="18.0", product="iPhone OS"))
    row = next(r for r in library.releases() if r.name == DEVICE)
    assert (row.harvests, row.images) == (2, 4)
    assert library.release_id(f"iPhone OS:{BUILD}") == row.id
