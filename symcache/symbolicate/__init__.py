"""Names for addresses in images: of functions, source files and lines, without a debugger."""

from symcache.symbolicate.model import Call, Location, NameSource

__all__ = ["Call", "Location", "NameSource"]
