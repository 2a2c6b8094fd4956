"""Demangling: C++, Swift and Rust function names as the source writes them.

Swift names are short, as in Apple's crash reports: without modules and types. The mangled name tells the rest.
"""

from __future__ import annotations

import functools
import re

__all__ = ["demangle"]

_MANGLED = re.compile(r"_{1,4}Z[A-Za-z0-9]|_?\$[sSe]|_{1,2}T0|_{1,2}R[NIMXY]")
"""Itanium C++ and Rust before v0, blocks in C++; Swift 5 and 4; Rust v0."""
_SWIFT = re.compile(r"_?\$|_{1,2}T0")
_MAX_NAME = 8192
"""Characters; the longest names of real programs have some thousand."""
_SHORT_NAME = 512
"""Characters; longer names are not cached, which bounds what the cache takes."""


def demangle(name: str) -> str:
    """Return the demangled name; one that is not mangled, or that cannot be read, is returned as it is."""
    if len(name) > _MAX_NAME or not _MANGLED.match(name):
        return name
    return _remembered(name) if len(name) <= _SHORT_NAME else _demangle(name)


def _demangle(name: str) -> str:
    import multi_demangle  # noqa: PLC0415 (takes its time to import)

    if _SWIFT.match(name):
        return str(multi_demangle.demangle_symbol(name, multi_demangle.DemangleOptions.name_only()))[:_MAX_NAME] or name
    return str(multi_demangle.demangle_symbol(name))[:_MAX_NAME] or name


_remembered = functools.lru_cache(1 << 15)(_demangle)
