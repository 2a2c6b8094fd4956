"""The page of the server's HTTP: every route, the look-up layouts, and the API by its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from symcache_server import Scope, api, pages, symbolicate
from symcache_server.api import models
from symcache_server.api.openapi import document
from symcache_server.http import health
from symcache_server.http.auth import required_scope
from symcache_server.layouts import LAYOUTS
from symcache_server.layouts.lookup import What
from tests.reference.docstrings import attribute_docs, first_sentence, one_line
from tests.reference.errors import UndescribedError
from tests.reference.json_output import common_description
from tests.reference.markdown import anchor, code, page, table

__all__ = ["Route", "http_page", "routes"]

_INTRODUCTION = """\
What `symcache serve` responds to. What the responses' headers and statuses mean, who may read and write, and how to run
it: [the server](../server.md). *Needs* is the scope that a token must have where reading is not open to all;
`HEAD` goes wherever `GET` does."""
_PINS = """\
Before any of these may stand `/cache/{cache UUID}` or `/build/{build}`: the same, [pinned](../server.md#pins) to one
shared cache or release. Behind the path of a binary or dSYM may stand `?universal`. Hex digits count in either case,
and SSQP's paths may have the folder of a store with an `index2.txt` in front. Raw shared cache files are at
`/caches/{cache UUID}/{file}`. All of them need the scope `read`."""
_API = """\
[How to ask](../server.md#json) · [in detail](#api-in-detail). The server has its OpenAPI document at
`/api/v1/openapi.json`; this is what it says."""
_GROUPS = {
    "symcache_server.api": ("API", _API),
    "symcache_server.symbolicate": ("Names for addresses", "[What goes in and comes out](../symbolication.md)."),
    "symcache_server.pages": (
        "Pages",
        "[What they show](../server.md#pages). With `.json` the same as a document, whose keys may change.",
    ),
    "symcache_server.http": ("Operations", "[What they tell](../server.md#running-it) · [metrics](metrics.md)."),
}


class Route:
    """One thing that the server responds to."""

    def __init__(self, route: web.AbstractRoute) -> None:
        self.method, self.handler = route.method, route.handler
        self.path = route.resource.canonical if route.resource else ""
        text = first_sentence(route.handler.__doc__)
        if not text:
            raise UndescribedError(f"{self.method} {self.path}", f"the docstring of {route.handler.__qualname__}")
        self.words = [str(required_scope(route.handler) or "nothing"), text]
        """The scope that it needs, and what it does."""


def routes() -> list[Route]:
    """Return all routes, without those that aiohttp adds for HEAD."""
    app = web.Application()
    for part in (health, api, pages, symbolicate):
        part.register(app)
    return [Route(route) for route in app.router.routes() if route.method != "HEAD"]


def http_page() -> str:
    """Return the page."""
    every = routes()
    parts = ["## Look-ups by UUID", _layouts(), _PINS]
    for module, (title, text) in _GROUPS.items():
        rows = _rows([r for r in every if r.handler.__module__.startswith(module)])
        parts += [f"## {title}", text, table(["", "path", "needs", "does"], rows)]
    scopes = attribute_docs(Scope)
    rows = [[code(scope), scopes[scope.name]] for scope in Scope]
    parts += ["## Scopes", table(["scope", "allows"], rows), "## API in detail", *_api()]
    return page("HTTP", _INTRODUCTION, *parts)


def _rows(some: list[Route]) -> list[list[str]]:
    """Return a row for each method and handler, whose paths stand beside each other, those without an ending first."""
    paths: dict[tuple[str, Any], list[Route]] = {}
    for route in some:
        paths.setdefault((route.method, route.handler), []).append(route)
    return [
        [method, ", ".join(code(r.path) for r in sorted(same, key=lambda r: len(r.path))), *same[0].words]
        for (method, _), same in paths.items()
    ]


def _layouts() -> str:
    texts = attribute_docs(What)
    rows = []
    for layout in LAYOUTS:
        for example in layout.examples:
            what = layout.what or next((w for w in What if f"/{w}" in example), None)
            if what is None or not texts.get(what.name):
                raise UndescribedError(f"the layout {example}", "the class What of symcache_server/layouts/lookup.py")
            rows.append([layout.name, code(example), texts[what.name]])
    return table(["layout", "path", "is"], rows)


def _api() -> Iterator[str]:
    described = document()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            title = f"{method.upper()} {path}"
            yield f"### {title}"
            yield operation["summary"] + "."
            rows = [
                [code(p["name"]), p["in"], _type(p["schema"]), _limits(p["schema"])]
                for p in operation.get("parameters", ())
            ]
            if rows:
                yield table(["parameter", "in", "type", "limits"], rows)
            sent = [f"Body: {_body(c)}." for c in _contents(operation.get("requestBody", {}))]
            taken = [
                f"Response {status}: {_body(c)}."
                for status, response in operation["responses"].items()
                if status != "default"
                for c in _contents(response)
            ]
            yield " ".join([*sent, *taken])
    yield "Every other response is [`Error`](#error)."
    for name, schema in sorted(described["components"]["schemas"].items()):
        yield f"### {name}"
        yield from _schema(name, schema)


def _contents(of: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, content["schema"]) for kind, content in of.get("content", {}).items()]


def _body(content: tuple[str, dict[str, Any]]) -> str:
    kind, schema = content
    if kind != "application/json":
        return f"`{kind}`"
    text = _type(schema)
    if more := schema.get("description"):
        text += ", " + more[0].lower() + more[1:].rstrip(".")
    return text


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield one_line(schema.get("description"))
    if "properties" not in schema:
        values = ", ".join(code(str(value)) for value in schema.get("enum", ()))
        yield f"One of {values}." if values else ""
        return
    model = getattr(models, name, None)
    own = attribute_docs(model) if isinstance(model, type) else {}
    rows = []
    for field, one in schema["properties"].items():
        text = one.get("description") or own.get(field) or common_description(field)
        if not text:
            raise UndescribedError(
                f"`{field}` of {name}",
                "a string behind the field, or under [common] of tests/reference/json_output.toml",
            )
        rows.append([code(field), _type(one), one_line(text)])
    yield table(["key", "type", "is"], rows)


def _type(schema: dict[str, Any]) -> str:
    """Return a JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{anchor(name)})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if "const" in schema:
        return code(str(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    return "any" if "type" not in schema else str(schema["type"])


def _limits(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return f"default `{schema['default']}`"
    words = {"minimum": "from {}", "maximum": "to {}", "maxLength": "at most {} characters", "default": "default {}"}
    return ", ".join(word.format(schema[key]) for key, word in words.items() if key in schema)
