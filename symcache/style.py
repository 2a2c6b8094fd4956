"""The style sheet of all that is shown in a browser: the server's pages, and analyses that are kept as a page."""

from __future__ import annotations

from importlib import resources

__all__ = ["style_sheet"]


def style_sheet() -> str:
    """Return the sheet, which names nothing outside of itself."""
    return (resources.files("symcache") / "style.css").read_text(encoding="utf-8")
