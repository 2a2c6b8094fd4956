"""Pages show what is held, and nothing that a binary's name says to the browser is obeyed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin
from uuid import UUID

from symcache.library import Library, ingest, stage_paths
from symcache.model import Kind, uuid_text
from symcache_server.pages.image import _document
from tests.library.images import Image, harvest
from tests.support.http import request
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server, serve, stage_variant


class _Links(HTMLParser):
    """Collects what a page links to, which elements it has, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"href", "src", "action"} and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def _page(server: Server, path: str) -> _Links:
    answer = request(server.url, path)
    assert answer.status == 200, (path, answer.body)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = _Links()
    page.feed(answer.body.decode())
    return page


def test_every_link_leads_somewhere(server: Server, samples: Samples) -> None:
    seen, waiting = set(), ["/"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = request(server.url, path)
        assert answer.status in {200, 302}, path
        if answer.headers.get("content-type", "").startswith("text/html"):
            page = _page(server, path)
            for link in page.links:
                target = urljoin(server.url + path, link).partition("#")[0]
                assert target.startswith(server.url), link
                # What is made of an image takes a process of its own; a form needs its fields: other tests have them.
                if not target.endswith((".sym", "/symbols", "/diff")):
                    waiting.append(target.removeprefix(server.url))
    assert {"/releases/22G120", "/releases/23A344", f"/images/{uuid_text(SHARED_UUID)}", "/status"} <= seen
    assert {"/style.css", "/script.js", "/icon.svg"} <= {path.partition("?")[0] for path in seen}
    content = hashlib.sha256(samples.variants["22G120"].read_bytes()).hexdigest()
    assert f"/images/{uuid_text(SHARED_UUID)}/{content}" in seen


def test_search_finds_names_and_uuids(server: Server, samples: Samples) -> None:
    page = _page(server, "/search?q=libmov*")
    assert f"/images/{uuid_text(SHARED_UUID)}" in page.links
    assert page.text.count("libmoved.dylib") == 2
    for text in ("LIBMOVED", "usr lib moved", "/usr/lib/libmoved.dylib", "libmoved.dylib"):
        answer = request(server.url, f"/search?q={quote(text)}")
        assert (answer.status, answer.headers["location"]) == (302, f"/images/{uuid_text(SHARED_UUID)}"), text
    for text in ("22g120", "13.6", "macOS 13", "Ventura"):
        answer = request(server.url, f"/search?q={quote(text)}")
        assert (answer.status, answer.headers["location"]) == (302, "/releases/22G120"), text
    content = hashlib.sha256(samples.variants["22G120"].read_bytes()).hexdigest()
    assert (
        request(server.url, f"/search?q={content}").headers["location"].startswith(f"/images/{uuid_text(SHARED_UUID)}#")
    )
    cache = uuid_text(CACHES["23A344"])
    assert request(server.url, f"/search?q={cache}").headers["location"] == "/releases/23A344"
    for text in (str(SHARED_UUID), SHARED_UUID.hex.upper(), f"  {SHARED_UUID} "):
        answer = request(server.url, f"/search?q={quote(text)}")
        assert (answer.status, answer.headers["location"]) == (302, f"/images/{uuid_text(SHARED_UUID)}")
    assert "Nothing here is called so" in _page(server, "/search?q=nothing").text
    assert request(server.url, f"/images/{'0' * 32}").status == 404
    assert request(server.url, "/images/x").status == 400
    assert request(server.url, "/releases/22G120?from=x").status == 400


def test_names_from_strangers_are_text(samples: Samples, tmp_path: Path) -> None:
    evil = "/usr/lib/<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}\u202e.dylib"
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, stage_variant(samples.variants["22G120"], "22G120", None, evil))
    with serve(tmp_path / "library", tmp_path / "server") as server:
        for path in (
            f"/images/{SHARED_UUID}",
            "/releases/22G120",
            "/search?q=*script*",
            f"/search?q={quote(evil)}",
            f"/search?q={quote('<script> nobody')}",
        ):
            page = _page(server, path)
            assert page.tags.count("script") == 1, path  # which comes from here, and has an address
            assert "img" not in page.tags, path
            assert "\u202e" not in page.text, path
        assert "{{7*7}}" in _page(server, f"/images/{SHARED_UUID}").text
        answer = request(server.url, f"/buildid/{SHARED_UUID.hex}/executable")
        assert answer.status == 200
        assert "<" not in answer.headers["x-symcache-path"]


def test_a_download_is_what_its_row_says(samples: Samples, tmp_path: Path) -> None:
    """Of one shared cache two harvests that contradict each other, of another tool a third one, and an added file."""
    one, two = samples.variants.values()
    files = [tmp_path / f"{number}.dylib" for number in range(4)]
    for number, file in enumerate(files):
        file.write_bytes((one, two)[number % 2].read_bytes() + bytes(number))
    with Library.open(tmp_path / "library", create=True) as library:
        for file, extractor in zip(files[:3], ("symcache", "symcache", "dyld_shared_cache_util"), strict=True):
            staged = stage_variant(file, "22G120", CACHES["22G120"], "/usr/lib/libmoved.dylib")
            staged.objects = [replace(staged.objects[0], size=file.stat().st_size, extractor=extractor)]
            ingest(library, staged)
        ingest(library, stage_paths([files[3]], tmp_path / "scratch"))
    with serve(tmp_path / "library", tmp_path / "server") as server:
        page = _page(server, f"/images/{SHARED_UUID}")
        links = [link for link in page.links if re.fullmatch("/images/[^/]*/[0-9a-f]{64}", link)]
        shown = re.findall("([0-9a-f]{16})…", page.text)
        got = [hashlib.sha256(request(server.url, link).body).hexdigest() for link in links]
        assert [content[:16] for content in got] == shown
        assert sorted(got) == sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        assert request(server.url, f"/images/{SHARED_UUID}/{'0' * 64}").status == 404
        assert request(server.url, f"/images/{SHARED_UUID}/{got[0]}x").status == 404
        assert request(server.url, f"/images/{UUID(int=1)}/{got[0]}").status == 404


def test_misses_are_shown(server: Server) -> None:
    request(server.url, "/buildid/" + "ab" * 16 + "/debuginfo")
    page = _page(server, "/missing")
    assert "ABABABAB-ABAB-ABAB-ABAB-ABABABABABAB" in page.text


def test_commands_to_paste_have_no_name_that_a_shell_obeys(tmp_path: Path) -> None:
    names = {"libz.1.dylib": "libz.1.dylib", "a;reboot": "image", "$(reboot)": "image", "a|b": "image", "-rf": "image"}
    images = {name: Image(f"/usr/lib/{name}", 5 + number) for number, name in enumerate(names)}
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, harvest(tmp_path / "from", list(images.values())))
        nothing = dict.fromkeys(Kind)
        found = {name: _document(library, one.uuid, nothing)["file_name"] for name, one in images.items()}
    assert found == names
