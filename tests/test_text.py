"""Foreign text that is shown."""

from __future__ import annotations

import json
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symcache.text import counted, encodable, json_printable, printable

ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"]))
BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Unicode Standard Annex 9, 2: directional formatting characters."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/usr/lib/libobjc.A.dylib", "/usr/lib/libobjc.A.dylib"),
        ("größe 日本 🙂", "größe 日本 🙂"),
        ("C:\\x", "C:\\x"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("tag\U000e0001", "tag\\U000e0001"),
        (os.fsdecode(b"Gr\xf6\xdfe\xc3\xa9"), "Gr\\xf6\\xdfeé"),
        (b"Gr\xf6\xdfe\xc3\xa9\x1b", "Gr\\xf6\\xdfeé\\x1b"),
        ("\ud800\udc7f", "\\ud800\\udc7f"),
    ],
)
def test_what_is_not_printable_becomes_a_visible_escape(text: str | bytes, expected: str) -> None:
    assert printable(text) == expected


def test_no_control_character_and_no_mark_of_direction_is_left() -> None:
    controls = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
    for character in controls + BIDIRECTIONAL:
        assert printable(character).isascii()
        assert printable(character).startswith("\\")
        assert json_printable(json.dumps(character, ensure_ascii=False)).isascii()


def test_what_the_caller_keeps_may_pass() -> None:
    assert printable("a\tb\n\x1b\u202e", keep="\t\n") == "a\tb\n\\x1b\\u202e"


def test_the_length_is_limited() -> None:
    assert printable("a" * 10, limit=10) == "a" * 10
    assert printable("a" * 11, limit=10) == "a" * 9 + "…"
    assert printable("\x1b" * 10, limit=10) == "\\x1b\\x1b\\…"
    assert printable("日".encode() * 11, limit=10) == "日" * 9 + "…"
    assert printable("日".encode() * 10, limit=10) == "日" * 10
    assert printable("🙂".encode() * 11, limit=10) == "🙂" * 9 + "…"


@given(ANY_TEXT)
def test_whatever_it_is_it_is_printable_then_and_other_text_stays(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)
    assert shown.encode().decode() == shown
    assert printable(shown) == shown
    if all(unicodedata.category(c)[0] in "LMNPS" or c == " " for c in text):
        assert shown == text


@given(ANY_TEXT)
def test_only_what_no_encoding_can_hold_is_replaced_in_text_to_be_encoded(text: str) -> None:
    assert encodable(text).encode().decode() == encodable(text)
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert encodable(text) == text


@given(ANY_TEXT, st.sampled_from([None, 2]))
def test_in_json_it_is_the_same_text(text: str, indent: int | None) -> None:
    document = json_printable(json.dumps({text: [text]}, ensure_ascii=False, indent=indent))
    assert json.loads(document) == {encodable(text): [encodable(text)]}
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in document.replace("\n", ""))


def test_in_json_other_letters_stay_readable() -> None:
    assert json_printable(json.dumps("größe\x9b\u202e\U000e0001日本", ensure_ascii=False)) == (
        '"größe\\u009b\\u202e\\udb40\\udc01日本"'
    )


def test_one_is_not_many() -> None:
    assert [counted(n, "finding") for n in (0, 1, 2)] == ["0 findings", "1 finding", "2 findings"]
    assert [counted(n, "address is", "addresses are") for n in (1, 2)] == ["1 address is", "2 addresses are"]
