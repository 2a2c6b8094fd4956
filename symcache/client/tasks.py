"""Many things at a time in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

__all__ = ["all_done"]


async def all_done(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of it. The first error ends the rest, and is raised by itself: nobody expects a group of them."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
