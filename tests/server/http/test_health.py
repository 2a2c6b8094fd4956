"""What operators rely on: several processes, metrics, logs, raw cache files."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families

from symcache.errors import EnvironmentFailure
from symcache.library import Library, Staged, StagedCacheFile, ingest
from symcache.model import Release
from symcache_server.config import ServerConfig
from symcache_server.http.health import ready
from symcache_server.http.listener import listen
from symcache_server.http.metric_files import _sweep
from symcache_server.http.troubles import Troubles
from symcache_server.keys import CONFIG, REFRESHER, TROUBLES
from symcache_server.process import _serve, _Supervisor
from tests.support.http import request
from tests.support.servers import SHARED_UUID, Samples, Server, serve, uuid_of
from tests.support.waiting import until


def _metrics(server: Server) -> dict[tuple[str, str], float]:
    answer = request(server.url, "/metrics")
    assert answer.status == 200
    return {
        (sample.name, ",".join(v for _, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def _workers(server: Server) -> list[int]:
    text = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=False).stdout
    return [number for number in map(int, text.split()) if b"spawn_main" in _command(number)]


def _command(number: int) -> bytes:
    """Return the command line of a process; nothing once it has ended."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return b""


def test_several_processes_answer_on_one_port_and_count_together(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server", "--processes", "3") as server:
        path, data = f"/buildid/{uuid_of(samples.large).hex}/executable", samples.large.read_bytes()
        assert len(_workers(server)) == 3
        for _ in range(30):
            assert request(server.url, path).body == data
        for _ in range(12):
            assert request(server.url, f"/buildid/{'0' * 31}2/executable").status == 404
        # Each process counts what it has sent a moment afterwards, and any of them may be asked.
        until(lambda: _metrics(server)["http_responses_duration_seconds_count", "debuginfod"] >= 42)
        found = _metrics(server)
        assert found["http_requests_total", "debuginfod"] == 42
        assert found["http_responses_total", "200,debuginfod"] == 30
        assert found["http_responses_total", "404,debuginfod"] == 12
        assert 30 * len(data) <= found["http_responses_transfer_bytes_total", "debuginfod"] < 31 * len(data)
        assert found["symcache_misses_total", "debuginfod"] == 12
        assert found["http_responses_duration_seconds_count", "debuginfod"] == 42


def test_a_process_that_dies_is_replaced(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server", "--processes", "2") as server:
        before = set(_workers(server))
        os.kill(min(before), signal.SIGKILL)
        until(lambda: set(_workers(server)) - before)

        def answers() -> bool:
            try:
                return request(server.url, f"/buildid/{SHARED_UUID.hex}/executable").status == 200
            except OSError:  # what waited for the one that died
                return False

        for _ in range(20):
            until(answers)
        name = "symcache_library_refreshed_timestamp_seconds"
        killed = _metrics(server)[name, ""]
        until(lambda: _metrics(server)[name, ""] > killed + 5)  # how old the library is, tell those that live
        assert server.stop() == 0
        assert not [p for p in before if Path(f"/proc/{p}").exists()]


def test_one_that_dies_again_and_again_is_replaced_ever_more_slowly(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server", "--processes", "2") as server:
        lives, *_ = _workers(server)
        for seconds in (1, 2):
            killed = next(w for w in _workers(server) if w != lives)
            os.kill(killed, signal.SIGKILL)
            start = time.monotonic()
            until(lambda: set(_workers(server)) - {lives, killed})  # noqa: B023 - called at once
            assert time.monotonic() - start > seconds
            assert f"another is started in {seconds} s" in (tmp_path / "server" / "stderr").read_text()
            assert request(server.url, "/healthz").status == 200  # the other one responds meanwhile
        assert lives in _workers(server)
        assert server.stop() == 0


def _blocks_hang_ups(pid: int) -> bool:
    """Return whether SIGHUP waits (proc_pid_status(5)): the first thing that the command does."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigBlk:")[2].split()[0], 16) & 1)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_hang_up_while_it_starts_ends_nothing(samples: Samples, tmp_path: Path, processes: str) -> None:
    command = [sys.executable, "-m", "symcache", "serve", "--library", str(samples.library), "--port", "0", "--json"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    with subprocess.Popen(
        [*command, "--processes", processes], stdout=subprocess.PIPE, env=environment, text=True
    ) as server:
        assert server.stdout
        until(lambda: _blocks_hang_ups(server.pid))
        while not select.select([server.stdout], [], [], 0.05)[0]:
            server.send_signal(signal.SIGHUP)
        url = json.loads(server.stdout.readline())["url"]
        assert request(url, "/readyz").status == 200
        server.terminate()
        assert server.wait(60) == 0


def test_two_servers_never_share_a_port(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server", "--processes", "2") as server:
        for processes in ("1", "2"):
            command = [sys.executable, "-m", "symcache", "serve", "--library", str(samples.library)]
            command += ["--port", server.url.rpartition(":")[2], "--processes", processes]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            assert (done.returncode, done.stdout) == (3, "")
            assert "in use" in done.stderr


def test_no_process_outlives_its_supervisor(samples: Samples, tmp_path: Path) -> None:
    with serve(samples.library, tmp_path / "server", "--processes", "2") as server:
        workers = _workers(server)
        assert len(workers) == 2
        server.process.kill()
        server.process.wait()
        until(lambda: not any(map(_command, workers)), "they live on")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_hang_up_ends_nothing_and_logs_can_be_rotated(samples: Samples, tmp_path: Path, processes: str) -> None:
    log = tmp_path / "access.jsonl"
    with serve(samples.library, tmp_path / "server", "--access-log", str(log), "--processes", processes) as server:
        assert request(server.url, "/healthz").status == 200
        workers = _workers(server)
        server.process.send_signal(signal.SIGHUP)
        until(log.read_text)  # written down at once
        log.rename(tmp_path / "old")
        assert request(server.url, "/readyz").status == 200
        assert _workers(server) == workers
        assert server.stop() == 0
    assert ["/readyz" in log.read_text(), "/healthz" in (tmp_path / "old").read_text()] == [True, True]


def test_the_access_log_has_one_object_a_request(samples: Samples, tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with serve(samples.library, tmp_path / "server", "--access-log", str(log)) as server:
        path = f"/buildid/{SHARED_UUID.hex}/executable"
        whole = request(server.url, path, headers={"User-Agent": 'a"gent', "X-Forwarded-For": "10.1.2.3"})
        request(server.url, path, method="HEAD", headers={"Range": "bytes=0-1"})
        request(server.url, "/nothing%0ahere")
        assert server.stop() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(e["method"], e["path"].lower(), e["type"], e["status"]) for e in lines] == [
        ("GET", path, "debuginfod", 200),
        ("HEAD", path, "debuginfod", 200),
        ("GET", "/nothing%0ahere", "page", 404),
    ]
    assert [e["bytes"] for e in lines[:2]] == [len(whole.body), 0]
    assert (lines[0]["forwarded"], lines[0]["agent"], lines[1]["range"]) == ("10.1.2.3", 'a"gent', "bytes=0-1")
    assert all(e["seconds"] >= 0 and e["time"].endswith("+00:00") for e in lines)


def test_raw_cache_files_are_kept_and_served_byte_for_byte(tmp_path: Path) -> None:
    cache = UUID("11111111-2222-3333-4444-555555555555")
    names = ["dyld_shared_cache_arm64e", "dyld_shared_cache_arm64e.01", "dyld_shared_cache_arm64e.symbols"]
    staged = Staged(Release(version="13.6", build="22G120"), "test")
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([number]) * 20_000_000 + os.urandom(1000))
        staged.cache_files.append(StagedCacheFile(tmp_path / name, name, f"/System/{name}", "arm64e", cache))
    with Library.open(tmp_path / "library", create=True) as library:
        ingest(library, staged)
    with serve(tmp_path / "library", tmp_path / "server") as server:
        for name in names:
            for written in (str(cache), str(cache).upper(), cache.hex):
                answer = request(server.url, f"/caches/{written}/{name}")
                assert (answer.status, answer.body) == (200, (tmp_path / name).read_bytes())
            assert "immutable" in answer.headers["cache-control"]
            part = request(server.url, f"/caches/{cache}/{name}", headers={"Range": "bytes=-1000"})
            assert (part.status, part.body) == (206, (tmp_path / name).read_bytes()[-1000:])
            # Large ones are stored as several frames; curl unpacks them as it would any.
            command = ["curl", "-fsS", "--compressed", f"{server.url}/caches/{cache}/{name}"]
            packed = subprocess.run(command, capture_output=True, check=True)
            assert packed.stdout == (tmp_path / name).read_bytes()
        assert request(server.url, f"/caches/{cache}/other").status == 404
        assert request(server.url, f"/caches/{UUID(int=4)}/{names[0]}").status == 404


async def test_who_does_not_read_holds_up_a_stop_no_longer_than_downloads_may(samples: Samples, tmp_path: Path) -> None:
    path, seconds = f"/buildid/{uuid_of(samples.large).hex}/executable", 5.0
    config = ServerConfig(str(samples.library), tmp_path / "cache", tmp_path / "state", stop_seconds=seconds)
    sock, ready, loop = listen("127.0.0.1", 0), asyncio.Event(), asyncio.get_running_loop()
    serving = asyncio.create_task(_serve(config, sock, lambda _: ready.set()))
    await ready.wait()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(sock.getsockname())
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await asyncio.sleep(1)
        start = loop.time()
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        # Not as long again, which is what aiohttp gives a handler to end that has not ended.
        assert seconds <= loop.time() - start < 2 * seconds


def test_what_is_not_ready_names_no_folder(tmp_path: Path) -> None:
    class Request(dict[Any, Any]):
        app: ClassVar = {
            CONFIG: ServerConfig(str(tmp_path / "symbols"), tmp_path / "cache", tmp_path / "state"),
            REFRESHER: SimpleNamespace(refreshed=0.0, error=f"{tmp_path}/symbols: no library here"),
            TROUBLES: Troubles(),
        }

    answer = asyncio.run(ready(Request()))  # type: ignore[arg-type]
    assert (answer.status, answer.text) == (503, "LIBRARY: no library here\n")


def test_processes_that_do_not_come_up_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symcache_server.process._START_SECONDS", 0.0)
    supervisor = _Supervisor(ServerConfig("library", tmp_path, tmp_path, port=0, processes=2))
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
    monkeypatch.setattr(supervisor, "_start", lambda number: pipes[number][0])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        with pytest.raises(EnvironmentFailure, match="did not take connections within 0 seconds"):
            supervisor.run(lambda _: None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_others_put_where_metrics_lie_is_no_hindrance(tmp_path: Path) -> None:
    left = tmp_path / "symcache-metrics-left"
    for folder in (left, tmp_path / "symcache-metrics-pipe"):
        folder.mkdir()
    (left / "lock").touch()
    os.mkfifo(tmp_path / "symcache-metrics-pipe/lock")
    sweep = threading.Thread(target=_sweep, args=(tmp_path,), daemon=True)
    sweep.start()
    sweep.join(10)
    assert (sweep.is_alive(), left.exists()) == (False, False)
