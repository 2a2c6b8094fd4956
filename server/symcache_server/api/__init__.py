"""The JSON API below `/api/v1`, described by the OpenAPI document that it serves itself."""

from symcache_server.api.handlers import register

__all__ = ["register"]
