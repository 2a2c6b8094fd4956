"""The HTTP server: any UUID of a library, in the layouts that debuggers look it up in."""

from symcache_server.application import create_app
from symcache_server.config import ServerConfig
from symcache_server.http.auth import Scope, TokenStore
from symcache_server.http.limits import parse_network
from symcache_server.process import run

__all__ = ["Scope", "ServerConfig", "TokenStore", "create_app", "parse_network", "run"]
