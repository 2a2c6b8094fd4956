"""Forms are read as browsers write them, in time and memory that do not depend on what is in them."""

from __future__ import annotations

from urllib.parse import quote_plus, unquote_to_bytes

import pytest

from symcache_server.pages.forms import _of_parts, _unquoted


@pytest.mark.parametrize(
    "field", [b"", b"a", b"%", b"%4", b"%41", b"%4g%", b"a+b%2Bc", b"%%41", b"%25%2541", b"%e4%F6%FC%00%ff", b"100%"]
)
def test_escapes_are_read_as_pythons_own_reader_does(field: bytes) -> None:
    assert _unquoted(field) == unquote_to_bytes(field.replace(b"+", b" "))


def test_a_text_comes_out_as_it_went_in() -> None:
    text = "".join(map(chr, range(1, 3000))) * 20
    assert _unquoted(quote_plus(text).encode()) == text.encode()


def test_the_part_of_a_name_is_found_as_browsers_write_it() -> None:
    def part(head: str, content: bytes) -> bytes:
        return f"--mark\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"

    file = 'name="report"; filename="a b.ips"\r\nContent-Type: application/octet-stream'
    content = b'{"bug_type":"309"}\r\n--mar\r\n\r\n name="report"\x00'
    body = part('name="other"', b'name="report"') + part(file, content) + b"--mark--\r\n"
    assert _of_parts(body, b"mark", "report") == content
    assert _of_parts(body, b"mark", "port") == b""
    for cut in range(len(body) - len(b"\r\n--mark--\r\n") + 8):
        assert _of_parts(body[:cut], b"mark", "report") == b""
    assert _of_parts(part('name="x"', b"") * 9 + body, b"mark", "report") == b""
