"""A hostile child: each thing that it tries fails, and what reads its output comes to its end."""

from __future__ import annotations

import functools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from symcache.confined import UNCONFINED, Bounds, Cause, ConfinedProcess, ProcessFailure, unconfined_parts
from symcache.confined import machine as machine_module
from symcache.confined.inside import _CALLS, _CLONE, _CLONE3, _IOCTL, _KILL, _MMAP, _TGKILL, has_filter
from symcache.confined.inside import has_landlock as landlock
from symcache.own_program import own_environment, own_python
from tests.support.waiting import until

needs_landlock = pytest.mark.skipif(not landlock(), reason="this kernel has no Landlock")
needs_filter = pytest.mark.skipif(not has_filter(), reason="this kernel filters no system calls")
_TRY = """
import os, socket, sys
def attempt(what, function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        print(what, error.strerror)
    else:
        print(what, "done")
"""


def _start(folder: Path, body: str, *arguments: str | Path, **bounds: object) -> ConfinedProcess:
    script = folder / "script.py"
    script.write_text(_TRY + body)
    work = folder / "work"
    work.mkdir()
    granted = Bounds(**bounds)  # type: ignore[arg-type]
    return ConfinedProcess(
        own_python, str(script), [str(a) for a in arguments], granted, environment=own_environment(), folder=work
    )


def _output(folder: Path, body: str, *arguments: str | Path, **bounds: object) -> list[str]:
    with _start(folder, body, *arguments, **bounds) as child:
        return child.read("it")[1].decode().splitlines()


def _failure(folder: Path, body: str, *arguments: str | Path, **bounds: object) -> ProcessFailure:
    with _start(folder, body, *arguments, **bounds) as child, pytest.raises(ProcessFailure) as error:
        child.read("it")
    return error.value


def test_a_module_of_our_own_is_run_as_well(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "x.json").write_text('{"a": 1}')
    arguments = ["json.tool", "--compact", str(tmp_path / "x.json")]
    with ConfinedProcess(
        own_python, "-m", arguments, Bounds(), environment=own_environment(), folder=tmp_path / "work"
    ) as child:
        assert child.read("it") == (0, b'{"a":1}\n')


@needs_filter
def test_it_reaches_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        body = """
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)))
attempt("unix", lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[2]))
"""
        refused = "Operation not permitted"
        arguments = (str(server.getsockname()[1]), tmp_path / "socket")
        assert _output(tmp_path, body, *arguments) == [f"{what} {refused}" for what in ("tcp", "udp", "unix")]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@needs_landlock
@needs_filter
def test_it_writes_nowhere_but_where_it_may(tmp_path: Path) -> None:
    outside, scratch = tmp_path / "outside", tmp_path / "scratch"
    outside.mkdir()
    scratch.mkdir()
    kept = outside / "kept"
    kept.write_text("kept")
    kept.chmod(0o600)
    before = kept.stat()
    body = """
outside, scratch = sys.argv[1:]
kept = outside + "/kept"
attempt("change", open, kept, "r+")
attempt("create", open, outside + "/new", "w")
attempt("empty", os.truncate, kept, 0)
attempt("delete", os.unlink, kept)
attempt("rename", os.rename, kept, scratch + "/taken")
attempt("link", os.link, kept, scratch + "/linked")
attempt("symlink", os.symlink, kept, outside + "/symlink")
attempt("mkdir", os.mkdir, outside + "/folder")
attempt("chmod", os.chmod, kept, 0o777)
attempt("chmod open", os.fchmod, os.open(kept, os.O_RDONLY), 0o777)
attempt("touch", os.utime, kept, (0, 0))
attempt("own", os.chown, kept, 1, 1)
attempt("attribute", os.setxattr, kept, "user.x", b"x")
attempt("read", lambda: print(open(kept).read()))
attempt("scratch", lambda: open(scratch + "/new", "w").write("x" * (2 << 20)))
attempt("null", open, "/dev/null", "w")
"""
    done = _output(tmp_path, body, outside, scratch, writable=(scratch,))
    assert done[-4:] == ["kept", "read done", "scratch done", "null done"]
    for line in done[:-4]:
        assert line.endswith(("Permission denied", "not permitted", "cross-device link"))
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert [path.name for path in scratch.iterdir()] == ["new"]
    assert kept.read_text() == "kept"
    assert (kept.stat().st_mode, kept.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@needs_filter
def test_it_leaves_no_process_behind_and_touches_no_other(tmp_path: Path) -> None:
    body = """
import ctypes, mmap, subprocess, threading, signal
attempt("fork", os.fork)
attempt("spawn", os.posix_spawn, "/bin/sleep", ["sleep", "600"], {})
attempt("subprocess", subprocess.Popen, ["sleep", "600"])
attempt("signal", os.kill, os.getppid(), 0)
attempt("group", os.killpg, 0, signal.SIGTERM)
attempt("shared memory", mmap.mmap, -1, 1 << 20)
attempt("file of memory", os.memfd_create, "x")
libc = ctypes.CDLL(None, use_errno=True)
print("trace", libc.ptrace(16, os.getppid(), None, None))
thread = threading.Thread(target=print, args=["thread"])
thread.start()
thread.join()
attempt("itself", os.kill, os.getpid(), 0)
"""
    *refused, trace, thread, itself = _output(tmp_path, body)
    assert all(line.endswith("Operation not permitted") for line in refused), refused
    assert (len(refused), trace, thread, itself) == (7, "trace -1", "thread", "itself done")


def test_what_it_started_ends_with_it_where_it_can_start_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UNCONFINED, "1")
    assert [part.partition(": ")[0] for part in unconfined_parts()] == ["network, writing, other processes"]
    body = "import subprocess\nprint(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)\n"
    (pid,) = _output(tmp_path, body)
    until(lambda: _ended(int(pid)), "it lives on")


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not end a process with its parent")
def test_it_ends_with_us(tmp_path: Path) -> None:
    body = f"""
import sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from tests.confined.test_process import _start
child = _start(Path({str(tmp_path)!r}), "import time; print('begun', flush=True); time.sleep(600)")
child._process.stdout.readline()
print(child._process.pid, flush=True)
child.read("it")
"""
    with subprocess.Popen([sys.executable, "-c", body], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: _ended(pid), "it lives on")


@pytest.mark.skipif(sys.platform != "linux", reason="macOS enforces no limit of memory")
@pytest.mark.parametrize("body", ["kept = []\nwhile True: kept.append(bytearray(1 << 24))", "os.abort()"])
def test_memory_has_an_end(tmp_path: Path, body: str) -> None:
    said = "sys.stderr.write('LLVM ERROR: out of memory\\n'); sys.stderr.flush()\n" if "abort" in body else ""
    failure = _failure(tmp_path, said + body, memory=256 << 20)
    assert failure.cause is Cause.MEMORY
    assert str(failure) == "it needs more memory than it is allowed, 0.2 GiB"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS enforces no limit of memory")
def test_files_that_are_mapped_take_no_memory(tmp_path: Path) -> None:
    big = tmp_path / "core"
    with big.open("wb") as file:
        file.truncate(1 << 30)
    body = "import mmap\nwith open(sys.argv[1], 'rb') as f: print(len(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)))\n"
    assert _output(tmp_path, body, big, memory=256 << 20) == [str(1 << 30)]


def test_the_memory_of_the_machine_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < Bounds(memory=1 << 60).granted_memory < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr("symcache.confined.process.machine_memory", lambda: 4 << 30)
    assert Bounds(memory=44 << 30).granted_memory == 3 << 30


def test_output_has_an_end(tmp_path: Path) -> None:
    failure = _failure(tmp_path, "while True: print('x' * 65536)", output=1 << 20)
    assert (failure.cause, str(failure)) == (Cause.OUTPUT, "it writes more than 1 MiB")


def test_what_it_says_on_standard_error_has_an_end(tmp_path: Path) -> None:
    body = "for _ in range(100): attempt('', os.write, 2, b'x' * 65536)\nprint(os.fstat(2).st_size)\n"
    assert _output(tmp_path, body)[-1] == str(1 << 20)


def test_time_has_an_end(tmp_path: Path) -> None:
    body = "import signal\nfor n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass\n"
    with _start(tmp_path, body, seconds=0.3) as child, pytest.raises(ProcessFailure) as error:
        child.read("it")
    assert (error.value.cause, str(error.value)) == (Cause.TIME, "it was not done after 0.3 seconds and was stopped")
    assert child._process.returncode == -signal.SIGKILL


def test_descriptors_have_an_end(tmp_path: Path) -> None:
    body = """
kept = []
def fill():
    while True: kept.append(os.open("/dev/null", os.O_RDONLY))
attempt("open", fill)
os.close(kept.pop())
print(len(kept) < 64)
"""
    assert _output(tmp_path, body, descriptors=64) == ["open Too many open files", "True"]


@needs_landlock
def test_what_cannot_be_confined_does_not_begin(tmp_path: Path) -> None:
    failure = _failure(tmp_path, "print('begun')", writable=(tmp_path / "script.py" / "x",))
    assert failure.cause is Cause.UNCONFINED
    assert str(failure) == "it cannot be confined: Not a directory"


def test_what_this_machine_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "has_landlock", lambda: False)
    monkeypatch.setattr(machine_module, "has_filter", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert [part.partition(": ")[0] for part in unconfined_parts()] == [
        "writing",
        "network, other processes, shared memory",
    ]
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine_module.shutil, "which", lambda name: name)
    assert [part.partition(": ")[0] for part in unconfined_parts()] == ["memory", "other processes"]


@pytest.mark.parametrize(
    ("group", "file"),
    [
        ("0::/user.slice/job", "user.slice/memory.max"),
        ("0::/host/path/of/container", "memory.max"),
        ("4:memory:/job", "memory/job/memory.limit_in_bytes"),
        ("4:cpu,memory:/", "memory/memory.limit_in_bytes"),
    ],
)
def test_limits_of_a_control_group_count(tmp_path: Path, group: str, file: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("1073741824\n")
    assert tmp_path / file in list(machine_module._memory_limits(["3:cpu:/other", group], tmp_path))


def test_the_profile_for_macos_names_what_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "_has_sandbox", lambda: True)
    odd = tmp_path / 'a") (allow default)'
    *start, profile = machine_module.sandbox_command([odd, tmp_path])
    assert start == ["/usr/bin/sandbox-exec", "-D", f"W0={odd}", "-D", f"W1={tmp_path}", "-p"]
    assert profile.count("(") == profile.count(")")
    assert str(tmp_path) not in profile
    assert re.findall(r'\(param "(\w+)"\)', profile) == ["W0", "W1"]


@functools.cache
def _headers() -> Path:
    spec = find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "lib/libc/include"


@pytest.mark.parametrize(("column", "machine"), [(0, "x86"), (1, "aarch64")])
def test_numbers_of_system_calls_are_those_of_the_kernels_headers(column: int, machine: str) -> None:
    text = (_headers() / f"{machine}-linux-any/asm/unistd_64.h").read_text()
    real = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}
    special = {"clone": _CLONE, "clone3": _CLONE3, "kill": _KILL, "tgkill": _TGKILL, "mmap": _MMAP, "ioctl": _IOCTL}
    for name, numbers in {**_CALLS, **special}.items():
        assert numbers[column] == real.get(name), name


def test_it_is_read_by_a_process_with_thousands_of_open_files(tmp_path: Path) -> None:
    """As a server with as many connections is; `select` takes descriptors below 1024 only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1024):
            stack.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        assert _output(tmp_path, "print('read')\n") == ["read"]
