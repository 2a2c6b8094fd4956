"""Models as JSON responses, and the errors of requests that are no such model."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ValidationError

from symcache.errors import UsageError

__all__ = ["json_response", "usage_error"]


def json_response(value: BaseModel, *, status: int = 200) -> web.Response:
    """Return a response with a model as its body."""
    return web.Response(
        status=status,
        body=value.model_dump_json().encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-cache"},
    )


def usage_error(error: ValidationError) -> UsageError:
    """Return an error that names the first invalid field of a request."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:100]
    return UsageError(f"{place or 'body'}: {first['msg']}", hint="see /api/v1/openapi.json")
