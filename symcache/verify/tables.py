"""Tables that a site writes as TOML: what it expects, and what it waives."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from symcache.errors import UsageError

__all__ = ["load_table", "parse_table"]

_MAX_FILE = 4 << 20
_Table = TypeVar("_Table", bound=BaseModel)


def load_table(table: type[_Table], path: Path, option: str, form: str) -> _Table:
    """Read a file that was named with `option`. `form` tells how one is written. Raises UsageError."""
    try:
        if path.stat().st_size > _MAX_FILE:
            raise UsageError(f"{path}: larger than {_MAX_FILE} bytes", hint=f"check the path of {option}")
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not readable: {error}", hint=f"check the path of {option}") from error
    return parse_table(table, text, str(path), form)


def parse_table(table: type[_Table], text: str, name: str, form: str = "") -> _Table:
    """Return what a text of TOML says. Raises UsageError, which names `name` and the key."""
    try:
        return table.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{name}: not readable as TOML: {error}", hint=form) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{name}: {where}: {'unknown key' if first['type'] == 'extra_forbidden' else first['msg']}", hint=form
        ) from error
