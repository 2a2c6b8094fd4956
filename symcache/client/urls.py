"""URLs of servers, the tokens that they may bring along, and how long a server asks to wait."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

__all__ = ["is_http_url", "retry_after", "split_tokens", "without_password"]

_LONGEST_WAIT = 60


def is_http_url(url: str) -> bool:
    """Return whether `url` is one that names a host which can be asked, and its port."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets, port, or a host name that cannot be
        return False


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server's `Retry-After` asks for, within reason; 0 without one, or with a date."""
    text = headers.get("Retry-After", "").strip()
    return min(int(text), _LONGEST_WAIT) if text.isdigit() and len(text) < 10 else 0


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
