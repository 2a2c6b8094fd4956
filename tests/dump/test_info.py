"""`symcache info` of everything that a crash may be kept in, told from what it holds and without a debugger."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from symcache.model import uuid_text
from tests.corpus.dumpfile import Dump
from tests.dump.builder import CoreFile, Region, small_core, x86_thread
from tests.dump.minidump import MiniThread, minidump
from tests.dump.test_cli import run
from tests.dump.test_corpus import ARCHES, dump, truth
from tests.reports.writers import crash, ips
from tests.support.corpus import variant


def _minidump(real: dict[str, Any]) -> bytes:
    modules = [(base, 0x1000, path, UUID(uuid)) for path, uuid, base in real["modules"]]
    threads = [MiniThread({}, 0x7000_0000_0000 + n * 0x10000, b"s" * 64) for n in range(len(real["threads"]))]
    return minidump(modules, threads, real["crashed_thread"], (1, 1, real["fault_address"]), arch=real["arch"])


def _core(real: dict[str, Any]) -> bytes:
    made: Dump = variant(real["arch"]).dump
    made.notes = [
        ("load binary", struct.pack("<I16s2Q", 1, UUID(uuid).bytes, base, 0) + path.encode() + b"\0")
        for path, uuid, base in real["modules"]
    ]
    return made.core()


KINDS = {
    "dump": lambda real: dump(real["arch"]).read_bytes(),
    "core": _core,
    "minidump": _minidump,
    "crash report": lambda real: ips(real).encode(),
    "crash report, text": lambda real: crash(real).encode(),
}


@ARCHES
@pytest.mark.parametrize("kind", KINDS)
def test_info_tells_what_is_in_it(kind: str, arch: str, tmp_path: Path) -> None:
    real = truth(arch)
    path = tmp_path / "crash"
    path.write_bytes(KINDS[kind](real))
    told = json.loads(run("info", path, "--json").stdout)
    assert (told["kind"], told["path"], told["arch"]) == (kind.partition(",")[0], str(path), arch)
    assert told["executable"] == real["executable"]
    assert (told["threads"], told["crashed_thread"]) == (len(real["threads"]), real["crashed_thread"])
    assert told["exception"].startswith("SIGSEGV: ")
    assert [(m["address"], m["uuid"], m["path"]) for m in told["modules"]] == [
        (hex(base), uuid_text(UUID(uuid)), path) for path, uuid, base in real["modules"]
    ]
    knows_build = "report" in kind or kind == "minidump"
    assert (told["os_build"], told["os_version"]) == (("22G830", "macOS 13.6.9") if knows_build else (None, None))
    assert (told["bytes_kept"] is None) == ("report" in kind)
    text = run("info", path).stdout
    for path_, uuid, _ in real["modules"]:
        assert any(line.split()[1:] == [uuid_text(UUID(uuid)), path_] for line in text.splitlines())
    assert arch in text and told["exception"] in text


def test_a_report_that_names_images_only(tmp_path: Path) -> None:
    """A report of a kind that is not known has images without addresses, and no threads."""
    path = tmp_path / "x.ips"
    image = {"uuid": "0123abcd-0000-0000-0000-000000000001", "path": "/bin/a"}
    path.write_text(json.dumps({"bug_type": "999"}) + "\n" + json.dumps({"usedImages": [image]}))
    told = json.loads(run("info", path, "--json").stdout)
    assert told["modules"] == [{"address": None, "path": "/bin/a", "uuid": "0123ABCD-0000-0000-0000-000000000001"}]
    assert (told["threads"], told["crashed_thread"]) == (0, None)


_EVIL = "/bin/\x1b[31m\u202ered\n[bold]x"


def _evil_minidump() -> bytes:
    return minidump([(0x1000, 0x1000, _EVIL, UUID(int=1))], [MiniThread({}, 0x9000, b"s")], 0, None, build="\x1b[2J")


def _evil_core() -> bytes:
    note = struct.pack("<I16s2Q", 1, bytes(15) + b"\1", 0x1000, 0) + _EVIL.encode() + b"\0"
    return CoreFile(regions=[Region(0x1000, 0x1000)], threads=[x86_thread()], notes=[(b"load binary", note)]).bytes()


def _evil_report() -> bytes:
    image = {"uuid": str(UUID(int=1)), "path": _EVIL + "\ud800", "base": 0x1000}
    return json.dumps({"usedImages": [image], "threads": [], "procPath": "\udfff\x07"}).encode()


@pytest.mark.parametrize("make", [_evil_minidump, _evil_core, _evil_report])
def test_names_out_of_it_do_nothing_to_the_terminal(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "evil"
    path.write_bytes(make())
    done = run("info", path)
    assert done.returncode == 0
    assert "\\x1b[31m" in done.stdout and "[bold]x" in done.stdout
    assert all(c.isprintable() or c == "\n" for c in done.stdout)
    assert sum(str(UUID(int=1))[:-1] in line for line in done.stdout.splitlines()) == 1
    assert json.loads(run("info", path, "--json").stdout)["modules"][0]["path"].startswith(_EVIL)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_it_is_a_sentence_or_an_answer(kind: str, tmp_path: Path) -> None:
    whole = KINDS[kind](truth("x86_64"))
    path = tmp_path / "cut"
    for size in [0, 1, 4, 5, 15, 16, 17, 32, 33, *range(40, 4000, 397), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        done = run("info", path, "--json")
        if done.returncode:
            assert done.returncode == 1
            assert done.stderr.startswith("error: ") and str(path) in done.stderr.replace("\n", "")
        else:
            assert json.loads(done.stdout)["arch"]


def test_info_takes_no_other_core_for_one(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(CoreFile(cputype=7, threads=[x86_thread()]).bytes())
    assert "is a core of i386" in run("info", path).stderr
    path.write_bytes(small_core().bytes()[:-1])
    assert "cut" in run("info", path).stderr
