"""What all handlers of the API do with models: answers out, and reasons for what is wrong with a question."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ValidationError

from symcache.errors import UsageError

__all__ = ["json_answer", "refuse"]


def json_answer(value: BaseModel, *, status: int = 200) -> web.Response:
    """Return a model as the body of an answer."""
    return web.Response(
        status=status,
        body=value.model_dump_json().encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-cache"},
    )


def refuse(error: ValidationError) -> UsageError:
    """Return the first thing that is wrong with a question as an error that names its place."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:100]
    return UsageError(f"{place or 'body'}: {first['msg']}", hint="see /api/v1/openapi.json")
