"""Requests read as models, models sent as responses, and the errors of requests that are no such model."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from symcache.errors import UsageError

__all__ = ["json_response", "read_body", "read_parameters"]

_Model = TypeVar("_Model", bound=BaseModel)


def json_response(value: BaseModel, *, status: int = 200) -> web.Response:
    """Return a response with a model as its body."""
    return web.Response(
        status=status,
        body=value.model_dump_json().encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-cache"},
    )


async def read_body(request: web.Request, model: type[_Model]) -> _Model:
    """Return the JSON body of a request as a model. Raises UsageError, and an HTTP error for another content type."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="the body must be application/json\n")
    try:
        return model.model_validate_json(await request.read())
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
    # It names the first invalid field.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:100]
    return UsageError(f"{place or 'body'}: {first['msg']}", hint="see /api/v1/openapi.json")
