"""Pages for people: what the library holds and what was requested in vain. Plain HTML, all from here."""

from symcache_server.pages.handlers import register

__all__ = ["register"]
