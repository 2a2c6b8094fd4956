"""The aiohttp application: who may have which handler run, look-ups by the shape of their path, errors as responses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from symcache.errors import EnvironmentFailure, FormatError, IntegrityError, NotFoundError, SymcacheError, UsageError
from symcache.text import printable
from symcache_server import api, pages, symbolicate
from symcache_server.config import ServerConfig
from symcache_server.http import health
from symcache_server.http.auth import Scope, path_for_logs, required_scope, requires, token_of, wait_for_access
from symcache_server.http.content import MISSING, SIGNATURE
from symcache_server.http.metrics import TYPE
from symcache_server.http.origins import cors_headers
from symcache_server.keys import CONFIG, LIMITS, TOKENS
from symcache_server.layouts import MAX_PATH, match, match_raw_cache
from symcache_server.lifetime import set_up
from symcache_server.lookup.handlers import send_lookup, send_raw_cache

__all__ = ["create_app"]

log = logging.getLogger("symcache.server")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_BODY = frozenset({hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH})
_READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_MAX_BODY = 4 << 20


def create_app(config: ServerConfig) -> web.Application:
    """Return the application over the library of `config`. Raises NotFoundError, StorageError.

    Raises LookupError if a route does not declare who may use it.
    """
    app = web.Application(middlewares=[_error_pages, _errors, _access], client_max_size=_MAX_BODY)
    set_up(app, config)
    app.on_response_prepare.append(_sign)
    health.register(app)
    api.register(app)
    pages.register(app)
    symbolicate.register(app)
    # All paths that have no route above.
    app.router.add_route("*", "/{path:.*}", _look_up, expect_handler=wait_for_access)
    for route in app.router.routes():
        required_scope(route.handler)
    return app


@requires(Scope.READ)
async def _look_up(request: web.Request) -> web.StreamResponse:
    """Respond to whatever has the shape of a look-up."""
    path = request.path
    if len(path) > MAX_PATH:
        raise web.HTTPRequestURITooLong(text=f"the path has {len(path)} characters where {MAX_PATH} are allowed\n")
    if lookup := match(path):
        request[TYPE] = lookup.layout
        if request.method not in _READS:
            raise web.HTTPMethodNotAllowed(request.method, sorted(_READS))
        return await send_lookup(request, lookup)
    if request.method in _READS and (file := match_raw_cache(path)):
        request[TYPE] = "raw-cache"
        return await send_raw_cache(request, file)
    methods: set[str] = set()
    for resource in request.app.router.resources():
        methods |= (await resource.resolve(request))[1]
    if methods := methods - {hdrs.METH_ANY}:
        raise web.HTTPMethodNotAllowed(request.method, sorted(methods))
    raise web.HTTPNotFound(text="nothing is at this path\n")


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every response has, and to those of the symbolication API the ones for other origins."""
    response.headers.update(SIGNATURE)
    if symbolicate.is_own_path(request.path):
        response.headers.update(cors_headers(request, request.app[CONFIG].origins))


@web.middleware
async def _error_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Show browsers a page that says why a request failed; everybody else gets a line of text."""
    response = await handler(request)
    if response.status < 400 or response.content_type != "text/plain" or not isinstance(response, web.Response):
        return response
    if not pages.wants_page(request) or request.path.startswith("/api/") or request.match_info.http_exception:
        return response
    reason, _, hint = (response.text or "").strip().partition("\nnext: ")
    shown = await pages.error_page(request, response.status, reason, hint)
    kept = {name: value for name, value in response.headers.items() if name not in _BODY}
    shown.headers.update(kept | {"Vary": "Accept"})
    return shown


@web.middleware
async def _access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run the handler if the client may use it, and does not use it too often."""
    if not request.headers.get(hdrs.HOST, "").isascii():
        refusal = _error_response(request, 400, "the Host field names no host")
        refusal.force_close()  # as after all that is no HTTP
        return refusal
    if not request.app[CONFIG].is_own_name(request.headers.get(hdrs.HOST, "")):
        raise web.HTTPMisdirectedRequest(
            text="this server responds under the names of its own machine alone: if it is reached by another one, as"
            " through a proxy, start it with --host-name NAME"
        )
    try:
        # For targets that are no path, such as `*`, aiohttp has handlers of its own.
        no_path = request.match_info.http_exception is not None
        scope = Scope.READ if no_path else required_scope(request.match_info.handler)
    except LookupError:
        raise web.HTTPForbidden(text="nobody may use this: it does not say who may") from None
    private = scope is not None and await _check_token(request, scope)
    request[TYPE] = "api" if request.path.startswith("/api/") else "page"
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        # Only now, after the token was checked, and not by aiohttp: see `wait_for_access`.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    response = await handler(request)
    if private and "Cache-Control" in response.headers:  # what needs a token is for nobody else's cache
        response.headers["Cache-Control"] = response.headers["Cache-Control"].replace("public", "private")
    return response


async def _check_token(request: web.Request, scope: Scope) -> bool:
    """Return whether a token was needed; it is valid then.

    Raises HTTPUnauthorized, HTTPForbidden, HTTPTooManyRequests.
    """
    app = request.app
    in_path = request.match_info.get("token")  # see `auth.PATH_PREFIX`
    open_to_all = scope is Scope.READ and app[CONFIG].open_reads and in_path is None
    token, limits = None, app[LIMITS]
    if not open_to_all or limits.on:
        await app[TOKENS].follow()
        token = app[TOKENS].find(token_of(request) or "" if in_path is None else in_path)
    if limits.on:  # guesses at tokens are counted, too
        known = token if token and not token.has_expired else None
        limits.check(request, known, upload=request.path.startswith("/api/v1/uploads"))
    if open_to_all:
        return False
    if token is None:
        raise web.HTTPUnauthorized(
            text=f"this needs a token that may {scope if in_path is None else 'have functions named'}"
        )
    if token.has_expired:
        raise web.HTTPUnauthorized(text=f"the token {token.name} has expired: ask for another one")
    if in_path is None and not token.may(scope):
        raise web.HTTPForbidden(text=f"the token {token.name} may not {scope}")
    if in_path is not None and not token.is_for_paths:
        raise web.HTTPForbidden(
            text=f"the token {token.name} is none for a path: send it as Authorization: Bearer, or have one made by"
            " `symcache token create NAME --names`"
        )
    return True


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into responses that say the reason."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _error_response(request, error.status, (error.text or error.reason).strip(), headers=_allow(error))
    except UsageError as error:
        return _error_response(request, 400, str(error), error.hint)
    except NotFoundError as error:
        return _error_response(request, 404, str(error), error.hint)
    except web.RequestPayloadError as error:
        return _error_response(request, 400, f"the body is not what its headers say: {str(error)[:200]}")
    except ConnectionError:
        raise  # the client has gone
    except OSError as error:
        log.error("%s %s: %s", request.method, path_for_logs(request.raw_path), error)
        return _error_response(request, 503, f"the server cannot use its files: {error.strerror or error}")
    except SymcacheError as error:
        if request.method not in _READS and isinstance(error, IntegrityError | FormatError):
            return _error_response(request, 422, str(error), error.hint)  # what the client sent is not what it said
        log.error("%s %s: %s", request.method, path_for_logs(request.raw_path), error)
        return _error_response(request, 503 if isinstance(error, EnvironmentFailure) else 500, str(error), error.hint)


def _allow(error: web.HTTPException) -> dict[str, str]:
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    if error.status == web.HTTPUnauthorized.status_code:
        headers["WWW-Authenticate"] = 'Basic realm="symcache", Bearer realm="symcache"'
    return headers


def _error_response(
    request: web.Request, status: int, reason: str, hint: str = "", headers: dict[str, str] | None = None
) -> web.Response:
    caching = "no-store"
    if status == web.HTTPNotFound.status_code:
        caching = MISSING if request.app[CONFIG].open_reads else MISSING.replace("public", "private")
    headers = {"Cache-Control": caching} | (headers or {})
    reason, hint = (request.app[CONFIG].without_paths(text) for text in (reason, hint))
    if request.path.startswith("/api/"):
        return web.json_response({"error": reason, "hint": hint}, status=status, headers=headers)
    if symbolicate.is_own_path(request.path):  # eliot's clients look for the one, samply's for the other
        return web.json_response({"title": reason, "error": reason, "hint": hint}, status=status, headers=headers)
    text = f"{reason}\n" + (f"next: {hint}\n" if hint else "")
    return web.Response(status=status, text=printable(text, keep="\n"), headers=headers)
