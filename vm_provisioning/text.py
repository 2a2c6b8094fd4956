"""Text that comes from a guest: made visible before anybody sees it."""

from __future__ import annotations

__all__ = ["shown"]


def shown(text: str | bytes, limit: int = 300) -> str:
    """Return `text` fit for one line of a message: control characters as escapes, at most `limit` characters."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "backslashreplace")
    text = text[: limit + 1].strip()
    out = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return out if len(out) <= limit else out[: limit - 1] + "…"
