"""Small JSON files that remember what servers responded: a convenience, so what goes wrong with them is ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from symcache.files import atomic_write

__all__ = ["load_rows", "save_rows"]


def save_rows(path: Path, rows: list[list[Any]]) -> None:
    """Replace the file at `path`; without rows, remove it."""
    try:
        if rows:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, mode=0o600) as part:
                part.write_text(json.dumps(rows))
        else:
            path.unlink(missing_ok=True)
    except OSError:
        pass


def load_rows(path: Path) -> list[Any]:
    """Return what `save_rows` wrote, or an empty list if there is none. The rows themselves are not checked."""
    try:
        rows = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return rows if isinstance(rows, list) else []
