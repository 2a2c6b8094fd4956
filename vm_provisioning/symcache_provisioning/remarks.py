"""What is worth saying of a source, within bounds."""

from __future__ import annotations

__all__ = ["Remarks"]

_MAX_REMARKS = 1000


class Remarks(list[str]):
    """Sentences about a source, the first thousand of them: a source must not fill the memory with its sins."""

    def append(self, text: str) -> None:
        """Add a sentence, unless there are too many already: that is said once."""
        if len(self) < _MAX_REMARKS:
            super().append(text)
        elif len(self) == _MAX_REMARKS:
            super().append("more of this kind follows: only the beginning is listed")
