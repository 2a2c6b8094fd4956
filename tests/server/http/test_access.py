"""Tokens and pushing: who may read and write, and that nothing half-sent or wrong gets in."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import plistlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from symcache.client import SymbolClient
from symcache.errors import RemoteError
from symcache.images import ImageRequest
from symcache.library import Library
from symcache.model import Kind
from symcache_server.files.uploads import Uploads
from symcache_server.http.auth import Scope, TokenStore
from tests.support.commands import run_here
from tests.support.http import Answer, request
from tests.support.servers import Samples, Server, homes, serve, set_uuid, uuid_of
from tests.support.toolchain import compile_image, dsym
from tests.support.waiting import until


def _symcache(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the homes that `serve` gives to the server in `folder`."""
    return run_here(*arguments, env=homes(folder))


def _refused(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a server that must not start."""
    command = [sys.executable, "-m", "symcache", "serve", "--port", "0", *arguments]
    return subprocess.run(
        command, env=os.environ | homes(folder), capture_output=True, text=True, timeout=60, check=False
    )


def _token(folder: Path, name: str, *scopes: str) -> str:
    return TokenStore(folder / "state" / "symcache" / "tokens.json").create(name, map(Scope, scopes))


@contextmanager
def _public(samples_library: Path, folder: Path) -> Iterator[tuple[Server, str]]:
    """A server that other machines could reach, and its URL on this one."""
    with serve(samples_library, folder, "--host", "0.0.0.0") as server:
        yield server, f"http://127.0.0.1:{urlsplit(server.url).port}"


def _with(url: str, token: str) -> str:
    return url.replace("http://", f"http://me:{token}@")


def test_reading_from_elsewhere_needs_a_token_that_may(samples: Samples, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    reader, writer = _token(folder, "reader", "read"), _token(folder, "writer", "write")
    path = f"/buildid/{samples.uuid.hex}/executable"
    with _public(samples.library, folder) as (_, url):
        assert request(url, "/healthz").status == 200
        for path_of_any_kind in (path, "/", "/metrics", "/api/v1/releases", "/readyz", "/nothing"):
            assert request(url, path_of_any_kind).status == 401
            refused = request(url, path_of_any_kind, headers={"Authorization": "Bearer wrong"})
            assert refused.status == 401
            assert "Bearer" in refused.headers["www-authenticate"]
        assert request(url, path, headers={"Authorization": f"Bearer {writer}"}).status == 200
        basic = base64.b64encode(f"anybody:{reader}".encode()).decode()
        for field in (f"Bearer {reader}", f"bearer {reader}", f"Basic {basic}"):
            got = request(url, path, headers={"Authorization": field})
            assert (got.status, got.body) == (200, samples.dylib.read_bytes())
            assert "public" not in got.headers["cache-control"]
        for field in (
            "Basic !!!",
            "Basic " + base64.b64encode(b"\xff\xfe").decode(),
            "Basic \xff",
            "Bearer",
            "Digest x",
        ):
            assert request(url, path, headers={"Authorization": field}).status == 401
        for nowhere in ("/nothing", "/api/v1/releases/none", f"/buildid/{'0' * 31}3/executable"):
            unknown = request(url, nowhere, headers={"Authorization": f"Bearer {reader}"})
            assert (unknown.status, unknown.headers["cache-control"]) == (404, "private, max-age=60")

        for wrong in (url, _with(url, "guess")):
            with (
                pytest.raises(RemoteError, match=r"does not let us read: 401 .*https://any:TOKEN@host") as raised,
                SymbolClient([wrong], tmp_path / "c1") as client,
            ):
                client.fetch_many([ImageRequest(samples.uuid)])
            assert "token" in raised.value.hint
        with SymbolClient([_with(url, reader)], tmp_path / "c2") as client:
            found = client.fetch_many([ImageRequest(samples.uuid)])[ImageRequest(samples.uuid)]
            assert found.origin == url  # without the token
            assert client.look_up([samples.uuid]).images
        assert not [p for p in (tmp_path / "c2").rglob("*") if p.is_file() and reader.encode() in p.read_bytes()]

        environment = os.environ | {
            "DEBUGINFOD_URLS": _with(url, reader),
            "DEBUGINFOD_CACHE_PATH": str(tmp_path / "stock"),
        }
        command = ["debuginfod-find", "executable", samples.uuid.hex]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()).read_bytes() == samples.dylib.read_bytes()

        assert _symcache(folder, "token", "revoke", "reader").returncode == 0
        until(lambda: request(url, path, headers={"Authorization": f"Bearer {reader}"}).status == 401)


def test_behind_a_proxy_this_machine_needs_a_token_as_well(samples: Samples, tmp_path: Path) -> None:
    folder, path = tmp_path / "server", f"/buildid/{samples.uuid.hex}/executable"
    for options in (["--require-token"], ["--require-token", "--public-reads"], ["--host", "0.0.0.0"]):
        refused = _refused(folder, "--library", str(samples.library), *options)
        assert (refused.returncode, refused.stdout) == (2, "")
    token = _token(folder, "reader", "read")
    with serve(samples.library, folder, "--require-token") as server:
        assert request(server.url, path).status == 401
        assert request(server.url, path, headers={"Authorization": f"Bearer {token}"}).status == 200


def test_each_scope_includes_those_before_it(samples: Samples, tmp_path: Path) -> None:
    folder, scopes = tmp_path / "server", ("read", "write", "admin")
    tokens = {scope: _token(folder, f"my-{scope}", scope) for scope in scopes}
    listed = json.loads(_symcache(folder, "token", "list", "--json").stdout)
    assert {t["name"]: t["scopes"] for t in listed} == {f"my-{scope}": [scope] for scope in scopes}
    assert "admin" in _symcache(folder, "token", "list").stdout
    upload = f"/api/v1/uploads/{'1' * 64}"

    def status(scope: str, path: str, method: str = "GET") -> int:
        headers = {"Authorization": f"Bearer {tokens[scope]}", "Content-Range": "bytes 0-0/9"}
        return request(server.url, path, method=method, headers=headers, body=b"x" if method == "PUT" else None).status

    with serve(samples.library, folder, "--require-token", "--lookup-rate", "0.1") as server:
        assert [status(s, "/api/v1/releases") for s in scopes] == [200] * 3
        assert [status(s, upload, "PUT") for s in scopes] == [403, 202, 202]
        assert [status(s, "/api/v1/tokens") for s in scopes] == [403, 403, 200]
        answer = request(server.url, "/api/v1/tokens", headers={"Authorization": f"Bearer {tokens['admin']}"})
        assert [t["name"] for t in json.loads(answer.body)["tokens"]] == [f"my-{s}" for s in sorted(scopes)]
        assert not any(token.encode() in answer.body for token in tokens.values())
        until(lambda: status("read", "/api/v1/releases") == 429)
        assert {status("admin", "/api/v1/releases") for _ in range(10)} == {200}
        for path in ("/api/v1/releases/22G120", f"/api/v1/uuids/{samples.uuid}"):
            assert status("admin", path, "DELETE") in {404, 405}
    with serve(samples.library, folder) as server:  # reads are open, and this is none
        assert request(server.url, "/api/v1/releases").status == 200
        assert request(server.url, "/api/v1/tokens").status == 401


def test_tokens_in_urls_are_never_shown(samples: Samples, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    token, nobody = _token(folder, "reader", "read"), "00000000-0000-0000-0000-000000000001"
    with serve(samples.library, folder, "--require-token") as server:
        got = _symcache(folder, "get", str(samples.uuid), "--server", _with(server.url, token), "--json")
        missing = _symcache(folder, "get", nobody, "--server", _with(server.url, token))
        wrong = _symcache(folder, "get", nobody, "--server", _with(server.url, token + "x"))
    away = _symcache(folder, "get", nobody, "--server", _with(server.url, token))
    no_url = _symcache(folder, "get", nobody, "--server", _with(server.url, token).removeprefix("http://"))
    assert [p.returncode for p in (got, missing)] == [0, 1]
    assert all(p.returncode for p in (wrong, away, no_url))
    assert server.url in missing.stderr.replace("\n", "")
    for done in (got, missing, wrong, away, no_url):
        assert token not in (done.stdout + done.stderr).replace("\n", ""), done.args


def test_tokens_are_kept_as_hashes_for_their_owner_only(tmp_path: Path) -> None:
    made = _symcache(tmp_path, "token", "create", "ci@farm", "--scope=read", "--scope=write", "--expires=90d")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    file = tmp_path / "state" / "symcache" / "tokens.json"
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    listed = json.loads(_symcache(tmp_path, "token", "list", "--json").stdout)
    assert [(t["name"], t["scopes"]) for t in listed] == [("ci@farm", ["read", "write"])]
    assert datetime.now(UTC) + timedelta(days=89) < datetime.fromisoformat(listed[0]["expires"])
    assert _symcache(tmp_path, "token", "create", "ci@farm").returncode == 2
    assert _symcache(tmp_path, "token", "create", "bad name").returncode == 2
    assert _symcache(tmp_path, "token", "revoke", "other").returncode == 1


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An application's own dylib with its dSYM, freshly built."""
    image = compile_image(tmp_path / "own", "libledger.dylib", f"int balance(int x) {{ return x + {os.getpid()}; }}\n")
    dsym(image)
    return image


def test_own_binaries_are_pushed_once_and_served(tmp_path: Path, own: Path) -> None:
    Library.open(tmp_path / "library", create=True).close()
    folder, uuid = tmp_path / "server", uuid_of(own)
    token = _token(folder, "ci", "write")
    with serve(tmp_path / "library", folder) as server:
        nobody = _symcache(folder, "push", str(own), "--server", server.url)
        assert nobody.returncode == 2
        assert "token" in nobody.stderr
        pushed = [str(own), str(own) + ".dSYM", "--server", _with(server.url, token), "--json"]
        first = _symcache(folder, "push", *pushed)
        assert first.returncode == 0, first.stderr
        assert {k: json.loads(first.stdout)[k] for k in ("added", "known")} == {"added": 2, "known": 0}
        assert token not in first.stdout + first.stderr
        assert json.loads(request(server.url, "/api/v1/missing").body)["missing"] == []  # asking first was no need
        until(lambda: request(server.url, f"/buildid/{uuid.hex}/executable").body == own.read_bytes())
        inner = own.with_name(own.name + ".dSYM") / "Contents" / "Resources" / "DWARF" / own.name
        assert request(server.url, f"/buildid/{uuid.hex}/debuginfo").body == inner.read_bytes()
        again = json.loads(_symcache(folder, "push", *pushed).stdout)
        assert (again["added"], again["known"]) == (0, 2)
    with Library.open(tmp_path / "library") as library:
        assert {o.trust for o in library.variants(uuid)} == {"pushed"}
        assert {o.kind for o in library.variants(uuid)} == set(Kind)
        assert {o.build for o in library.variants(uuid)} == {None}


def test_what_a_dsym_notes_of_its_sources_is_pushed_with_it(tmp_path: Path, own: Path) -> None:
    uuid = uuid_of(own)
    Library.open(tmp_path / "library", create=True).close()
    folder, bundle = tmp_path / "server", own.with_name(own.name + ".dSYM")
    plist = bundle / "Contents" / "Resources" / f"{str(uuid).upper()}.plist"
    with serve(tmp_path / "library", folder) as server:
        pushed = [str(own), str(bundle), "--server", _with(server.url, _token(folder, "ci", "write")), "--json"]
        assert json.loads(_symcache(folder, "push", *pushed).stdout)["added"] == 2
        held = json.loads(request(server.url, f"/api/v1/uuids/{uuid}").body)
        assert held["sources"] == []
        # A note that came later is worth sending the dSYM again, once.
        plist.write_bytes(plistlib.dumps({"DBGVersion": "3", "DBGSourcePathRemapping": {"/Users/ci": "/src/ledger"}}))
        assert [json.loads(_symcache(folder, "push", *pushed).stdout)["added"] for _ in range(2)] == [1, 0]
        noted = [{"recorded": "/Users/ci", "place": "/src/ledger"}]
        assert json.loads(request(server.url, f"/api/v1/uuids/{uuid}").body)["sources"] == noted
        with SymbolClient([server.url], tmp_path / "kept") as client:
            assert client.look_up([uuid]).sources == {uuid: (("/Users/ci", "/src/ledger"),)}


@pytest.mark.parametrize(
    "notes",
    [
        [{"recorded": "/a", "place": "/b\x1b[2J"}],
        [{"recorded": "", "place": "/b"}],
        [{"recorded": "/a" * 5000, "place": "/b"}],
        [{"recorded": "/a"}],
        [{"recorded": "/a", "place": "/b"}] * 257,
        "/a",
    ],
)
def test_notes_that_are_none_are_refused(notes: object, samples: Samples, tmp_path: Path) -> None:
    token = _token(tmp_path / "server", "ci", "write")
    with serve(samples.library, tmp_path / "server") as server:
        body = json.dumps({"images": [{"sha256": "1" * 64, "path": "/x", "sources": notes}]}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        refused = request(server.url, "/api/v1/uploads", method="POST", headers=headers, body=body)
        assert refused.status == 400
        assert "sources" in json.loads(refused.body)["error"]


def test_what_is_pushed_never_shadows_what_was_harvested(samples: Samples, tmp_path: Path) -> None:
    shutil.copytree(samples.library, tmp_path / "library")
    folder = tmp_path / "server"
    token = _token(folder, "ci", "write")
    forged = samples.large.read_bytes() + b"forged"
    with serve(tmp_path / "library", folder) as server:
        added = _push_bytes(server, token, forged, "/usr/lib/liblarge.dylib")
        assert added.status == 201, added
        uuid = uuid_of(samples.large)
        until(lambda: len(json.loads(request(server.url, f"/api/v1/uuids/{uuid}").body)["contents"]) == 2)
        # Look-ups remember their answers until they notice a change: when they know of a later one, they know of this.
        later = set_uuid(Path(shutil.copy(samples.dylib, tmp_path / "later.dylib")), UUID(int=5, version=4))
        assert _push_bytes(server, token, later.read_bytes(), "/usr/lib/later.dylib").status == 201
        until(lambda: request(server.url, f"/buildid/{uuid_of(later).hex}/executable").status == 200)
        got = request(server.url, f"/buildid/{uuid_of(samples.large).hex}/executable")
        assert got.body == samples.large.read_bytes()
        # It does not answer where the harvested one has no place, either.
        pinned = f"/build/23A344/buildid/{uuid.hex}/executable"
        assert request(server.url, pinned).status == 404


def _put(server: Server, token: str, sha256: str, body: bytes, place: str = "") -> Answer:
    headers = {"Authorization": f"Bearer {token}"} | ({"Content-Range": place} if place else {})
    return request(server.url, f"/api/v1/uploads/{sha256}", method="PUT", headers=headers, body=body)


def _post(server: Server, token: str, sha256: str, path: str) -> Answer:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"images": [{"sha256": sha256, "path": path}]}).encode()
    return request(server.url, "/api/v1/uploads", method="POST", headers=headers, body=body)


def _push_bytes(server: Server, token: str, data: bytes, path: str) -> Answer:
    sha256 = hashlib.sha256(data).hexdigest()
    sent = _put(server, token, sha256, data)
    assert (sent.status, json.loads(sent.body)) == (200, {"offset": len(data), "complete": True})
    return _post(server, token, sha256, path)


def test_tokens_that_are_made_and_revoked_at_once_are_all_minded(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    for number in range(20):
        TokenStore(path).create(f"old{number}", [Scope.READ])
    with ThreadPoolExecutor(16) as pool:
        made = [pool.submit(TokenStore(path).create, f"new{number}", [Scope.WRITE]) for number in range(20)]
        revoked = [pool.submit(TokenStore(path).revoke, f"old{number}") for number in range(20)]
        texts = [future.result() for future in made]
        for future in revoked:
            future.result()
    store = TokenStore(path)
    assert {t.name for t in store.all()} == {f"new{number}" for number in range(20)}
    assert all(store.find(text) for text in texts)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_another_process_has_just_completed_is_not_written_to(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = own.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    uploads = Uploads(tmp_path / "uploads", 1 << 30, 1 << 30, 60.0)
    part, whole = tmp_path / "uploads" / f"{sha256}.part", tmp_path / "uploads" / sha256
    part.write_bytes(data)
    lock = fcntl.flock

    def late(file: BinaryIO, operation: int) -> None:
        if part.exists():
            part.replace(whole)  # by whoever had the lock until now
        lock(file, operation)

    monkeypatch.setattr("symcache_server.files.uploads.fcntl.flock", late)
    asked = make_mocked_request("PUT", "/", {"Content-Length": str(len(data))})
    with pytest.raises(web.HTTPConflict):
        asyncio.run(uploads.receive(sha256, asked))
    assert whole.read_bytes() == data
    assert uploads.offset(sha256) == (len(data), True)


def test_an_upload_is_continued_and_checked(tmp_path: Path, samples: Samples, own: Path) -> None:
    Library.open(tmp_path / "library", create=True).close()
    folder = tmp_path / "server"
    token = _token(folder, "ci", "write")
    data = own.read_bytes()
    sha256, half, size = hashlib.sha256(data).hexdigest(), len(data) // 2, len(data)
    with serve(tmp_path / "library", folder) as server:
        for nobody in ("wrong", "\xff\xfe"):
            assert _put(server, nobody, sha256, data).status == 401
        look_up = f"/buildid/{uuid_of(own).hex}/executable"
        assert request(server.url, look_up).status == 404
        early = _post(server, token, sha256, "/x")
        assert (early.status, "was not sent" in json.loads(early.body)["error"]) == (404, True)
        part = _put(server, token, sha256, data[:half], f"bytes 0-{half - 1}/{size}")
        assert (part.status, json.loads(part.body)) == (202, {"offset": half, "complete": False})
        assert json.loads(request(server.url, f"/api/v1/uploads/{sha256}").body)["offset"] == half
        gap = _put(server, token, sha256, data[half + 1 :], f"bytes {half + 1}-{size - 1}/{size}")
        assert gap.status == 409
        more = _put(server, token, sha256, data[half:], f"bytes {half}-{half + 9}/{size}")
        assert (more.status, "more than 10 bytes" in json.loads(more.body)["error"]) == (400, True)
        rest = _put(server, token, sha256, data[half:], f"bytes {half}-{size - 1}/{size}")
        assert json.loads(rest.body) == {"offset": size, "complete": True}
        done = _post(server, token, sha256, "/Applications/Ledger.app/libledger.dylib")
        assert done.status == 201
        assert [i["arch"] for i in json.loads(done.body)["images"]] == ["x86_64"]
        assert request(server.url, look_up).body == data
        # Had the answer been lost, the same would be asked again.
        again = _post(server, token, sha256, "/Applications/Ledger.app/libledger.dylib")
        assert (again.status, json.loads(again.body)) == (201, json.loads(done.body))

        wrong = _put(server, token, "0" * 64, data)
        assert wrong.status == 422
        assert json.loads(request(server.url, f"/api/v1/uploads/{'0' * 64}").body)["offset"] == 0
        for bad in (b"no Mach-O at all", data[: len(data) - 100]):
            refused = _push_bytes(server, token, bad, "/x")
            assert refused.status == 422, refused
        assert _put(server, token, sha256, b"x", "bytes 5-1/9").status == 400
        assert _put(server, token, "../../etc/passwd", b"x").status in {400, 404}
        assert _put(server, token, sha256.upper(), b"x").status == 400
        huge = f"bytes 0-0/{1 << 50}"
        assert _put(server, token, "1" * 64, b"x", huge).status == 413
    with Library.open(tmp_path / "library") as library:
        assert len(library.by_name("*")) == 1
