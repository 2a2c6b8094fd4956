"""Servers over one object store: stateless, each with its own catalog, and the store may go away and come back."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zstandard

from symcache.client import SymbolClient
from symcache.images import ImageRequest
from symcache.library import Library, ingest
from symcache.store import blob_key
from tests.support.http import request
from tests.support.seaweed import new_location, s3_environment, seaweed
from tests.support.servers import CACHES, SHARED_UUID, Samples, noise_image, serve, stage_variant, uuid_of
from tests.support.waiting import until


@pytest.fixture
def location(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> str:
    """A library in an object store with release 22G120 only."""
    for name, value in s3_environment(seaweed()).items():
        monkeypatch.setenv(name, value)
    place = new_location()
    with Library.open(place, create=True) as library:
        ingest(library, stage_variant(samples.large, "22G120", None, "/usr/lib/liblarge.dylib"))
        moved = stage_variant(samples.variants["22G120"], "22G120", CACHES["22G120"], "/usr/lib/libmoved.dylib")
        ingest(library, moved)
    return place


def test_every_form_of_an_answer_is_right(location: str, samples: Samples, tmp_path: Path) -> None:
    whole = samples.large.read_bytes()
    path = f"/buildid/{uuid_of(samples.large).hex}/executable"
    with serve(location, tmp_path / "server") as server:
        for _ in range(2):
            assert request(server.url, path).body == whole
            packed = request(server.url, path, headers={"Accept-Encoding": "zstd"})
            assert packed.headers["content-encoding"] == "zstd"
            assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed.body)).read() == whole
            assert request(server.url, path, headers={"Range": "bytes=10-19"}).body == whole[10:20]
        assert request(server.url, path, method="HEAD").headers["content-length"] == str(len(whole))


def test_clients_that_are_sent_to_the_store_get_the_same(location: str, tmp_path: Path) -> None:
    image = noise_image(tmp_path)
    with Library.open(location) as library:
        ingest(library, stage_variant(image, "22G120", None, "/usr/lib/libnoise.dylib"))
    whole = image.read_bytes()
    sha256 = hashlib.sha256(whole).hexdigest()
    path = f"/build/22G120/buildid/{uuid_of(image).hex}/executable"
    with serve(location, tmp_path / "server", "--redirect-to-store") as server:
        sent = request(server.url, path, headers={"Accept-Encoding": "zstd"})
        assert (sent.status, sent.body, sent.headers["cache-control"]) == (307, b"", "no-store")
        assert sent.headers["x-symcache-build"] == "22G120"
        assert sent.headers["location"].startswith(seaweed())
        assert sent.headers["x-symcache-redirect-host"] == urlsplit(seaweed()).hostname
        assert "X-Amz-Signature=" in sent.headers["location"]
        # Not through our client: a stock one, which knows nothing but HTTP.
        head = tmp_path / "head"
        command = ["curl", "-fsSL", "-D", head, "-H", "Accept-Encoding: zstd", server.url + path]
        packed = subprocess.run(command, check=True, capture_output=True).stdout
        assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read() == whole
        last = head.read_text().lower().rpartition("http/1.1 200")[2]
        assert "content-encoding: zstd" in last
        url = server.url.replace("127.0.0.1", "localhost")  # another host than the store's
        with SymbolClient([url], tmp_path / "cache") as client:
            wanted = ImageRequest(uuid_of(image), build="22G120")
            found = client.fetch_many([wanted])[wanted]
            assert (found.path.read_bytes(), found.build, found.origin) == (whole, "22G120", url)
        # Everything else comes from the server as always.
        assert request(server.url, path).body == whole
        ranged = request(server.url, path, headers={"Range": "bytes=5-9", "Accept-Encoding": "zstd"})
        assert (ranged.status, ranged.body) == (206, whole[5:10])
        for headers, status in (({"If-Match": f'"{sha256}"'}, 200), ({"If-None-Match": f'"{sha256}-zstd"'}, 304)):
            assert request(server.url, path, headers={"Accept-Encoding": "zstd"} | headers).status == status
        assert request(server.url, path, method="HEAD", headers={"Accept-Encoding": "zstd"}).status == 200
        # An object that does not say that it is zstd would be taken for the binary itself.
        _without_label(location, blob_key(sha256))
    with serve(location, tmp_path / "again", "--redirect-to-store") as server:
        kept = request(server.url, path, headers={"Accept-Encoding": "zstd"})
        assert (kept.status, kept.headers["content-encoding"]) == (200, "zstd")
        assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(kept.body)).read() == whole


def _without_label(location: str, key: str) -> None:
    """Store an object anew as older versions did."""
    import obstore
    from obstore.store import S3Store

    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    store = S3Store(bucket, prefix=prefix, client_options={"allow_http": True})
    data = bytes(obstore.get(store, key).bytes())
    assert data[:4] == b"\x28\xb5\x2f\xfd"
    obstore.delete(store, key)
    obstore.put(store, key, data)


def test_a_new_release_is_served_by_all_within_seconds(location: str, samples: Samples, tmp_path: Path) -> None:
    path = f"/build/23A344/buildid/{SHARED_UUID.hex}/executable"
    image = samples.variants["23A344"]
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(location, tmp_path / str(n))) for n in range(2)]
        assert [request(s.url, path).status for s in servers] == [404, 404]
        with Library.open(location) as library:
            ingest(library, stage_variant(image, "23A344", CACHES["23A344"], "/usr/lib/libmoved.dylib", version="14.0"))
        for server in servers:
            until(lambda url=server.url: request(url, path).status == 200)
            answer = request(server.url, path)
            assert answer.body == image.read_bytes()


def test_a_damaged_object_is_never_served(location: str, samples: Samples, tmp_path: Path) -> None:
    import obstore
    from obstore.store import S3Store

    key = blob_key(hashlib.sha256(samples.large.read_bytes()).hexdigest())
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    store = S3Store(bucket, prefix=prefix, client_options={"allow_http": True})
    data = bytearray(obstore.get(store, key).bytes())
    data[len(data) // 2] ^= 1
    obstore.put(store, key, bytes(data))
    path = f"/buildid/{uuid_of(samples.large).hex}/executable"
    with serve(location, tmp_path / "server") as server:
        for encoding in ("zstd", "identity"):
            answer = request(server.url, path, headers={"Accept-Encoding": encoding})
            assert (answer.status, len(answer.body) < 1000) == (500, True)


class _Relay:
    """A TCP relay to the object store, which can be made to drop every connection."""

    def __init__(self, endpoint: str) -> None:
        self._target = (urlsplit(endpoint).hostname, urlsplit(endpoint).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.gone = False
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:  # or a connection that is just being made would outlive `drop`
                if self.gone:
                    client.close()
                    continue
                upstream = socket.create_connection(self._target)
                self._open += [client, upstream]
            for source, sink in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(1 << 16):
                sink.sendall(chunk)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def drop(self) -> None:
        """Be gone."""
        with self._lock:
            self.gone = True
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        """End for good."""
        self.drop()
        self._listener.close()


@contextmanager
def _relay() -> Iterator[_Relay]:
    relay = _Relay(seaweed())
    try:
        yield relay
    finally:
        relay.close()


def test_the_store_may_go_away_and_come_back(
    location: str, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = f"/buildid/{uuid_of(samples.large).hex}/executable"
    cold = f"/buildid/{SHARED_UUID.hex}/executable"
    with _relay() as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL", relay.url)
        with serve(location, tmp_path / "server") as server:
            assert request(server.url, warm).status == 200
            relay.drop()
            # What was decoded is still there, and was looked up before.
            assert request(server.url, warm).body == samples.large.read_bytes()
            lost = request(server.url, cold)
            assert (lost.status, len(lost.body) < 2000) == (503, True)
            assert request(server.url, "/healthz").status == 200
            relay.gone = False

            def is_back() -> bool:
                answer = request(server.url, cold)
                assert answer.status in {200, 503}
                return answer.status == 200

            until(is_back)
            answer = request(server.url, cold)
            assert answer.body == samples.variants["22G120"].read_bytes()
