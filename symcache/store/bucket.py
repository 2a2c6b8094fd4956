"""One prefix of a bucket, through obstore: requests that outlast an outage, with its errors turned into ours.

obstore itself repeats a request that was refused, lost, or answered with 429 or 5xx, even a conditional PUT, and goes
on with a download that was cut. But it does not say so, and does not repeat every request whose response did not come
in time. So it repeats once what does no harm, and `Outage` does the waiting.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from symcache.errors import EnvironmentFailure, NotFoundError, StorageError, UsageError
from symcache.own_program import pip_install
from symcache.store.base import BLOB_KEY, BlobStat
from symcache.store.outage import Outage

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
    from obstore.store import S3Store as Client
except ImportError as error:
    raise EnvironmentFailure(
        "a library in an object store needs the package obstore, which is not installed",
        hint=pip_install("obstore>=0.11"),
    ) from error

__all__ = ["REQUEST_SECONDS", "Bucket"]

_CONNECT_SECONDS = 5
_READ_SECONDS = 10
REQUEST_SECONDS = _CONNECT_SECONDS + _READ_SECONDS
"""In which a request without much content is over, whatever becomes of it."""
_PART = 16 << 20
_IDLE_CONNECTIONS = 16
_PAGE = 1000
"""Keys that S3 lists in one response."""
_VANISHED = "said to be there, but is not"
_PASSING = re.compile(rf"HTTP error: |status code: (408|429|500|502|503|504)\b|error response: |{_VANISHED}")
"""In messages of obstore: the network failed, or the store did for a reason that may be over soon."""

T = TypeVar("T")


class Bucket:
    """The objects below `prefix`. Raises StorageError, and NotFoundError for a key that is not there."""

    def __init__(self, location: str, patience: float) -> None:
        """`location` is `s3://bucket/prefix`; raises UsageError. `patience`: seconds that an outage is waited for."""
        self.location = location
        name, _, prefix = location.removeprefix("s3://").partition("/")
        if not name:
            raise UsageError(f"{location}: names no bucket", hint="write s3://bucket/prefix")
        self._client = _client(name, prefix, retries=1)
        self._unrepeated = _client(name, prefix, retries=0)
        """For what must not be repeated without a look."""
        self._outage = Outage(location, patience, _is_passing)

    def _request(self, key: str, request: Callable[[int], T]) -> T:
        try:
            return self._outage.outlast(request)
        except (BaseError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # this machine's own: the store's have none
                raise StorageError(
                    f"{self.location}: {key}: {error.strerror or error}, on this machine",
                    hint=f"free space or mend permissions in {tempfile.gettempdir()}, then run the same command again",
                ) from error
            if isinstance(error, FileNotFoundError):
                raise NotFoundError(f"{self.location}: {key} is not there", hint="run `symcache fsck`") from None
            if "NoSuchBucket" in str(error):
                raise StorageError(
                    f"{self.location}: there is no such bucket", hint="make it, or check its name and AWS_ENDPOINT_URL"
                ) from error
            text = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            raise StorageError(
                f"{self.location}: {key}: {text}",
                hint=f"check AWS_ENDPOINT_URL, credentials{_proxies()} and network, then run the same command again",
            ) from error

    def stat(self, key: str) -> BlobStat:
        """Return size and age of an object."""
        return self._request(key, lambda _: _stat(obstore.head(self._client, key)))

    def content(self, key: str) -> bytes:
        """Return what is in an object."""
        return self._request(key, lambda _: bytes(obstore.get(self._client, key).bytes()))

    def download(self, key: str, target: BinaryIO) -> int:
        """Write an object to an empty file, and return how many bytes were promised."""

        def attempt(_: int) -> int:
            target.seek(0)
            target.truncate()
            found = obstore.get(self._client, key)
            for chunk in found.stream(min_chunk_size=4 << 20):
                target.write(chunk)
            return int(found.meta["size"])

        return self._request(key, attempt)

    def encoding(self, key: str) -> str:
        """Return the Content-Encoding that an object is delivered with, or an empty string."""
        found = self._request(key, lambda _: obstore.get(self._client, key, options={"range": (0, 1)}))
        return str(found.attributes.get("Content-Encoding", ""))

    def signed(self, key: str, seconds: float) -> str:
        """Return a URL from which anybody can download an object for so long."""
        return self._request(key, lambda _: obstore.sign(self._client, "GET", key, timedelta(seconds=seconds)))

    def scan(self, prefix: str) -> Iterator[tuple[str, BlobStat]]:
        """Yield (key, size and age) below `prefix`: one request a thousand."""
        top, last = prefix.rstrip("/") or None, None

        def page(_: int) -> Sequence[Any]:
            return next(iter(obstore.list(self._client, prefix=top, offset=last, chunk_size=_PAGE)), ())

        while True:
            found = self._request(prefix or "/", page)
            for meta in found:
                yield meta["path"], _stat(meta)
            if len(found) < _PAGE:
                return
            last = found[-1]["path"]

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names directly below `prefix` that others are below."""
        found = self._request(prefix, lambda _: obstore.list_with_delimiter(self._client, prefix=prefix.rstrip("/")))
        return sorted(p.rstrip("/").rpartition("/")[2] for p in found["common_prefixes"])

    def put(self, key: str, content: bytes | BinaryIO) -> None:
        """Make an object, or take the place of one; a file is sent in parts."""

        def attempt(_: int) -> None:
            parts = not isinstance(content, bytes)
            if not isinstance(content, bytes):
                content.seek(0)
            obstore.put(
                *(self._client, key, content),
                attributes=_attributes(key),
                use_multipart=parts,
                chunk_size=_PART,
                max_concurrency=4,
            )

        self._request(key, attempt)

    def put_new(self, key: str, content: bytes) -> bool:
        """Make an object unless there is one; return False if there is, and it is not the one that was sent here."""

        def attempt(earlier: int) -> bool:
            if self._put_on_condition(key, content):
                return True
            try:
                if not earlier:
                    obstore.head(self._client, key)
                    return False
                # Of an attempt before, only the response may have been lost.
                return bytes(obstore.get(self._client, key).bytes()) == content
            except FileNotFoundError:  # S3 says so, too, while somebody else is about to make it, or deletes it
                raise GenericError(f"{key} is {_VANISHED}") from None

        return self._request(key, attempt)

    def honours_conditions(self, key: str) -> bool:
        """Return whether an object is never overwritten by `put_new`: tried with `key`, which nobody else uses."""
        self._request(key, lambda _: self._put_on_condition(key, b""))
        overwritten = self._request(key, lambda _: self._put_on_condition(key, b""))
        self.discard(key)
        return not overwritten

    def _put_on_condition(self, key: str, content: bytes) -> bool:
        try:
            obstore.put(self._unrepeated, key, content, mode="create", attributes=_attributes(key))
        except AlreadyExistsError:
            return False
        return True

    def copy(self, key: str, target: str) -> None:
        """Copy an object of at most 5 GiB inside the store."""
        self._request(key, lambda _: obstore.copy(self._client, key, target))

    def discard(self, key: str) -> None:
        """Delete an object that nobody needs; where that is not allowed, it stays."""
        with contextlib.suppress(StorageError):
            self._request(key, lambda _: obstore.delete(self._client, key))

    def delete_if(self, key: str, condition: Callable[[BlobStat], bool]) -> bool:
        """Delete an object that `condition` holds for; return True if it is gone.

        It is looked at before every attempt: else one after an outage might delete what has come to its place, and each
        of them is over `REQUEST_SECONDS` after the look.
        """

        def attempt(_: int) -> bool:
            try:
                if not condition(_stat(obstore.head(self._client, key))):
                    return False
            except FileNotFoundError:
                return True
            obstore.delete(self._unrepeated, key)
            return True

        return self._request(key, attempt)


def _attributes(key: str) -> dict[str, str]:
    """Return what an object says of itself: browsers and tools that are sent to a blob unpack it by themselves."""
    if BLOB_KEY.fullmatch(key):
        return {"Content-Encoding": "zstd", "Content-Type": "application/octet-stream"}
    return {}


def _stat(meta: Any) -> BlobStat:
    return BlobStat(int(meta["size"]), meta["last_modified"].timestamp(), str(meta.get("e_tag") or "").strip('"'))


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, GenericError) and bool(_PASSING.search(str(error).partition("\n")[0]))


def _proxies() -> str:
    """Return the settings of proxies, which obstore heeds, and never names when one fails."""
    found = [n for n in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY") if os.environ.get(n)]
    return "".join(f", {name}" for name in found)


def _authorities() -> dict[str, str]:
    """Return as an option the certificates of AWS_CA_BUNDLE, trusted besides the system's. Raises UsageError."""
    file = os.environ.get("AWS_CA_BUNDLE")
    try:
        return {"root_certificate": Path(file).read_text()} if file else {}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"AWS_CA_BUNDLE: {file}: {error}", hint="name a file of certificates in PEM, or unset it"
        ) from error


def _client(bucket: str, prefix: str, *, retries: int) -> Client:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    }
    if endpoint:
        if not re.match(r"https?://[^/]", endpoint):
            raise UsageError(
                f"AWS_ENDPOINT_URL: {endpoint}: not the URL of a store", hint="write https://host or http://host:port"
            )
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    connections: Any = {
        "allow_http": bool(endpoint and endpoint.startswith("http://")),
        "connect_timeout": f"{_CONNECT_SECONDS}s",
        "timeout": "300s",
        "read_timeout": f"{_READ_SECONDS}s",
        "pool_max_idle_per_host": str(_IDLE_CONNECTIONS),
    }
    try:
        return Client(
            bucket,
            prefix=prefix or None,
            client_options=connections | _authorities(),
            retry_config={"max_retries": retries},
            **options,
        )
    except (BaseError, ValueError, TypeError) as error:
        raise UsageError(f"s3://{bucket}/{prefix}: {str(error).splitlines()[0]}") from error
