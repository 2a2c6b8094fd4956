"""Names for the files that a command writes into one folder, a file for each dump or report."""

from __future__ import annotations

from collections import Counter

__all__ = ["FileNames"]


class FileNames:
    """Gives each name once, in whatever case: there may be thousands of dumps that are all called the same."""

    def __init__(self) -> None:
        self._wanted: Counter[str] = Counter()

    def take(self, stem: str, ending: str) -> str:
        """Return `stem` with `ending`; if that is taken, with a number between them, as in `crash.2.json`."""
        first = name = stem + ending
        while name.casefold() in self._wanted:
            self._wanted[first.casefold()] += 1
            name = f"{stem}.{self._wanted[first.casefold()]}{ending}"
        self._wanted[name.casefold()] = 1
        return name
