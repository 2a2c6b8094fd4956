"""The HTTP server: any UUID of a library, in the layouts that debuggers ask in."""

from server.application import create_app
from server.auth import Scope, TokenStore
from server.config import ServerConfig
from server.limits import parse_network
from server.process import run

__all__ = ["Scope", "ServerConfig", "TokenStore", "create_app", "parse_network", "run"]
