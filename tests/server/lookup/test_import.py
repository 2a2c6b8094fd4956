"""`symcache missing` reads the log of misses alone: that must not cost what importing a web server costs."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import symcache_server.lookup.misses
print(*sorted({"aiohttp", "jinja2", "prometheus_client"} & sys.modules.keys()))
"""


def test_the_log_of_misses_is_imported_without_the_web_server() -> None:
    result = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.split() == []
