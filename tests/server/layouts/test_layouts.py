"""Every layout finds every image, whatever it is called and however its digits are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote
from uuid import UUID

import pytest

from symcache_server.layouts import match
from tests.support.http import request
from tests.support.servers import CACHES, SHARED_UUID, Samples, Server

# The paths are written out as each layout's own documentation gives them, for one UUID.
UUID_TEXT = "23516BE4-29BE-350C-91C9-F36E7999F0F1"
LOWER, UPPER = "23516be429be350c91c9f36e7999f0f1", "23516BE429BE350C91C9F36E7999F0F1"
RESERVED = [
    *("api", "build", "buildid", "cache", "caches", "executable", "debuginfo", "healthz", "images", "metrics"),
    *("missing", "readyz", "releases", "search", "section", "source", "static", "v1", "openapi.json", "symbols"),
    *("mach-uuid-" + LOWER, "_.dwarf", "23", "2351", "a b", "libz.1.dylib", "ä.dylib", "C++", "100%", "#1?"),
]


def named_paths(name: str, digits: str) -> list[tuple[str, str]]:
    quoted = quote(name)
    paths = [
        (f"/{quoted}/{digits.upper()}0/{quoted}.sym", "breakpad"),
        (f"/{quoted}/{digits.lower()}0/{quoted}.sym", "breakpad"),
    ]
    if name != "_.dwarf":
        paths += [
            (f"/{quoted}/mach-uuid-{digits}/{quoted}", "executable"),
            (f"/{quote(name[:2])}/{quoted}/mach-uuid-{digits}/{quoted}", "executable"),
        ]
    return paths


def plain_paths(digits: str) -> list[tuple[str, str]]:
    tree = "/".join([*(digits[n : n + 4] for n in range(0, 20, 4)), digits[20:]])
    return [
        (f"/buildid/{digits}/executable", "executable"),
        (f"/buildid/{digits}/debuginfo", "debuginfo"),
        (f"/{digits[:2]}/{digits[2:]}/executable", "executable"),
        (f"/{digits[:2]}/{digits[2:]}/debuginfo", "debuginfo"),
        (f"/{digits[:2]}/{digits[2:]}/meta", "meta"),
        (f"/{digits[:2]}/{digits[2:]}/breakpad", "breakpad"),
        (f"/{tree}", "debuginfo"),
        (f"/{tree}.app", "executable"),
        (f"/_.dwarf/mach-uuid-sym-{digits}/_.dwarf", "debuginfo"),
        (f"/_./_.dwarf/mach-uuid-sym-{digits}/_.dwarf", "debuginfo"),
    ]


def test_the_documented_example_is_found_in_every_layout() -> None:
    for path in (
        "/buildid/23516be429be350c91c9f36e7999f0f1/executable",
        f"/buildid/{UUID_TEXT}/executable",
        "/libz.1.dylib/mach-uuid-23516be429be350c91c9f36e7999f0f1/libz.1.dylib",
        "/23/516be429be350c91c9f36e7999f0f1/executable",
        "/2351/6BE4/29BE/350C/91C9/F36E7999F0F1.app",
    ):
        wanted = match(path)
        assert wanted, path
        assert (wanted.image.uuid, wanted.what) == (UUID(UUID_TEXT), "executable"), path


@pytest.mark.parametrize("digits", [LOWER, UPPER])
@pytest.mark.parametrize("pin", ["", f"/cache/{UUID_TEXT}", f"/cache/{LOWER}", "/build/22G120", "/build/build"])
def test_no_name_and_no_case_hides_an_image(digits: str, pin: str) -> None:
    from urllib.parse import unquote

    for path, what in [*plain_paths(digits), *(p for name in RESERVED for p in named_paths(name, digits))]:
        wanted = match(unquote(pin + path))
        assert wanted, pin + path
        assert (wanted.image.uuid, wanted.what) == (UUID(UUID_TEXT), what), pin + path
        assert wanted.image.build == (pin.removeprefix("/build/") if pin.startswith("/build/") else None)
        assert wanted.image.cache == (UUID(UUID_TEXT) if pin.startswith("/cache/") else None)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/metrics",
            "/api/v1/releases",
            "/releases/22G120",
            f"/images/{UUID_TEXT}",
            f"/api/v1/uuids/{UUID_TEXT}",
        ),
        f"/buildid/{LOWER}",
        f"/buildid/{LOWER}0/executable",
        f"/buildid/{LOWER}/executable/",
        f"/buildid/{LOWER}/executable\n",
        f"/x/buildid/{LOWER}/executable",
        f"//buildid/{LOWER}/executable",
        f"/libz/mach-uuid-{LOWER}/other",
        f"/libz/mach-uuid-sym-{LOWER}/libz",
        f"/libz/{UPPER}1/libz.sym",
        f"/build/22G120/build/22G120/buildid/{LOWER}/executable",
        f"/cache/{LOWER}/build/22G120/buildid/{LOWER}/executable",
    ],
)
def test_what_only_resembles_a_layout_is_none(path: str) -> None:
    assert match(path) is None


def _ask(server: Server, path: str) -> bytes:
    answer = request(server.url, path)
    assert answer.status == 200, (path, answer)
    return answer.body


def test_binary_and_dsym_of_one_uuid_are_told_apart_in_every_layout(server: Server, samples: Samples) -> None:
    expected: dict[str, Callable[[], bytes]] = {
        "executable": samples.dylib.read_bytes,
        "debuginfo": samples.dsym.read_bytes,
    }
    for digits in (samples.uuid.hex, samples.uuid.hex.upper()):
        paths = [*plain_paths(digits), *(p for name in RESERVED for p in named_paths(name, digits))]
        for path, what in paths:
            if what in expected:
                assert _ask(server, path) == expected[what](), path
    meta = json.loads(_ask(server, f"/{samples.uuid.hex[:2]}/{samples.uuid.hex[2:]}/meta"))
    assert meta == {"name": "libanswer.dylib", "arch": "x86_64", "file_format": "macho"}


def test_a_pin_chooses_the_variant_and_the_newest_sealed_release_answers_without(
    server: Server, samples: Samples
) -> None:
    hexed = SHARED_UUID.hex
    for path, _ in [p for p in plain_paths(hexed) if p[1] == "executable"]:
        for build, image in samples.variants.items():
            assert _ask(server, f"/build/{build}{path}") == image.read_bytes()
            assert _ask(server, f"/cache/{CACHES[build]}{path}") == image.read_bytes()
            assert _ask(server, f"/cache/{CACHES[build].hex}{path}") == image.read_bytes()
        assert _ask(server, path) == samples.variants["23A344"].read_bytes()
    answer = request(server.url, f"/buildid/{hexed}/executable", method="HEAD")
    assert answer.headers["x-symcache-build"] == "23A344"
    assert UUID(answer.headers["x-symcache-cache"]) == CACHES["23A344"]


def test_a_pin_hides_other_variants_but_not_what_is_in_no_cache_or_release(server: Server, samples: Samples) -> None:
    foreign = UUID(int=5)
    assert request(server.url, f"/cache/{foreign}/buildid/{SHARED_UUID.hex}/executable").status == 404
    assert request(server.url, f"/build/99Z9/buildid/{SHARED_UUID.hex}/executable").status == 404
    own = samples.dylib.read_bytes()
    for pin in (f"/cache/{foreign}", f"/cache/{CACHES['22G120']}", "/build/22G120", "/build/99Z9"):
        assert _ask(server, f"{pin}/buildid/{samples.uuid.hex}/executable") == own


def test_kind_is_never_guessed(server: Server) -> None:
    assert request(server.url, f"/buildid/{SHARED_UUID.hex}/debuginfo").status == 404
