"""A store at whose operations something else happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from symcache.store import BlobStat, LocalStore

__all__ = ["Hooked"]


class Hooked(LocalStore):
    """A folder that calls a function before or after one of its operations, once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.hooks: dict[tuple[str, str], Callable[[], object]] = {}

    def on(self, when: str, operation: str, action: Callable[[], object]) -> None:
        self.hooks[when, operation] = action

    def _happen(self, when: str, operation: str, key: str) -> None:
        if action := self.hooks.pop((when, f"{operation} {key.partition('/')[0]}"), None):
            action()

    def _call(self, operation: str, key: str, *arguments: Any) -> Any:
        self._happen("before", operation, key)
        result = getattr(LocalStore, operation)(self, key, *arguments)
        self._happen("after", operation, key)
        return result

    def create(self, key: str, source: Path) -> bool:
        return bool(self._call("create", key, source))

    def stat(self, key: str) -> Any:
        return self._call("stat", key)

    def refresh(self, key: str) -> bool:
        return bool(self._call("refresh", key))

    def delete_older(self, key: str, before: float) -> bool:
        return bool(self._call("delete_older", key, before))

    def open(self, key: str) -> BinaryIO:
        opened: BinaryIO = self._call("open", key)
        return opened

    def list(self, prefix: str) -> Iterator[str]:
        self._happen("before", "list", prefix)
        yield from super().list(prefix)
        self._happen("after", "list", prefix)

    def scan(self, prefix: str) -> Iterator[tuple[str, BlobStat]]:
        self._happen("before", "scan", prefix)
        yield from LocalStore(self.root).scan(prefix)  # which lists: that is no operation of its own
        self._happen("after", "scan", prefix)
