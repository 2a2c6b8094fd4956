"""Reads requests as models, and sends models as responses."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from symcache.errors import UsageError
from symcache_server.http.body import read_whole
from symcache_server.keys import CONFIG

__all__ = ["json_response", "read_body", "read_parameters"]

_MANY = 100
_Model = TypeVar("_Model", bound=BaseModel)


def json_response(value: BaseModel | bytes, *, status: int = 200) -> web.Response:
    """Return a response with a model as JSON; `bytes` are JSON already, written in a thread."""
    return web.Response(
        status=status,
        body=value if isinstance(value, bytes) else value.model_dump_json().encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-cache"},
    )


async def read_body(request: web.Request, model: type[_Model], most_values: int) -> _Model:
    """Return the JSON body of a request as a model. Raises UsageError, and an HTTP error for another content type.

    Bodies of more than about `most_values` values are refused unread: while one is read, nothing else is.
    """
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="the body must be application/json\n")
    body = await read_whole(request, request.app[CONFIG].body_seconds)
    if body.count(b",") > most_values:
        raise UsageError(f"more than {most_values} values", hint="send several requests; see /api/v1/openapi.json")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _usage_error(error) from error


def read_parameters(request: web.Request, model: type[_Model]) -> _Model:
    """Return the query of a request's URL as a model. Raises UsageError."""
    repeated = [name for name in request.query if len(request.query.getall(name)) > 1]
    if repeated:
        raise UsageError(f"{repeated[0][:60]!r} is given twice")
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise _usage_error(error) from error


def _usage_error(error: ValidationError) -> UsageError:
    hint = "see /api/v1/openapi.json"
    if error.error_count() > _MANY:  # listing them all takes its time
        return UsageError(f"{error.error_count()} fields are wrong", hint=hint)
    # The message names the first invalid field.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:100]
    return UsageError(f"{place or 'body'}: {first['msg']}", hint=hint)
