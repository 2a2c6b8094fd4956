"""What `symcache demo` says at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from symcache.cli.demo import _next_steps, _Workshop


def test_with_keep_it_ends_with_the_address_of_the_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = "http://127.0.0.1:12345"
    _next_steps(_Workshop(tmp_path, tmp_path, keep=True), url, "22G120")
    shown = capfd.readouterr()
    assert (shown.out + shown.err).rstrip().endswith(url)
    _next_steps(_Workshop(tmp_path, tmp_path, keep=False), url, "22G120")
    shown = capfd.readouterr()
    assert url not in shown.out + shown.err
