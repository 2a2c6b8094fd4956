"""What counts as a difference: names in the forms that `atos` prints, and pointers in those of shared caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.extraction import compare_batch
from tests.acceptance.stand_in.extract_cache import extract_as_apple
from tests.acceptance.symbol_names import Name, atos_name, judge
from tests.dyld.macho_reader import read
from tests.support.apple import apple_caches


@pytest.mark.parametrize(
    ("line", "name", "start"),
    [
        ("malloc (in libsystem_malloc.dylib) + 12", "malloc", 0x1000 - 12),
        ("malloc (in libsystem_malloc.dylib)", "malloc", 0x1000),
        ("-[NSArray(Extra) first:] (in Foundation) + 4", "-[NSArray(Extra) first:]", 0x1000 - 4),
        ("(anonymous namespace)::f(int (*)(int)) (in libx.dylib) + 8", "(anonymous namespace)::f(int (*)(int))", 0xFF8),
        ("closure #1 in Book.sort(by:) (in Ledger) (Book.swift:12)", "closure #1 in Book.sort(by:)", None),
        ("main (in Ledger) (<compiler-generated>:0)", "main", None),
        ("0x0000000180001000 (in libx.dylib)", None, None),
        ("0x1000", None, None),
        ("0x1000 (in libx.dylib) + 4096", None, None),
    ],
)
def test_atos_is_read_in_each_of_its_forms(line: str, name: str | None, start: int | None) -> None:
    assert atos_name(line, 0x1000) == (name and Name(name, "", start))


KNOWN = {0x10: {"malloc", "malloc_again"}, 0x20: {"_ZN1a1bEv"}}


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        (None, None, "no name at all"),
        (None, Name("malloc", "", 0x10), "no name here"),
        (Name("malloc", "_malloc", 0x10), None, "no name there"),
        (Name("malloc", "_malloc", 0x10), Name("malloc", "", 0x10), "same"),
        (Name("malloc", "_malloc", 0x10), Name("malloc", "", None), "same"),
        (Name("malloc", "_malloc", 0x10), Name("malloc", "", 0x8), "another function"),
        (Name("malloc", "_malloc", 0x10), Name("free", "", 0x8), "another function"),
        (Name("malloc", "_malloc", 0x10), Name("malloc_again", "", 0x10), "alias"),
        (Name("malloc", "_malloc", 0x10), Name("free", "", 0x10), "another name"),
        (Name("a::b()", "__ZN1a1bEv", 0x20), Name("a::b", "", 0x20), "spelling"),
    ],
)
def test_names_are_held_against_each_other(ours: Name | None, theirs: Name | None, word: str) -> None:
    assert judge(ours, theirs, KNOWN) == word


@pytest.mark.parametrize("layout", ["x86_64-split", "arm64e-ios-universal", "arm64e-split"])
def test_pointers_in_a_caches_form_are_no_difference(layout: str, tmp_path: Path) -> None:
    """Slide info 2, 3 and 5."""
    main = next(f for f in sorted((apple_caches() / layout).glob("dyld_shared_cache_*")) if "." not in f.name)
    apples = tmp_path / "apples"
    extract_as_apple(main, apples, set())
    compared = compare_batch((main, apples, tmp_path, list(range(11))))
    assert [(image["image"], found) for image, found in compared if found] == []
    images = [image["image"] for image, _ in compared]
    with_data = next(
        n for n, path in enumerate(images) if "__DATA" in {s.name for s in read(apples / path[1:]).segments}
    )
    file = apples / images[with_data][1:]
    written, segment = bytearray(file.read_bytes()), read(file).segment("__DATA")
    written[segment.fileoff] ^= 0x10  # of the first pointer
    file.write_bytes(written)
    ((_, found),) = compare_batch((main, apples, tmp_path, [with_data]))
    assert found == [("bytes differ", {"segment": "__DATA", "words": 1, "first_offset": 0})]
