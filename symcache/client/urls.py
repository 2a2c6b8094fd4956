"""URLs of servers, and the tokens that they may bring along."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

__all__ = ["split_tokens"]


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
