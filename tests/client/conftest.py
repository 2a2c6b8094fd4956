"""One library and one server for all tests that only read."""

from tests.server.conftest import samples, server

__all__ = ["samples", "server"]
