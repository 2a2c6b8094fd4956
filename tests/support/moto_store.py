"""A second S3-compatible object store on loopback, of other authors and in another language than SeaweedFS: moto."""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from tests.support.seaweed import make_bucket

__all__ = ["MOTO", "moto", "new_location"]

MOTO = "s3://libraries/moto/"
"""How locations in it begin."""
_locations = itertools.count(1)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@functools.cache
def moto(*, honours_conditions: bool = True) -> str:
    """Return the endpoint (`http://127.0.0.1:PORT`) of a store in this process, with the bucket `libraries`."""
    # They take half a second to import.
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application: Application = DomainDispatcherApplication(create_backend_app)
    if not honours_conditions:
        application = _without_conditions(application)
    # One request after another: it looks, and then writes, which others could come between.
    server = make_server("127.0.0.1", 0, application, threaded=False, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    atexit.register(server.shutdown)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    make_bucket(endpoint, "libraries")
    return endpoint


def new_location() -> str:
    """Return `s3://bucket/prefix` with a prefix that nothing is below."""
    return f"{MOTO}{next(_locations)}"


def _without_conditions(application: Application) -> Application:
    """Return a store as they were before 2024: it overwrites whatever the condition says."""

    def overwrite(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return application(environ, start_response)

    return overwrite
