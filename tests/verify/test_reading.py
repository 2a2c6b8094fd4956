"""A blob's file is zstd frames and nothing else, however it is read."""

from __future__ import annotations

import io

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from symcache.verify.reading import Frames


def drain(data: bytes, step: int) -> Frames:
    frames = Frames(io.BytesIO(data))
    while frames.read(step):
        pass
    return frames


@given(
    st.binary(max_size=2000),
    st.sampled_from([1, 2, 3, 7, 64, 100_000]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 4),
)
def test_frames_of_every_kind_are_followed_to_their_end(
    data: bytes, step: int, checksum: bool, sized: bool, repeat: int
) -> None:
    parameters = zstandard.ZstdCompressionParameters(write_checksum=checksum, write_content_size=sized)
    content = data * (60**repeat // 400 + 1) if repeat < 4 else b"\0" * 1_000_000
    whole = zstandard.ZstdCompressor(compression_params=parameters).compress(content[:4_000_000])
    assert drain(whole, step if len(whole) < 20_000 else 100_000).are_whole()
    skippable = (0x184D2A53).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"seek!"
    assert drain(whole + skippable + whole, max(step, 50)).are_whole()
    for wrong in (whole[:-1], whole + b"\0", whole + whole[:-1], whole[: len(whole) // 2], b"\0" + whole, whole[:5]):
        assert not drain(wrong, max(step, 50)).are_whole()


@pytest.mark.parametrize("data", [b"", b"\x28\xb5\x2f\xfd", b"nothing of this kind"])
def test_what_is_no_frame_is_not_whole(data: bytes) -> None:
    assert not drain(data, 100).are_whole()
