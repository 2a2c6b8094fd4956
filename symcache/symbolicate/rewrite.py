"""A report in its own format with names filled in; whatever else stands in it stays, byte for byte."""

from __future__ import annotations

import codecs

from symcache.reports import find_document, unquoted
from symcache.symbolicate.naming import NamedReport
from symcache.symbolicate.rewrite_ips import rewrite_ips
from symcache.symbolicate.rewrite_text import rewrite_text

__all__ = ["rewritten"]

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def rewritten(data: bytes, named: NamedReport) -> bytes:
    """Return the file of a report, text or JSON or both, with the names that are known of its frames.

    What mail and web pages have put around JSON is left out, where there are names to be written into it.
    """
    encoding, errors, whole = "utf-8", "surrogateescape", len(data)
    if data.startswith(_UTF_16):
        encoding = "utf-16-le" if data.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
        errors, whole = "surrogatepass", len(data) & ~1  # a file that was cut may end amid a character
    text = data[:whole].decode(encoding, errors)
    written = _rewritten(text, named)
    if written == text and (plain := unquoted(text)) != text:
        changed = _rewritten(plain, named)
        written = changed if changed != plain else text
    return written.encode(encoding, errors) + data[whole:]


def _rewritten(text: str, named: NamedReport) -> str:
    document = find_document(text)
    if document is None or not isinstance(document.body.get("threads"), list):
        return rewrite_text(text, named)
    return rewrite_text(text[: document.start], named) + rewrite_ips(text, document, named)
