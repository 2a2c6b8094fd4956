"""The HTTP server: any UUID of a library, in the layouts that debuggers ask in."""

from server.application import create_app
from server.config import ServerConfig
from server.process import run

__all__ = ["ServerConfig", "create_app", "run"]
