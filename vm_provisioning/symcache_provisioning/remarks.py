"""Notes and problems about a source, within bounds."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from symcache.errors import SymcacheError

__all__ = ["AGAIN", "ANOTHER_MAC", "CLEAR_THERE", "Problems", "Remarks"]

_MAX_REMARKS = 1000
_MORE = "more of this kind follows: only the beginning is listed"

AGAIN = "harvest again; if it stays so, harvest another Mac of the build"
ANOTHER_MAC = "reinstall that system or copy it anew, or harvest another Mac of the build"
CLEAR_THERE = "macOS has nothing like it: remove it there, and harvest again"
"""Next steps with which problems end."""


class Remarks(list[str]):
    """Sentences about a source, of which only the first thousand are kept, so that a source cannot fill the memory."""

    def append(self, text: str) -> None:
        """Add a sentence, unless there are too many already: that is said once."""
        if len(self) < _MAX_REMARKS:
            super().append(text)
        elif len(self) == _MAX_REMARKS:
            super().append(_MORE)


class Problems(Collection[str]):
    """What keeps a harvest from being sealed: sentences that end with what to do about it, each once, within bounds."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}

    def add(self, text: str, step: str) -> None:
        """Add what is wrong, and the next step."""
        if not step:
            raise ValueError(f"{text!r} does not say what to do about it")
        self._keep(f"{text}: {step}")

    def add_error(self, error: SymcacheError, where: str = "") -> None:
        """Add an error with its hint; its text begins with `where`, unless it names that itself."""
        text = str(error)
        self.add(text if where in text else f"{where}: {text}", error.hint or AGAIN)

    def update(self, others: Problems) -> None:
        """Add those of another collection."""
        for text in others:
            self._keep(text)

    def _keep(self, text: str) -> None:
        if len(self._texts) < _MAX_REMARKS:
            self._texts[text] = None
        elif text not in self._texts:
            self._texts[f"{_MORE}: {AGAIN}"] = None

    def __contains__(self, text: object) -> bool:
        return text in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)
