"""Properties of paths and ranges, over made-up ones."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from symcache_server.http.ranges import parse_range
from symcache_server.layouts import MAX_PATH, match
from tests.fuzz.fuzz_paths import SEEDS, one_input

_SEEDS = SEEDS()


@given(st.sampled_from(_SEEDS), st.integers(0, 200), st.binary(max_size=4), st.integers(0, 4))
def test_no_path_is_an_error_or_means_two_things(seed: bytes, place: int, more: bytes, cut: int) -> None:
    one_input(seed[:place] + more + seed[place + cut :])


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(data: bytes) -> None:
    one_input(data)


_NAMES = st.text(st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="/"), min_size=1, max_size=255)


@given(_NAMES, st.uuids(), st.booleans())
def test_any_name_is_found_in_the_layouts_that_have_names(name: str, uuid: UUID, upper: bool) -> None:
    digits = uuid.hex.upper() if upper else uuid.hex
    for path in (f"/{name}/mach-uuid-{digits}/{name}", f"/{name}/{digits}0/{name}.sym"):
        wanted = match(path)
        assert wanted is not None
        assert wanted.image.uuid == uuid


def test_a_path_longer_than_any_is_not_looked_at() -> None:
    assert match("/buildid/" + "0" * 32 + "/source/" + "a" * MAX_PATH) is None


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
def test_a_range_is_what_slicing_says(first: int, last: int, length: int) -> None:
    whole = bytes(length)
    span = parse_range(f"bytes={first}-{last}", length)
    if last < first:
        assert span is None
    elif span:
        assert len(whole[first : last + 1]) == span[1] - span[0] + 1
    else:
        assert span == ()
        assert not whole[first : last + 1]
