"""What is known of an address in an image: the functions that are there, and where that is known from."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Call", "Location", "NameSource"]


class NameSource(enum.StrEnum):
    """Where a name comes from; what comes first is told rather than what comes later."""

    DWARF = "dwarf"
    SYMBOL = "symbol"
    """The symbol table."""
    EXPORT = "export"
    """The trie of exported symbols, all that is left in a stripped image."""
    FUNCTION_START = "function-start"
    """A function without a name begins there, by `LC_FUNCTION_STARTS`; it is called `fun_<offset>`."""
    NEAREST = "nearest"
    """A symbol before the address, in an image that does not tell where functions begin: it may be the neighbour's."""

    @property
    def is_certain(self) -> bool:
        """Whether a name from there is one that the image has, and for just this function."""
        return self in {NameSource.DWARF, NameSource.SYMBOL, NameSource.EXPORT}


@dataclass(frozen=True, slots=True)
class Call:
    """One function at an address, and the place in its source."""

    function: str
    """As the source has it (demangled), printable."""
    symbol: str
    """As the image has it; the same as `function` where that is not mangled."""
    file: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Location:
    """What is known of one address."""

    calls: tuple[Call, ...]
    """The innermost first: each but the last is inlined into the next. Never empty."""
    start: int
    """Bytes from the image's header to the start of the function that is not inlined."""
    size: int | None
    """Bytes of that function; None where nothing tells its end."""
    source: NameSource
    """Where the name of the function that is not inlined is from."""
