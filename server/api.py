"""The JSON API."""

from __future__ import annotations

from aiohttp import web


def register(app: web.Application) -> None:
    """Add the routes of this module."""
