"""The pages in a real browser: what it makes of them, not what was sent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from symcache.library import Library, ingest
from symcache.model import uuid_text
from tests.support.http import request
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, serve, stage_variant

_CHROMIUM = Path("/usr/bin/chromium")
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not _CHROMIUM.exists():
        pytest.skip("not installed: chromium")


def _dom(url: str, folder: Path) -> str:
    """Return the document as Chromium has it after loading."""
    profile = folder / f"profile-{len(list(folder.glob('profile-*')))}"
    command = [_CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_pages_show_what_is_held(server: Server, tmp_path: Path) -> None:
    request(server.url, "/buildid/" + "cd" * 16 + "/executable")
    shared = uuid_text(SHARED_UUID)
    for path, shown in (
        ("/", ["22G120", "23A344", 'href="/releases/22G120"']),
        ("/releases/22G120", ["/usr/lib/libmoved.dylib", "/usr/lib/liblarge.dylib", shared]),
        (f"/images/{shared}", [shared, *map(uuid_text, CACHES.values())]),
        ("/missing", ["CDCDCDCD-CDCD-CDCD-CDCD-CDCDCDCDCDCD"]),
    ):
        document = _dom(server.url + path, tmp_path)
        for text in shown:
            assert text in document, (path, text)


def test_a_name_that_is_a_script_does_not_run(samples: Samples, tmp_path: Path) -> None:
    evil = "/usr/lib/<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">.dylib"
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, stage_variant(samples.variants["22G120"], "22G120", None, evil))
    with serve(tmp_path / "library", tmp_path / "server") as server:
        document = _dom(f"{server.url}/images/{uuid_text(SHARED_UUID)}", tmp_path)
    assert "&lt;script&gt;document.title" in document
    assert "<title>run" not in document
    assert "<script" not in document
