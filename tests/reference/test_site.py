"""The site's pages link to each other as README and docs do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.site import navigation, relinked


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "Makefile",
        "docs/server.md",
        "docs/howto/nginx.md",
        "docs/howto/ci.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# Title\n")
    return tmp_path


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("index.md", "[a](docs/server.md#pages)", "[a](server.md#pages)"),
        ("index.md", "![a](docs/howto)", "![a](howto)"),
        ("server.md", "[a](../README.md#settings)", "[a](index.md#settings)"),
        ("howto/ci.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("howto/ci.md", "[a](nginx.md) [b](../server.md)", "[a](nginx.md) [b](../server.md)"),
        ("server.md", "[a](../Makefile)", "[a](https://github.com/think-cell/symcache/blob/main/Makefile)"),
        ("server.md", "[a](#pages) [b](https://x.example/y)", "[a](#pages) [b](https://x.example/y)"),
        ("server.md", "[a](gone.md)", "[a](gone.md)"),  # MkDocs says that it leads nowhere
        (
            "server.md",
            "`[a](../Makefile)`\n```\n[a](../Makefile)\n```\n",
            "`[a](../Makefile)`\n```\n[a](../Makefile)\n```\n",
        ),
    ],
)
def test_links_lead_within_the_site_or_to_the_source(project: Path, page: str, text: str, expected: str) -> None:
    assert relinked(text, page, project) == expected


def test_the_navigation_is_what_there_is(project: Path) -> None:
    wanted = ["index.md", "tutorial.md", {"How": ["howto/*.md", "planning.md"]}, {"None": ["gone.md"]}, "*.md"]
    assert navigation(wanted, project) == [
        "index.md",
        {"How": ["howto/ci.md", "howto/nginx.md"]},
        "contributing.md",
        "server.md",
    ]
    assert navigation([{"Server": "server.md"}, "howto/nginx.md", "howto/*.md"], project) == [
        {"Server": "server.md"},
        "howto/nginx.md",
        "howto/ci.md",
    ]
