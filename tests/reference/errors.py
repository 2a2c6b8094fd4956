"""What stops the reference from being made."""

from __future__ import annotations

__all__ = ["UndescribedError"]


class UndescribedError(Exception):
    """Something that users meet has no description; the message says what, and where to write one."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} has no description: write it in {where}, then run `make reference`")
