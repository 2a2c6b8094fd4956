"""Slide info and tries of any content: what the writer encodes, the plain reader decodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cachewriter.fixups import Auth
from tests.cachewriter.plainreader import trie, uleb
from tests.cachewriter.plainslide import decode
from tests.cachewriter.slide import Pointer, SlideOptions, encode
from tests.cachewriter.trie import trie_bytes, uleb_bytes

BASE64, BASE32 = 0x180000000, 0x1A000000
PAGES = 3
KINDS = {
    "v1-32": SlideOptions(1, BASE32, 4, 0x1000, 0, 0),
    "v1-64": SlideOptions(1, BASE64, 8, 0x1000, 0, 0),
    "v2": SlideOptions(2, BASE64, 8, 0x1000, 0x00FFFF0000000000, BASE64),
    "v2-no-add": SlideOptions(2, BASE64, 8, 0x4000, 0x00FFFF0000000000, 0),
    "v2-high-mask": SlideOptions(2, BASE64, 8, 0x1000, 0xFFFF000000000000, BASE64),
    "v2-armv7s": SlideOptions(2, BASE32, 4, 0x1000, 0xE0000000, BASE32),
    "v3": SlideOptions(3, BASE64, 8, 0x1000, 0, BASE64),
    "v4": SlideOptions(4, BASE32, 4, 0x1000, 0xC0000000, BASE32),
    "v5": SlideOptions(5, BASE64, 8, 0x4000, 0, BASE64),
}


@st.composite
def pointers(draw: st.DrawFn, options: SlideOptions) -> list[Pointer]:
    # Unaligned pointers of 8 bytes may stand at multiples of 4 where deltas count words, but not across pages.
    unit = 8 if options.version in (3, 5) else 4
    size = PAGES * options.page_size
    slots = draw(st.sets(st.integers(0, size // unit - 1), max_size=60))
    chosen: list[int] = []
    for slot in sorted(slots):
        at = slot * unit
        if at % options.page_size <= options.page_size - options.width and (
            not chosen or at >= chosen[-1] + options.width
        ):
            chosen.append(at)
    offsets = st.integers(0x8000, 0x1FFF0000)
    result = []
    for at in chosen:
        auth, high8 = None, 0
        if options.version in (3, 5) and draw(st.booleans()):
            key = draw(st.sampled_from((0, 1, 2, 3) if options.version == 3 else (0, 2)))
            auth = Auth(key, draw(st.integers(0, 0xFFFF)), draw(st.booleans()))
        elif options.version in (3, 5) or (options.version == 2 and options.delta_mask == 0x00FFFF0000000000):
            high8 = draw(st.sampled_from((0, 0, 1, 0x80, 0xFF)))
        result.append(Pointer(at, options.base + draw(offsets), high8, auth))
    return result


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_every_set_of_pointers_decodes_to_itself(kind: str, data: st.DataObject) -> None:
    options = KINDS[kind]
    wanted = data.draw(pointers(options))
    content = bytearray(PAGES * options.page_size)
    for p in wanted:
        content[p.offset : p.offset + options.width] = p.plain.to_bytes(options.width, "little")
    info = encode(content, wanted, options)
    # Version 1 marks words of 4 bytes, whatever the pointers' width; it leaves them plain.
    found = sorted(decode(info, content, options.base, options.width == 8))
    assert [(at, value) for at, value, _ in found] == [(p.offset, p.plain) for p in wanted]


@pytest.mark.parametrize(
    ("kind", "pointer"),
    [
        ("v2", Pointer(0, BASE64)),  # a raw 0 would be read as null
        ("v2-high-mask", Pointer(0, BASE64 + 0x9000, high8=1)),
        ("v4", Pointer(0, BASE32 + 0x10)),  # would be read as a small number
        ("v5", Pointer(0, BASE64 + (1 << 34))),
        ("v5", Pointer(0, BASE64 + 0x9000, auth=Auth(1, 0, False))),
        ("v3", Pointer(4, BASE64 + 0x9000)),
        ("v2", Pointer(0xFFC, BASE64 + 0x9000)),  # across two pages
    ],
)
def test_a_pointer_that_cannot_be_told_is_refused(kind: str, pointer: Pointer) -> None:
    with pytest.raises(ValueError, match=r"0x|B keys|delta mask|tag"):
        encode(bytearray(0x10000), [pointer], KINDS[kind])


_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.dictionaries(_NAMES, st.integers(0, 1 << 64)))
def test_every_trie_decodes_to_itself(names: dict[str, int]) -> None:
    encoded = trie_bytes({n.encode(): uleb_bytes(v) for n, v in names.items()})
    assert {n: uleb(p, 0)[0] for n, p in trie(encoded).items()} == names
