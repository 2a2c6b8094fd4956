"""The HTTP server: any UUID of a library, in the layouts that debuggers look it up in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.late_imports import late_imports

if TYPE_CHECKING:
    from symcache_server.application import create_app
    from symcache_server.config import ServerConfig
    from symcache_server.http.auth import PATH_PREFIX, Scope, TokenStore
    from symcache_server.http.limits import parse_network
    from symcache_server.process import run

__all__ = ["PATH_PREFIX", "Scope", "ServerConfig", "TokenStore", "create_app", "parse_network", "run"]

# What needs the web framework, which takes a second to import: the log of misses is read without it.
__getattr__ = late_imports(
    __name__,
    {
        "application": ("create_app",),
        "config": ("ServerConfig",),
        "http.auth": ("PATH_PREFIX", "Scope", "TokenStore"),
        "http.limits": ("parse_network",),
        "process": ("run",),
    },
)
