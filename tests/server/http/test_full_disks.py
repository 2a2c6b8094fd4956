"""Disks without room, or that take nothing: told in one sentence, and no reason to end."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest

from symcache_server.http import metric_files
from symcache_server.http.line_writer import LineWriter
from tests.support.disks import fill, mounted_disk
from tests.support.disks import full_disk as full_disk  # noqa: PLC0414 - a fixture
from tests.support.http import request
from tests.support.servers import SHARED_UUID, Samples, serve, uuid_of
from tests.support.waiting import until


def test_full_disks_are_told_and_kill_nothing(samples: Samples, tmp_path: Path) -> None:
    ready, held = "/readyz", f"/buildid/{SHARED_UUID.hex}/executable"
    with mounted_disk(tmp_path / "disk", 24) as disk:
        names = ("tmp", "cache", "state")
        for name in names:
            (disk / name).mkdir()
        environment = {"TMPDIR": str(disk / "tmp")}
        environment |= {f"XDG_{name.upper()}_HOME": str(disk / name) for name in names[1:]}
        options = ("--processes", "2", "--access-log", str(disk / "access.jsonl"))
        with serve(samples.library, tmp_path / "server", *options, env=environment) as server:
            assert request(server.url, held).status == 200
            room = fill(disk)
            for _ in range(40):  # of every layout, so that metrics with labels that were not there come to be
                assert request(server.url, held).status == 200
                assert request(server.url, f"/{SHARED_UUID.hex[:2]}/{SHARED_UUID.hex[2:]}/meta").status == 200
                assert request(server.url, f"/x/mach-uuid-{'0' * 32}/x").status == 404
            large = request(server.url, f"/buildid/{uuid_of(samples.large).hex}/executable")
            assert large.status in {200, 503}  # what is decoded already is evicted for it, or that is no room
            told = ("cache of decoded files", "state folder", "temporary folder", "access log", "No space left")

            def is_told() -> bool:
                answer = request(server.url, ready)
                return answer.status == 200 and all(text in answer.body.decode() for text in told)

            until(is_told)
            assert str(disk).encode() not in request(server.url, ready).body
            room.unlink()
            until(lambda: request(server.url, ready).body == b"ok\n")
            until(lambda: '"/readyz"' in (disk / "access.jsonl").read_text())
            assert server.stop() == 0
        stderr = (tmp_path / "server" / "stderr").read_text()
        assert "ended with" not in stderr
        for text in told[:4]:
            assert 1 <= stderr.count(text) <= 4  # by each process once a spell, not once a request


def test_a_cache_that_takes_no_files_makes_a_server_unready(samples: Samples, tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", 8) as disk:
        environment = {"XDG_CACHE_HOME": str(disk)}
        with serve(samples.library, tmp_path / "server", env=environment) as server:
            assert request(server.url, "/readyz").status == 200
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            until(lambda: request(server.url, "/readyz").status == 503)
            assert b"Read-only" in request(server.url, "/readyz").body
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            until(lambda: request(server.url, "/readyz").status == 200)


def test_metrics_of_several_processes_lie_where_there_is_room(
    full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metric_files, "_MEMORY", full_disk)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    before = set(full_disk.iterdir())
    (killed := tmp_path / "symcache-metrics-killed").mkdir()
    (killed / "lock").touch()
    with metric_files.common_metrics(2, tmp_path):
        assert not killed.exists()
        folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        assert folder.parent == tmp_path
        with metric_files.common_metrics(1, tmp_path):
            pass
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        assert folder.exists()  # another server that starts leaves it
        sizes = {file.name: file.stat() for file in folder.glob("*.db")}
        assert {name.rpartition("_")[0] for name in sizes} == {"counter", "histogram", "gauge_livemin"}
        assert all(status.st_blocks * 512 >= status.st_size > 0 for status in sizes.values())  # nothing is sparse
    assert not folder.exists()
    with caplog.at_level(logging.WARNING), metric_files.common_metrics(2):
        assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert "each process tells its own" in caplog.text
    assert set(full_disk.iterdir()) == before


def test_lines_wait_for_room_and_come_once(full_disk: Path) -> None:
    writer = LineWriter(full_disk / "log", at_once=True)
    lines = [f"{number:0100}" for number in range(2000)]
    for line in lines:
        writer.add(line)
    until(lambda: "No space left" in writer.problem)
    (full_disk / "room").unlink()
    until(lambda: (full_disk / "log").read_text().splitlines() == lines)
    until(lambda: not writer.problem)
    writer.close()


def test_a_pipe_that_nobody_reads_holds_up_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("symcache_server.http.line_writer._MOST", 3000)
    monkeypatch.setattr("symcache_server.http.line_writer._LAST_SECONDS", 0.05)
    monkeypatch.setattr("symcache_server.http.line_writer._STUCK_SECONDS", 0.05)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(tmp_path / "pipe")
    for number in range(10_000):
        writer.add(f"{number:0100}")
    assert writer.take_dropped() >= 10_000 - 2 * 3000
    until(lambda: "nothing takes" in writer.problem)
    writer.close()
    os.close(reader)
