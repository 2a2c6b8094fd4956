"""Text that no encoding can hold."""

from __future__ import annotations

import json
import os

from hypothesis import given
from hypothesis import strategies as st

from symcache.text import readable

ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))


def test_foreign_bytes_are_written_out() -> None:
    assert readable(os.fsdecode(b"Gr\xf6\xdfe\xc3\xa9")) == "Gr\\xf6\\xdfeé"
    assert readable("\ud800\udc7f") == "\\ud800\\udc7f"


@given(ANY_TEXT)
def test_whatever_it_is_it_can_be_encoded_and_other_text_stays(text: str) -> None:
    assert readable(text).encode().decode() == readable(text)
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert readable(text) == text


@given(ANY_TEXT)
def test_in_json_it_is_the_same_text(text: str) -> None:
    assert json.loads(readable(json.dumps(text, ensure_ascii=False), "\\\\")) == readable(text)
