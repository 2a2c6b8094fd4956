"""Symbolicator and Sentry have this server as one of their sources of files, and do the naming themselves.

Requests are those of Symbolicator 26.8.0: in its crate symbolicator-sources, `FileType::from_object_type` and
`get_unified_path` for the paths of a Mach-O; in symbolicator-service, download/{mod,http,partial,compression}.rs for
headers, ranges and what it makes of a status.
"""

from __future__ import annotations

import base64

import pytest

from tests.server.symbolicate.conftest import Closed
from tests.support.http import Answer, request
from tests.support.servers import Samples, Server, uuid_of

_HEADERS = {
    "accept": "*/*",
    "user-agent": "symbolicator/26.8.0",
    "range": "bytes=0-134217727",
    "accept-encoding": "br, deflate, gzip, zstd",
}


@pytest.fixture(scope="module")
def source(closed: Closed) -> tuple[Server, dict[str, str]]:
    """Return a server that needs tokens, and the headers of a source that is configured with one."""
    return closed.server, {"authorization": f"Bearer {closed.reader}"}


def _get(server: Server, path: str, headers: dict[str, str]) -> Answer:
    return request(server.url, path, headers=_HEADERS | headers)


def _whole(answer: Answer) -> bytes:
    """Return the file that Symbolicator makes of a first response: it takes the range for the whole then."""
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes 0-{len(answer.body) - 1}/{len(answer.body)}"
    assert "content-encoding" not in answer.headers  # the range is of the plain file
    return answer.body


def test_every_file_that_is_asked_for_comes_or_is_404(source: tuple[Server, dict[str, str]], samples: Samples) -> None:
    server, headers = source
    digits = samples.uuid.hex
    unified = f"/{digits[:2]}/{digits[2:]}"
    assert _whole(_get(server, f"{unified}/executable", headers)) == samples.dylib.read_bytes()
    assert _whole(_get(server, f"{unified}/debuginfo", headers)) == samples.dsym.read_bytes()
    assert _whole(_get(server, f"{unified}/breakpad", headers)).startswith(b"MODULE mac x86_64 ")
    # Of a PDB by the debug id with its age; files of bitcode; sources.
    for path in (
        f"{unified}0/debuginfo",
        *(f"{unified}/{what}" for what in ("uuidmap", "bcsymbolmap", "sourcebundle")),
    ):
        assert _get(server, path, headers).status == 404, path
    assert _get(server, "/11/111111111111111111111111111111/executable", headers).status == 404


def test_parts_of_a_large_file_come_together(source: tuple[Server, dict[str, str]], samples: Samples) -> None:
    """It splits what it lacks after the first part into four at most; here parts are smaller than its 128 MiB."""
    server, headers = source
    digits = uuid_of(samples.large).hex
    path = f"/{digits[:2]}/{digits[2:]}/executable"
    first = _get(server, path, headers | {"range": "bytes=0-999999"})
    size = int(first.headers["content-range"].rpartition("/")[2])
    assert (first.status, size) == (206, samples.large.stat().st_size)
    end, step = 999_999, (size - 1_000_000) // 4
    parts = [first.body]
    for number in range(4):
        last = size - 1 if number == 3 else end + step
        part = _get(server, path, headers | {"range": f"bytes={end + 1}-{last}"})
        assert (part.status, part.headers["content-range"]) == (206, f"bytes {end + 1}-{last}/{size}")
        parts.append(part.body)
        end = last
    assert b"".join(parts) == samples.large.read_bytes()


def test_a_password_of_sentrys_settings_is_a_token(source: tuple[Server, dict[str, str]], samples: Samples) -> None:
    """Sentry sends user name and password of a source on as basic credentials (`normalize_user_source`)."""
    server, headers = source
    token = headers["authorization"].removeprefix("Bearer ")
    path = f"/{samples.uuid.hex[:2]}/{samples.uuid.hex[2:]}/executable"
    basic = base64.b64encode(f"sentry:{token}".encode()).decode()
    assert _whole(_get(server, path, {"authorization": f"Basic {basic}"})) == samples.dylib.read_bytes()
    assert _get(server, path, {}).status == 401  # which it shows as lacking permissions, not as a missing file
