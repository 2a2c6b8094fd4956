"""A store at whose operations something else happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from symcache.store import LocalStore

__all__ = ["Hooked"]


class Hooked(LocalStore):
    """A folder that calls a function before or after one of its operations, once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.hooks: dict[tuple[str, str], Callable[[], object]] = {}

    def on(self, when: str, operation: str, action: Callable[[], object]) -> None:
        self.hooks[when, operation] = action

    def _call(self, operation: str, key: str, *arguments: Any) -> Any:
        name = f"{operation} {key.partition('/')[0]}"
        if action := self.hooks.pop(("before", name), None):
            action()
        result = getattr(LocalStore, operation)(self, key, *arguments)
        if action := self.hooks.pop(("after", name), None):
            action()
        return result

    def create(self, key: str, source: Path) -> bool:
        return bool(self._call("create", key, source))

    def stat(self, key: str) -> Any:
        return self._call("stat", key)

    def refresh(self, key: str) -> bool:
        return bool(self._call("refresh", key))

    def delete_older(self, key: str, before: float) -> bool:
        return bool(self._call("delete_older", key, before))
