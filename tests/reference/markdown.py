"""Pieces of Markdown pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["anchor", "code", "page", "table"]


def page(title: str, *parts: str) -> str:
    """Return a page: its heading, who made it, and its parts with a line between them."""
    made = "<!-- Made by `make reference`: change the code, or tests/reference, and run it again. -->"
    return "\n\n".join([f"# {title}", made, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are Markdown, in which `|` has to be escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line).rstrip() + " |" for line in lines)


def code(text: str) -> str:
    """Return a text as code."""
    return f"`{text}`" if text else ""


def anchor(heading: str) -> str:
    """Return what a link to a heading ends with, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
