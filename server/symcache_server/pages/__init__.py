"""Pages for people: what the library holds, how complete it is, and what was requested in vain.

Every page is one document of plain data: a template shows it, and behind `.json` it is sent as it is. All parts of a
page come from here, and the one script only improves what works without it.
"""

from symcache_server.pages.handlers import register
from symcache_server.pages.render import error_page, wants_page

__all__ = ["error_page", "register", "wants_page"]
