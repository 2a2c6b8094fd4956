"""Dumps of an emulated process: what was in it is in the dump, to the byte, and LLDB understands it by itself."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree as ET

import lief
import pytest

from symcache.dump.capture import CrashReport, write_dump
from symcache.errors import DumpError, EnvironmentFailure, StorageError
from symcache.model import uuid_text
from tests.corpus.build import Build, build
from tests.corpus.scenario import EXECUTABLE, Crash, cache_memory, crash, make_cache
from tests.dump.capture.emulated import CACHE_BASE, CACHE_UUID, EmulatedTask
from tests.support.toolchain import need_toolchain

REPORT = CrashReport(0x1000, EXECUTABLE, "2.4 <beta> & \x01")


@pytest.fixture(scope="module", params=["x86_64", "arm64"])
def crashed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Build, Crash]:
    need_toolchain()
    built = build(request.param, tmp_path_factory.mktemp(request.param))
    return built, crash(built, cache_memory(built, make_cache(built)))


@pytest.fixture
def task(crashed: tuple[Build, Crash]) -> EmulatedTask:
    return EmulatedTask(crashed[1].machine)


def _split(path: Path) -> tuple[ET.Element, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["minidump.dmp"]
        data = archive.read("minidump.dmp")
    end = data.index(b"</root>") + len(b"</root>")
    return ET.fromstring(data[:end]), data[end:]


def test_the_header_names_what_the_process_was(
    task: EmulatedTask, crashed: tuple[Build, Crash], tmp_path: Path
) -> None:
    written = write_dump(task, REPORT, tmp_path / "crash.zip")
    assert written.problems == ()
    root, _ = _split(tmp_path / "crash.zip")
    body = root.find("PersistentType")
    assert body is not None
    assert body.findtext("m_strExecutable") == EXECUTABLE
    assert body.findtext("m_strBundleVersion") == "2.4 <beta> & \ufffd"
    assert body.find("m_nThread").attrib["val"] == "0"
    assert body.findtext("m_strOSBuild") == "22G830"
    assert body.find("m_cacheuuid").attrib["val"] == CACHE_UUID.hex()
    assert body.find("m_pvCacheStart").attrib["val"] == str(CACHE_BASE)
    elements = body.findall("m_vecmodule/elem")
    assert body.find("m_vecmodule").attrib["length"] == str(len(elements))
    told = {
        (
            int(e.find("m_pvStartAddress").attrib["val"]),
            e.findtext("m_strPath"),
            e.find("m_modver").attrib["val"] if e.find("m_modver") is not None else None,
            e.find("m_uuid").attrib["val"],
        )
        for e in elements
    }
    modules = crashed[1].machine.process.modules
    assert told == {
        (m.load_address, m.path, None if m.version is None else str(m.version), m.uuid.lower().replace("-", ""))
        for m in modules
    }
    assert elements[0].findtext("m_strPath") == EXECUTABLE


def test_the_core_holds_every_region_and_the_stacks_to_the_byte(
    task: EmulatedTask, crashed: tuple[Build, Crash], tmp_path: Path
) -> None:
    write_dump(task, REPORT, tmp_path / "crash.zip")
    _, core = _split(tmp_path / "crash.zip")
    parsed = lief.MachO.parse(list(core))
    binary = parsed.at(0)
    assert binary.header.file_type == lief.MachO.Header.FILE_TYPE.CORE
    machine = crashed[1].machine
    expected = sorted((r.address, r.size, r.protection, r.size if r.stack else 0) for r in machine.process.regions)
    segments = [(s.virtual_address, s.virtual_size, s.init_protection, s.file_size) for s in binary.segments]
    assert segments == expected
    kept = 0
    for segment in binary.segments:
        if segment.file_size:
            kept += 1
            start = segment.file_offset
            memory = bytes(machine.uc.mem_read(segment.virtual_address, segment.virtual_size))
            assert core[start : start + segment.file_size] == memory
    assert kept == len(machine.threads) == 2


def test_everything_readable_is_kept_when_asked_for(
    task: EmulatedTask, crashed: tuple[Build, Crash], tmp_path: Path
) -> None:
    written = write_dump(task, REPORT, tmp_path / "big.zip", everything=True)
    regions = crashed[1].machine.process.regions
    assert written.kept == sum(r.size for r in regions if r.protection & 1)


def test_the_process_goes_on_whatever_happens(
    task: EmulatedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dump(task, REPORT, tmp_path / "one.zip")
    assert (task.calls[0], task.calls[-1]) == ("suspend", "resume")

    def fail() -> None:
        raise EnvironmentFailure("task_threads: (os/kern) failure")

    broken = EmulatedTask(task.machine)
    monkeypatch.setattr(broken, "threads", fail)
    with pytest.raises(EnvironmentFailure):
        write_dump(broken, REPORT, tmp_path / "two.zip")
    assert broken.calls == ["suspend", "resume"]
    with pytest.raises(StorageError):
        write_dump(task, REPORT, tmp_path / "one.zip" / "impossible" / "three.zip")
    assert task.calls[-1] == "resume"
    assert [p.name for p in tmp_path.iterdir()] == ["one.zip"]


def test_memory_that_is_gone_becomes_zeros_and_is_named(task: EmulatedTask, tmp_path: Path) -> None:
    stack = task.machine.threads[0].stack
    task.unreadable = {stack.address + 0x1000}
    written = write_dump(task, REPORT, tmp_path / "crash.zip")
    assert len(written.problems) == 1
    assert "4096 bytes" in written.problems[0]
    assert (tmp_path / "crash.zip").exists()


def test_a_thread_that_is_gone_does_not_prevent_the_dump(task: EmulatedTask, tmp_path: Path) -> None:
    written = write_dump(task, CrashReport(77, EXECUTABLE), tmp_path / "crash.zip")
    assert "thread 77" in written.problems[0]


def test_an_absurd_list_of_images_is_refused(task: EmulatedTask, tmp_path: Path) -> None:
    task._dyld = b"\x11\0\0\0\xff\xff\xff\x7f" + task._dyld[8:]
    with pytest.raises(DumpError, match="2147483647 images"):
        write_dump(task, REPORT, tmp_path / "crash.zip")


_PLAIN_LLDB = """
import json, lldb, sys
core, triple = sys.argv[1:]
debugger = lldb.SBDebugger.Create(False)
debugger.HandleCommand("settings set symbols.enable-external-lookup true")
target = debugger.CreateTarget("", triple, None, False, lldb.SBError())
process = target.LoadCore(core)
frames = [[f.GetPC() for f in t] for t in process]
print(json.dumps({
    "ids": [thread.GetThreadID() for thread in process],
    "modules": {m.GetUUIDString(): m.GetObjectFileHeaderAddress().GetLoadAddress(target) for m in target.module_iter()},
    "frames": frames,
}))
"""


@pytest.fixture
def debuginfod(crashed: tuple[Build, Crash]) -> Iterator[str]:
    """An HTTP server that has the images of the process as they were before they went into a cache."""
    files = {f"/buildid/{m.uuid.lower()}/executable": m.file for m in crashed[1].machine.process.modules}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files[self.path].read_bytes() if self.path in files else b""
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_stock_lldb_needs_nothing_but_the_notes_and_a_server(
    task: EmulatedTask, crashed: tuple[Build, Crash], tmp_path: Path, debuginfod: str
) -> None:
    ran = crashed[1]
    write_dump(task, REPORT, tmp_path / "crash.zip")
    _, core = _split(tmp_path / "crash.zip")
    (tmp_path / "core").write_bytes(core)
    output = subprocess.run(
        [sys.executable, "-c", _PLAIN_LLDB, str(tmp_path / "core"), f"{ran.machine.process.arch}-apple-macosx"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"DEBUGINFOD_URLS": debuginfod, "DEBUGINFOD_CACHE_PATH": str(tmp_path / "cache")},
    ).stdout
    seen = json.loads(output)
    assert seen["ids"] == [0x1000, 0x1001]
    assert seen["modules"] == {uuid_text(UUID(m.uuid)): m.load_address for m in ran.machine.process.modules}
    assert seen["frames"] == [[f.pc for f in t.frames] for t in ran.truth.threads]
