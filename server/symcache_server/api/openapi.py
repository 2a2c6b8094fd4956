"""The OpenAPI document (version 3.1), with schemas made from the models that the handlers use."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from symcache import __version__
from symcache.model import BUILD_PATTERN
from symcache_server.api import models

__all__ = ["document"]

_UUID = {"type": "string", "pattern": "^([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$"}
_BUILD = {"type": "string", "pattern": BUILD_PATTERN}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NAME = {"type": "string", "minLength": 1, "maxLength": 1024}
_FORM = {"type": "string", "enum": [form.value for form in models.ReportForm], "default": models.ReportForm.JSON.value}
_REPORT = {
    "description": "As `symcache symbolicate --json` prints it: docs/symbolication.md.",
    "type": "object",
    "required": ["schema_version", "process", "system", "exception", "threads", "modules"],
}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}


@cache
def document() -> dict[str, Any]:
    """Return the document; it never changes while the program runs."""
    responses: list[type[BaseModel]] = [models.Holdings, models.HeldImage, models.Images, models.Releases]
    responses += [models.Release, models.Coverage, models.Missing, models.Upload, models.Added, models.Error]
    responses += [models.Tokens]
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]]
    modes = [(model, "serialization") for model in responses]
    modes += [(models.UuidsQuery, "validation"), (models.AddQuery, "validation")]
    _, schemas = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "symcache",
            "version": __version__,
            "description": "Ask a library of macOS binaries by UUID, name and release. The binaries themselves are "
            "fetched in the look-up layouts, e.g. /buildid/{uuid}/executable.",
        },
        "paths": {
            "/api/v1/openapi.json": {"get": _operation("This document", {"type": "object"})},
            "/api/v1/uuids": {
                "post": _operation("What the library has of many images, and which shared caches fit", models.Holdings)
                | {"requestBody": {"required": True, "content": {"application/json": {"schema": _ref("UuidsQuery")}}}}
            },
            "/api/v1/uuids/{uuid}": {
                "get": _operation("What the library has under one UUID", models.HeldImage, path={"uuid": _UUID})
            },
            "/api/v1/images": {
                "get": _operation(
                    "Images by name or path, with * and ?", models.Images, query={"name": _NAME, "limit": _LIMIT}
                )
            },
            "/api/v1/releases": {"get": _operation("All macOS builds, newest first", models.Releases)},
            "/api/v1/releases/{build}": {"get": _operation("One build", models.Release, path={"build": _BUILD})},
            "/api/v1/coverage/{build}": {
                "get": _operation("Whether a build is complete", models.Coverage, path={"build": _BUILD})
            },
            "/api/v1/uploads/{sha256}": {
                "get": _operation("How much of a file was received", models.Upload, path={"sha256": _SHA256}),
                "put": _operation(
                    "Send a file, or with Content-Range a part of it; 202 until it is whole",
                    models.Upload,
                    path={"sha256": _SHA256},
                    statuses=("200", "202"),
                )
                | {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {}}}}},
            },
            "/api/v1/uploads": {
                "post": _operation("Add files that were sent, by one record", models.Added, statuses=("201",))
                | {"requestBody": {"required": True, "content": {"application/json": {"schema": _ref("AddQuery")}}}}
            },
            "/api/v1/symbolicate": {
                "post": _operation(
                    "A crash report (.ips or .crash) with its frames named", _REPORT, query={"form": _FORM}
                )
                | {"requestBody": {"required": True, "content": {"text/plain": {"schema": {"type": "string"}}}}}
            },
            "/api/v1/missing": {"get": _operation("What was requested and nobody had", models.Missing)},
            "/api/v1/tokens": {"get": _operation("Who has a token; needs the scope admin", models.Tokens)},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # Where reads are open, no token is needed for them.
        "security": [{}, {"token": []}],
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(
    summary: str,
    body: type[BaseModel] | dict[str, Any],
    *,
    path: dict[str, Any] | None = None,
    query: dict[str, Any] | None = None,
    statuses: tuple[str, ...] = ("200",),
) -> dict[str, Any]:
    schema = body if isinstance(body, dict) else _ref(body.__name__)
    parameters = [
        *({"name": n, "in": "path", "required": True, "schema": s} for n, s in (path or {}).items()),
        *({"name": n, "in": "query", "required": "default" not in s, "schema": s} for n, s in (query or {}).items()),
    ]
    error = {"description": "Why the request failed", "content": {"application/json": {"schema": _ref("Error")}}}
    return {
        "summary": summary,
        **({"parameters": parameters} if parameters else {}),
        "responses": {
            **{
                status: {"description": summary, "content": {"application/json": {"schema": schema}}}
                for status in statuses
            },
            "default": error,
        },
    }
