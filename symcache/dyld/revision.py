"""What records say of who extracted an image, and from which revision of this program."""

from __future__ import annotations

__all__ = ["EXTRACTOR", "REVISION"]

EXTRACTOR = "symcache"
"""What records name as the maker of these files."""
REVISION = 2
"""Counts changes of the output: a later revision supersedes an earlier one."""
