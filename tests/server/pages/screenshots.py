"""`python -m tests.server.pages.screenshots FOLDER`: the pictures of pages that README and docs show."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.server.pages.scene import crash_report, make_library
from tests.support.browser import chromium
from tests.support.http import request
from tests.support.servers import serve

__all__ = ["main"]

_PICTURES = {
    "start": ("/", 1280, "light"),
    "report": ("/report", 1280, "light"),
}


def main(target: Path) -> None:
    """Make a library, serve it, and take the pictures."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="symcache-screenshots-") as folder, chromium() as browser:
        work = Path(folder)
        with serve(make_library(work), work / "server") as server:
            for name in ("AppKit", "AppKit", "Ledger"):
                request(server.url, f"/{name}/mach-uuid-{name.encode().hex().ljust(32, '0')}/{name}")
            for name, (path, width, scheme) in _PICTURES.items():
                size = {"width": width, "height": 800}
                with browser.new_context(viewport=size, color_scheme=scheme) as context:  # type: ignore[arg-type]
                    page = context.new_page()
                    page.goto(server.url + path)
                    if path == "/report":
                        page.locator("#text").fill(crash_report(work / "library"))
                        page.get_by_role("button", name="Name it").last.click()
                        page.get_by_role("heading", name="crashed").first.wait_for()
                    page.screenshot(path=target / f"{name}.png")
                    print(target / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
