"""The tutorial and the recipes of the documentation, run as they stand there, but for ports and folders."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from symcache.library import Library, ingest
from symcache.verify import Expectations
from symcache_provisioning import Inventory
from tests.library.images import Image, harvest
from tests.support.ports import free_port
from tests.support.recipes import PAGES, ROOT, blocks, fenced, placed, unfenced
from tests.support.shell import Shell

_INSTALLING = re.compile(r"git clone .*|make demo|\. \.venv/bin/activate")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    with Shell(tmp_path, monkeypatch) as started:
        yield started


def _lines_in(text: str, printed: str) -> None:
    """Each line of a text has been printed, in this order; `…` stands for any others."""
    at, shown = 0, [" ".join(line.split()) for line in printed.splitlines()]
    for line in text.splitlines():
        words = " ".join(line.split())
        if words not in {"", "…"}:
            assert words in shown[at:], f"{line!r} is not what is printed:\n{printed}"
            at += shown[at:].index(words) + 1


def test_the_tutorial_leads_from_a_mac_to_a_backtrace(shell: Shell, tmp_path: Path) -> None:
    port, home = free_port(), Path("~").expanduser()
    page = (ROOT / "docs" / "tutorial.md").read_text()
    (session,) = blocks("../README.md", "console")
    printed, outputs = "", {}
    for kind, body in fenced(page):
        if kind == "text":
            _lines_in(body, printed)
        if kind == "sh":
            printed = ""
            for line in placed(body, {"8080": port}).splitlines():
                if line.startswith("python -m symcache.demo"):
                    shell.start(line, home / "stand-in" / "machines.toml")
                elif not _INSTALLING.fullmatch(line):
                    outputs[line] = shell.run(line)
                    printed += outputs[line]
    assert "complete (27 images" in outputs["symcache verify 22G830 --arch arm64e --arch x86_64"]
    # What README shows is what these commands print.
    for shown in session.split("$ ")[1:]:
        command, _, text = shown.partition("\n")
        _lines_in(text, outputs.get(placed(command, {"8080": port}), ""))
    assert len(session.split("$ ")) > 4


def _library(folder: Path, *, seed: int = 0) -> Path:
    images = [Image(f"/usr/lib/lib{number}.dylib", number, seed=seed) for number in (1, 2)]
    with Library.open(folder, create=True) as library:
        ingest(library, harvest(folder.parent, images, build="22G830"))
    return folder


def test_a_backup_is_made_and_restored(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("rsync"):
        pytest.skip("not installed: rsync (apt-get install rsync)")
    places = {"/srv/symbols": tmp_path / "srv", "/backup/symbols": tmp_path / "backup/symbols"}
    nightly, damaged, removed, lost = (placed(script, places) for script in blocks("howto/backup.md", "sh"))
    library = _library(tmp_path / "srv")
    (tmp_path / "backup").mkdir()
    shell.run(f"export SYMCACHE_LIBRARY={library}")
    shell.run(nightly)
    for stored in ("blobs", "records"):
        file = next((library / stored).rglob("*.zst"))
        file.chmod(0o644)
        content = bytearray(file.read_bytes())
        content[-5] ^= 0xFF  # as long as it was, so only reading it all finds it
        file.write_bytes(content)
    shell.run(nightly)  # copies nothing of the damage
    shell.run(damaged, codes=[1])
    shell.run("symcache fsck --read-data")
    shell.run("symcache remove 22G830 --yes")
    shell.run(removed)
    shutil.rmtree(library)
    assert "2 images" in shell.run(lost + "symcache verify 22G830 --arch x86_64\n", codes=[0, 0, 0, 0, 1])


def test_a_copy_without_a_network_is_a_library(shell: Shell, tmp_path: Path) -> None:
    _library(tmp_path / "srv")
    packed, unpacked = blocks("howto/air-gapped.md", "sh")[2:4]
    places = {"/srv/symbols": tmp_path / "srv", "/srv/copy": tmp_path / "copy"}
    shell.run(placed(packed, places))
    shutil.rmtree(tmp_path / "srv")
    *checked, served = placed(unpacked, places).splitlines()
    assert served.startswith("symcache serve ")
    assert "22G830" in shell.run("\n".join(checked))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_written_into_files_can_be_read(page: Path) -> None:
    readers = {"toml": tomllib.loads, "yaml": yaml.safe_load}
    for kind, body in fenced(page.read_text()):
        readers.get(kind, len)(body)


def test_the_fleet_and_the_site_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VM_PASSWORD", "secret")
    file = tmp_path / "machines.toml"
    file.write_text(blocks("howto/vm-fleet.md", "toml")[0].replace("SHA256:…", "SHA256:" + "A" * 43))
    assert {machine.name for machine in Inventory.load(file).tagged([])} == {"sonoma", "ventura", "intel"}
    (tmp_path / "releases.toml").write_text(blocks("howto/ci-harvest.md", "toml")[0])
    Expectations.load(tmp_path / "releases.toml")


def test_every_bench_that_is_named_is_there() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    table = (ROOT / "README.md").read_text().partition("## Measured")[2].partition("\n## ")[0]
    names = re.findall(r'BENCH="?([a-z][a-z-]+)', text) + re.findall(
        r'\| `"?([a-z][a-z-]+)[^|]*\|$', table, re.MULTILINE
    )
    benches = [file.stem for file in (ROOT / "tests" / "bench").glob("*.py")]
    assert len(names) > 8
    assert [name for name in names if not any(name.replace("-", "_") in bench for bench in benches)] == []


_PROGRAMS = ("symcache ", "python ", "pip ", "apt-get ", "xcode-select ", "ssh", "defaults ", "--", "/")


def test_messages_that_are_explained_are_those_of_the_program() -> None:
    folders = [ROOT / name for name in ("symcache", "server", "vm_provisioning")]
    code = "\n".join(file.read_text() for folder in folders for file in sorted(folder.rglob("*.py")))
    code = re.sub(r'"\n *(?:f|r)?"', "", code)  # one string over several lines
    page = unfenced((ROOT / "docs" / "troubleshooting.md").read_text())
    quoted = [span for span in re.findall(r"`([^`]+)`", page) if " " in span and not span.startswith(_PROGRAMS)]
    assert len(quoted) > 15
    assert [span for span in quoted if any(part.strip() not in code for part in span.split("…"))] == []
