"""One library and one server for all tests that only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import Samples, Server, make_samples, serve


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="session")
def server(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(samples.library, Path(tmp_path_factory.mktemp("server")), "--host-name", "symbols.example") as running:
        yield running
