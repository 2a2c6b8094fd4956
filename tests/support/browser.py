"""A real Chromium, driven by Playwright: the system's own, since Playwright's would be another download."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

__all__ = ["chromium", "violations"]

_CHROMIUM = Path("/usr/bin/chromium")
_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    "--host-resolver-rules=MAP symbols.example 127.0.0.1",  # whose pages are those of another machine
]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; skip where it is not installed."""
    if not _CHROMIUM.exists():
        pytest.skip("not installed: chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(_CHROMIUM), args=_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


def violations(page: object) -> list[str]:
    """Return what axe-core finds that keeps people from using a page: rule, impact, and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{v['id']} ({v['impact']}): {v['nodes'][0]['html'][:200]}" for v in found]
