"""The pages in a real Chromium, over a library that has all there is to show: what it makes of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from symcache.model import uuid_text
from tests.server.pages.scene import CONFLICT, CRYPTO, EVIL, OWN, crash_report, make_library
from tests.support.browser import chromium, violations
from tests.support.http import request
from tests.support.servers import Server, serve

_EVERY = bool(os.environ.get("SYMCACHE_TEST_EVERY_SCREEN"))
"""Each page at each width in both colour schemes, instead of one of both each: axe takes its time."""
_SCREENS = [(400, "light"), (1280, "dark"), *([(400, "dark"), (1280, "light")] if _EVERY else [])]
_IMAGE = f"/images/{uuid_text(CRYPTO)}"
PAGES = (
    *("/?betas=1", "/search?q=coreml", "/search?q=15.4+Intel", "/search?q=nobody", "/releases/22G120?q=cloud"),
    *("/releases/24E248?q=usr/lib/%3Cs", "/diff/22G120/23F79?q=cloud", _IMAGE, f"/images/{uuid_text(CONFLICT)}"),
    *(f"{_IMAGE}/symbols", "/missing", "/status", "/report", "/nothing"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pages")
    with serve(make_library(folder), folder / "server", "--host-name", "symbols.example") as running:
        for _ in range(3):
            request(running.url, "/AppKit/mach-uuid-" + "cd" * 16 + "/AppKit")
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 1280, "height": 800}) as made:
        yield made


def _open(context: BrowserContext, server: Server, path: str, problems: list[str] | None = None) -> Page:
    page = context.new_page()
    if problems is not None:
        page.on("pageerror", lambda error: problems.append(f"{path}: {error}"))
        page.on(
            "console", lambda message: problems.append(f"{path}: {message.text}") if "Refused" in message.text else None
        )
    page.goto(server.url + path)
    return page


def _is_wider(page: Page, width: int) -> bool:
    page.set_viewport_size({"width": width, "height": 800})
    return bool(page.evaluate("document.documentElement.scrollWidth") > width)


def test_every_page_is_whole_and_fits_every_screen(context: BrowserContext, server: Server) -> None:
    problems: list[str] = []
    for path in PAGES:
        page = _open(context, server, path, problems)
        assert page.locator("main h1").count() == 1, path
        widths = (360, 400, 768, 1280, 2560) if _EVERY else (360, 1280)
        problems += [f"{path} is wider than {width}" for width in widths if _is_wider(page, width)]
        page.close()
    assert problems == []


def test_pages_are_whole_without_script(browser: Browser, server: Server) -> None:
    problems: list[str] = []
    with browser.new_context(java_script_enabled=False) as context:
        for path in PAGES if _EVERY else PAGES[::3]:
            assert _open(context, server, path, problems).locator("main h1").count() == 1, path
        page = _open(context, server, "/", problems)
        page.locator("#q").fill("cloudkit")
        page.get_by_role("button", name="Search").click()
        page.locator("main .name").first.click()
        assert page.locator("main a.uuid").count() > 1
    assert problems == []


@pytest.mark.parametrize(("width", "scheme"), _SCREENS)
def test_axe_finds_nothing(browser: Browser, server: Server, width: int, scheme: str) -> None:
    found: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        for path in PAGES if _EVERY else PAGES[width == 400 :: 2]:
            page.goto(server.url + path)
            found += [f"{path}: {text}" for text in violations(page)]
    assert found == []


def test_suggestions_come_as_one_types_and_the_keys_choose_one(context: BrowserContext, server: Server) -> None:
    page = _open(context, server, "/")
    page.locator("#q").press_sequentially("libcrypto")
    page.locator("#q-list li").first.wait_for()
    page.keyboard.press("ArrowDown")
    assert page.locator("#q-list [aria-selected=true] b").inner_text() == "libcrypto_seal.dylib"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{_IMAGE}")


def test_images_are_filtered_as_one_types_and_the_count_is_told(context: BrowserContext, server: Server) -> None:
    page = _open(context, server, "/releases/23F79")
    page.locator("#filter").press_sequentially("cloudkit")
    page.get_by_text("1–6 of 6").first.wait_for()
    assert page.url.endswith("q=cloudkit")
    names = page.locator("#listing tbody .name").all_inner_texts()
    assert set(names) == {"CloudKit", "CloudKitInternal"}


def test_a_pasted_list_of_uuids_says_of_each_whether_it_is_held(context: BrowserContext, server: Server) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = _open(context, server, "/")
    page.evaluate("text => navigator.clipboard.writeText(text)", f"{CRYPTO}\n{uuid_text(OWN)} libledger\n{'ef' * 16}\n")
    page.locator("#q").press("Control+V")
    page.get_by_role("heading", name="3 UUIDs, 2 held").wait_for()
    states = page.locator("main .state").all_inner_texts()
    assert [state.strip() for state in states] == ["held", "held", "missing"]
    marks = page.locator("main .state use").evaluate_all("uses => uses.map(use => use.getAttribute('href'))")
    assert marks == ["#m-complete", "#m-complete", "#m-missing"]


def test_names_of_strangers_are_text(context: BrowserContext, server: Server) -> None:
    for path in ("/releases/24E248?q=usr/lib", "/search?q=<script>", "/search?q=%3Cimg%20src%3Dx%20onerror%3D1%3E"):
        page = _open(context, server, path)
        assert page.title() != "run"
        assert page.locator("main script, main img").count() == 0
        assert "\u202e" not in page.content()
    page = _open(context, server, "/releases/24E248?q=usr/lib")
    assert "{{7*7}}" in page.locator("main").inner_text()
    assert "<script>document.title='run'</script>" in page.locator("main").inner_text()
    assert EVIL[2].partition("red")[0] not in page.content()


def test_commands_can_be_copied(context: BrowserContext, server: Server) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = _open(context, server, _IMAGE)
    page.get_by_role("button", name="Copy symcache get").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"symcache get {uuid_text(CRYPTO)} --server {server.url} -o libcrypto_seal.dylib"


def test_contents_are_one_row_each_and_say_what_answers(context: BrowserContext, server: Server) -> None:
    rows = _open(context, server, _IMAGE).locator(".contents tbody tr")
    states = rows.locator(".state").all_inner_texts()
    assert [state.strip() for state in states] == ["served", "pinned", "pinned", "outranked"]
    assert "15.4" in rows.first.inner_text()
    states = _open(context, server, f"/images/{uuid_text(CONFLICT)}").locator(".contents .state").all_inner_texts()
    assert [state.strip() for state in states] == ["served", "conflict"]


def test_symbols_are_searched_and_demangled(context: BrowserContext, server: Server) -> None:
    page = _open(context, server, f"{_IMAGE}/symbols?q=ledger")
    assert page.locator("#listing .symbol").first.inner_text() == "ledger::balance(ledger::Entry const&, int)"
    assert page.locator("#listing tbody tr").count() == 1


@pytest.mark.parametrize("script", [True, False], ids=["pasted", "by form, no script"])
def test_a_crash_report_is_named(browser: Browser, server: Server, script: bool) -> None:
    text = crash_report(Path(str(server.first_line["library"])))
    with browser.new_context(java_script_enabled=script) as context:
        page = _open(context, server, "/" if script else "/report")
        if script:
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            page.evaluate("text => navigator.clipboard.writeText(text)", text)
            page.locator("#q").press("Control+V")
        else:
            page.set_input_files("#file", {"name": "a.crash", "mimeType": "text/plain", "buffer": text.encode()})
            page.get_by_role("button", name="Name it").first.click()
        page.get_by_role("heading", name="Thread 1 crashed").wait_for()
        rows = page.locator("section .frames tbody tr").all_inner_texts()
        # Of total, round_up is inlined; report has both inlined.
        assert [row.split()[2] for row in rows[:5]] == ["round_up", "total", "round_up", "total", "report"]
        assert ["inlined" in row for row in rows[:5]] == [True, False, True, True, False]
        assert "libledger.dylib.c:3" in rows[0]
        assert "ledger::balance(ledger::Entry const&, int)" in rows[5]
        assert [("not named" in row) for row in rows[6:]] == [True] * 3
        states = [state.strip() for state in page.locator("#modules ~ table .state").all_inner_texts()]
        assert states == ["named from its dSYM", "named by symbols", "not held", "not held", "not held"]
        assert "harvest it again" in page.locator("main").inner_text()
        assert page.locator("main img").count() == 0
        assert violations(page) == [] if script else True


def test_a_dropped_file_is_named_too(context: BrowserContext, server: Server) -> None:
    page = _open(context, server, "/")
    text = crash_report(Path(str(server.first_line["library"])))
    page.evaluate(
        """text => { const data = new DataTransfer(); data.items.add(new File([text], "a.ips"));
        for (const type of ["dragover", "drop"])
          document.body.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true})); }""",
        text,
    )
    page.get_by_role("heading", name="Ledger crashed").wait_for()


def test_forms_are_taken_over_plain_http_from_another_machine(context: BrowserContext, server: Server) -> None:
    """Where browsers send no Sec-Fetch-Site, only the Origin says whose form it is."""
    page = context.new_page()
    page.goto(f"http://symbols.example:{urlsplit(server.url).port}/report")
    page.locator("#text").fill(crash_report(Path(str(server.first_line["library"]))))
    page.get_by_role("button", name="Name it").last.click()
    page.get_by_role("heading", name="Ledger crashed").wait_for()


def test_a_report_is_a_document_too_and_kept_nowhere(server: Server) -> None:
    text = crash_report(Path(str(server.first_line["library"])))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = f"report={quote(text)}".encode()
    answer = request(server.url, "/report.json", method="POST", headers=form, body=body)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    document = json.loads(answer.body)
    assert document["crashed"]["frames"][0]["function"] == "round_up"
    assert "round_up" in document["text"]
    assert document["markdown"].startswith("**Ledger** 3.1 on macOS 14.5")
    iphone = f"report={quote(text.replace('macOS 14.5 (23F79)', 'iPhone OS 17.5 (21F79)'))}".encode()
    wanting = json.loads(request(server.url, "/report.json", method="POST", headers=form, body=iphone).body)["wanting"]
    assert [m["why"] for m in wanting if (m["path"] or "").endswith("AppKit")] == ["harvest iOS 21F79"]
    page = request(server.url, "/report", method="POST", headers=form, body=body)
    assert (page.status, page.headers["cache-control"]) == (200, "no-store")
    for path in server.folder.rglob("*"):
        if path.is_file():
            assert b"/Users/ada" not in path.read_bytes(), path
    for wrong in (b"report=", b"report=nothing+of+the+kind"):
        answer = request(server.url, "/report", method="POST", headers=form | {"Accept": "text/html"}, body=wrong)
        assert 400 <= answer.status < 500
        assert b"<h1>" in answer.body
    foreign = form | {"Sec-Fetch-Site": "cross-site"}
    assert request(server.url, "/report", method="POST", headers=foreign, body=body).status == 403


def test_every_page_is_a_document_too(server: Server) -> None:
    for path in ("/index?betas=1", *PAGES[1:-2]):
        before, mark, after = path.partition("?")
        answer = request(server.url, f"{before}.json{mark}{after}")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), path
        assert isinstance(json.loads(answer.body), dict)
    start = json.loads(request(server.url, "/index.json").body)
    cells = {
        (r["build"], c["arch"]): c["state"] for r in start["releases"] for c in r["cells"] if c["family"] == "system"
    }
    assert cells == {
        ("24E248", "arm64e"): "complete",
        ("24E248", "x86_64"): "complete",
        ("24E248", "x86_64h"): "missing",
        **{("23F79", arch): "complete" for arch in ("arm64e", "x86_64", "x86_64h")},
        ("22G120", "arm64e"): "partial",
        ("22G120", "x86_64"): "partial",
        ("22G120", "x86_64h"): "missing",
    }
    assert start["betas_hidden"] == 1


def test_errors_are_pages_for_browsers_and_text_for_debuggers(context: BrowserContext, server: Server) -> None:
    page = _open(context, server, "/images/" + "0" * 32)
    assert page.locator("h1").inner_text() == "Not Found"
    assert page.locator("#q").count() == 1
    page = _open(context, server, "/buildid/" + "0" * 32 + "/executable")
    assert page.locator("h1").inner_text() == "Not Found"
    for path in ("/images/" + "0" * 32, "/buildid/" + "0" * 32 + "/executable"):
        assert request(server.url, path).headers["content-type"].startswith("text/plain"), path
    answer = request(server.url, "/images/" + "0" * 32 + ".json")
    assert (answer.status, "error" in json.loads(answer.body)) == (404, True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_forms_of_other_sites_are_refused(server: Server, headers: dict[str, str], status: int) -> None:
    body = f"q={CRYPTO}+{OWN}".encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert request(server.url, "/search", method="POST", headers=form | headers, body=body).status == status
    if headers.get("Origin"):
        own = {"Origin": server.url}
        assert request(server.url, "/search", method="POST", headers=form | own, body=body).status == 200


def test_a_download_is_the_content_of_its_row(server: Server) -> None:
    contents = json.loads(request(server.url, f"{_IMAGE}.json").body)["contents"]
    hashes = [hashlib.sha256(request(server.url, c["link"]).body).hexdigest() for c in contents]
    assert hashes == [c["sha256"] for c in contents]
    assert len(set(hashes)) == 4
