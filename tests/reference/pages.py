"""All that is made: pages of the reference, and man pages."""

from __future__ import annotations

import re
from pathlib import Path

from tests.reference.commands_page import commands_page
from tests.reference.http_page import http_page
from tests.reference.json_output import json_page
from tests.reference.man_pages import man_pages
from tests.reference.settings_page import settings_page
from tests.reference.tables import catalog_page, exit_codes_page, findings_page, metrics_page, python_page

__all__ = ["ROOT", "committed", "generated", "write"]

ROOT = Path(__file__).parents[2]
_FOLDERS = ("docs/reference", "docs/man")
_BY_HAND = ("docs/reference/index.md",)


def generated() -> dict[str, str]:
    """Return what each file has to be, by its path from the root of the project."""
    pages = {
        "commands": commands_page,
        "environment": settings_page,
        "exit-codes": exit_codes_page,
        "json": json_page,
        "http": http_page,
        "metrics": metrics_page,
        "findings": findings_page,
        "catalog": catalog_page,
        "python": python_page,
    }
    files = {f"docs/reference/{name}.md": _linked(make()) for name, make in pages.items()}
    return files | {f"docs/man/{name}": text for name, text in man_pages().items()}


def committed() -> dict[str, str]:
    """Return what there is in the folders of what is made, but for what people wrote."""
    found = (path for folder in _FOLDERS for path in sorted((ROOT / folder).glob("*")))
    names = {str(path.relative_to(ROOT)): path for path in found}
    return {name: path.read_text("utf-8") for name, path in names.items() if name not in _BY_HAND}


def write() -> None:
    """Write all of it, and remove what is not made any more."""
    made = generated()
    for name in committed().keys() - made.keys():
        (ROOT / name).unlink()
    for name, text in made.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(text, "utf-8")


def _linked(text: str) -> str:
    """Return a page in which `docs/PAGE.md#HEADING`, as the code's own texts have it, is a link."""
    return re.sub(r"(?<![\w`/])docs/([\w-]+)\.md(#[\w-]+)?", r"[\1](../\1.md\2)", text)
