"""Hooks of MkDocs: pages that lie outside of `docs`, links that lead out of it, and which pages there are."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["navigation", "on_config", "on_files", "on_page_markdown", "relinked"]

_ROOT = Path(__file__).parents[2]
_OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
}
"""Pages by their places in the project, and what they are on the site."""
_SOURCE = "https://github.com/think-cell/symcache/blob/main/"
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def on_config(config: Any) -> Any:
    """Leave out of the navigation what is not there, and put in what its globs stand for."""
    config.nav = navigation(config.nav, _ROOT)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages outside of `docs`."""
    from mkdocs.structure.files import File

    for name, page in _OUTSIDE.items():
        if (_ROOT / name).exists():
            files.append(File.generated(config, page, abs_src_path=str(_ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Have a page's links lead within the site, or to the source."""
    return relinked(markdown, page.file.src_uri, _ROOT)


def relinked(markdown: str, page: str, root: Path) -> str:
    """Return a page of the site with its links as they have to be there; code is left as it is."""
    original = next((name for name, there in _OUTSIDE.items() if there == page), f"docs/{page}")
    parts = re.split(r"(?ms)(^```.*?^```$|`[^`\n]+`)", markdown)
    parts[::2] = [_LINK.sub(lambda link: _relinked(link, original, page, root), part) for part in parts[::2]]
    return "".join(parts)


def _relinked(link: re.Match[str], original: str, page: str, root: Path) -> str:
    target = os.path.normpath(PurePosixPath(original).parent / link[2])
    if not (root / target).exists():
        return link[0]  # which is said then
    if target in _OUTSIDE or target.startswith("docs/"):
        there = _OUTSIDE.get(target) or target.removeprefix("docs/")
        there = os.path.relpath(there, PurePosixPath(page).parent)
    else:
        there = _SOURCE + target
    return f"{link[1]}{there}{link[3] or ''}{link[4]}"


def navigation(wanted: list[Any], root: Path) -> list[Any]:
    """Return the navigation of what there is: globs are spelled out, without what is named beside or before them."""
    docs = root / "docs"
    there = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    there |= {page for name, page in _OUTSIDE.items() if (root / name).exists()}
    named = set(_names(wanted))

    def kept(entry: Any) -> list[Any]:
        if isinstance(entry, dict):
            ((title, inner),) = entry.items()
            if isinstance(inner, str):
                return [entry] if inner in there else []
            entries = [one for each in inner for one in kept(each)]
            return [{title: entries}] if entries else []
        if "*" not in entry:
            return [entry] if entry in there else []
        folder = PurePosixPath(entry).parent
        found = sorted(p for p in there - named if PurePosixPath(p).parent == folder)
        named.update(found)
        return list(found)

    return [one for entry in wanted for one in kept(entry)]


def _names(entries: list[Any]) -> list[str]:
    found = []
    for entry in entries:
        inner = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += [inner] if isinstance(inner, str) else _names(inner)
    return found
