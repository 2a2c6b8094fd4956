"""Text that comes from a guest: made visible before anybody sees it."""

from __future__ import annotations

__all__ = ["Remarks", "shown"]

_MAX_REMARKS = 1000


class Remarks(list[str]):
    """Sentences about a source, the first thousand of them: a source must not fill the memory with its sins."""

    def append(self, text: str) -> None:
        """Add a sentence, unless there are too many already: that is said once."""
        if len(self) < _MAX_REMARKS:
            super().append(text)
        elif len(self) == _MAX_REMARKS:
            super().append("more of this kind follows: only the beginning is listed")


def shown(text: str | bytes, limit: int = 300) -> str:
    """Return `text` fit for one line of a message: control characters as escapes, at most `limit` characters."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "backslashreplace")
    text = text[: limit + 1].strip()
    out = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return out if len(out) <= limit else out[: limit - 1] + "…"
