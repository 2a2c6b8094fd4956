"""Two who do the same at once: none undoes what the other has done."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from symcache.errors import NotFoundError
from symcache.library import IngestResult, Library, Staged, ingest, remove_build
from symcache.store import blob_key
from symcache_server.files.uploads import SentFile, Uploads
from symcache_server.http.auth import Scope, Token, TokenStore
from tests.library.images import Image, harvest
from tests.support.servers import Samples


def test_tokens_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=1)

    class Slow(TokenStore):
        """Writes only when the other has read, too, if the other can."""

        def all(self) -> list[Token]:
            found = super().all()
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait()
            return found

    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(lambda name: Slow(tmp_path / "tokens.json").create(name, [Scope.READ]), ["one", "two"]))
    store = TokenStore(tmp_path / "tokens.json")
    assert [t.name for t in store.all()] == ["one", "two"]
    assert [token.name for text in texts if (token := store.find(text))] == ["one", "two"]


@pytest.mark.parametrize("lost", ["its release", "its blob"])
@pytest.mark.parametrize("meanwhile", [True, False])
def test_what_is_not_sent_since_it_is_there_is_there_when_it_is_added(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str, meanwhile: bool
) -> None:
    """Else it is asked for, as what was never there."""
    uploads = Uploads(tmp_path / "uploads", 1 << 30, 1 << 30, 60.0)
    sent, known = samples.dylib.read_bytes(), Image("/usr/lib/known", 7)
    files = [SentFile(hashlib.sha256(data).hexdigest(), "/usr/lib/x") for data in (known.data, sent)]
    (tmp_path / "uploads" / files[1].sha256).write_bytes(sent)
    with Library.open(tmp_path / "library", create=True) as library, Library.open(tmp_path / "library") as other:
        ingest(library, harvest(tmp_path / "known", [known]))

        def lose() -> None:
            if lost == "its blob":
                (tmp_path / "library" / blob_key(files[0].sha256)).unlink()
            else:
                remove_build(other, "22G120")

        if meanwhile:
            monkeypatch.setattr("symcache_server.files.uploads.ingest", lambda *given: (lose(), ingest(*given))[1])
        else:
            lose()
        with pytest.raises(NotFoundError, match=f"{files[0].sha256}: was not sent"):
            uploads.add(library, files, "one")
        monkeypatch.undo()
        (tmp_path / "uploads" / files[0].sha256).write_bytes(known.data)
        assert len(uploads.add(library, files, "one")["images"]) == 2
        assert all(library.variants(uuid) for uuid in (known.uuid, samples.uuid))


def test_the_same_file_is_added_twice_at_once_without_a_problem(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = samples.dylib.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    uploads = Uploads(tmp_path / "uploads", 1 << 30, 1 << 30, 60.0)
    (tmp_path / "uploads" / sha256).write_bytes(data)
    begun, done = threading.Event(), threading.Event()

    def slow(library: Library, staged: Staged) -> IngestResult:
        """The first waits until the second has looked; the second until the first is done; neither for ever."""
        if not begun.is_set():
            begun.set()
            done.wait(1)
        else:
            done.set()
            first.result(60)
        return ingest(library, staged)

    monkeypatch.setattr("symcache_server.files.uploads.ingest", slow)
    with Library.open(tmp_path / "library", create=True) as library, ThreadPoolExecutor(2) as pool:
        files = [SentFile(sha256, "/usr/lib/libanswer.dylib")]
        first = pool.submit(uploads.add, library, files, "one")
        assert begun.wait(60)
        second = pool.submit(uploads.add, library, files, "two")
        answers = [first.result(60), second.result(60)]
        assert [a["problems"] for a in answers] == [[], []]
        assert answers[0]["images"] == answers[1]["images"]
        assert len(library.variants(samples.uuid)) == 1
