"""Names for addresses over HTTP, as Mozilla's symbolication API has it: `/symbolicate/v5` and `/source/v1`."""

from symcache_server.symbolicate.handlers import is_own_path, register

__all__ = ["is_own_path", "register"]
