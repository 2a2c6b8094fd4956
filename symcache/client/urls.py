"""URLs of servers, the tokens that they may bring along, and numbers in the headers of responses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

__all__ = ["is_http_url", "retry_after", "split_tokens", "whole_number", "without_password"]

_LONGEST_WAIT = 60
_NUMBER = re.compile("[0-9]{1,19}")


def is_http_url(url: str) -> bool:
    """Return whether `url` is one that names a host which can be asked, and its port."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets, port, or a host name that cannot be
        return False


def whole_number(field: str | None) -> int | None:
    """Return the number that a header field is; None if it is absent, or anything but up to 19 digits.

    `str.isdigit` takes more than the ten of ASCII for digits, and `int` refuses numbers of thousands of digits.
    """
    text = (field or "").strip()
    return int(text) if _NUMBER.fullmatch(text) else None


def retry_after(field: str | None) -> float:
    """Return the seconds that a `Retry-After` asks for, within reason; 0 without one, or with a date."""
    return min(whole_number(field) or 0, _LONGEST_WAIT)


def split_tokens(urls: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the URLs without user and password, in their order, and the password of each that has one.

    `https://any:TOKEN@host/path` becomes `https://host/path`: what is shown, logged and cached is free of tokens.
    """
    plain: list[str] = []
    tokens: dict[str, str] = {}
    for url in urls:
        parts = urlsplit(url)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        if bare not in plain:
            plain.append(bare)
        if "@" in parts.netloc and (token := unquote(parts.password or parts.username or "")):
            tokens[bare] = token
    return plain, tokens


def without_password(text: str) -> str:
    """Return text to be shown, without user and password of the URLs in it, well-formed or not."""
    return re.sub(r"//[^/?#\s]*@", "//", text)
