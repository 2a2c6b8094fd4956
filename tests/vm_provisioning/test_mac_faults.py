"""Faults of layout, permission, mount, key and connection: none may end in a seal, and each is named.

All of them are `make soak`'s, which prints the table; `make test` tries one of each kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.library import Library
from symcache_provisioning.ssh.login import Timeouts
from tests.support.mac import OddMac, make_mac, need_a_root
from tests.support.mac_layout import image_count
from tests.vm_provisioning.mac_faults import FAULTS, Fault, Scene
from tests.vm_provisioning.test_layouts import MACS

_VERDICTS = ("problem: ", "error: ", "next: ")
EVERY = bool(os.environ.get("SYMCACHE_TEST_MAC_FAULTS"))


class Row(NamedTuple):
    kind: str
    name: str
    code: int
    sealed: bool
    sentence: str


@pytest.fixture(scope="module", autouse=True)
def root_of_its_own() -> None:
    need_a_root()


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    if EVERY:
        print("\n\n| what is wrong | exit | sealed | what is said |\n|---|---|---|---|")
        for row in rows:
            print(f"| {row.kind}: {row.name} | {row.code} | {'yes' if row.sealed else 'no'} | {row.sentence} |")
        print(f"{len(rows)} faults, {sum(row.sealed for row in rows)} sealed")


def run(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bool, list[str]]:
    """Harvest the scene by the command; return its exit code, whether anything is sealed, and what it printed."""
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.setattr(
        "symcache_provisioning.ssh.session.Timeouts", lambda: Timeouts(connect=2, reply=20, attempts=2, backoff=0.05)
    )
    arguments = [*scene.arguments]
    if scene.password is not None:
        monkeypatch.setenv("MAC_PASSWORD", scene.password)
        arguments += ["--password-env", "MAC_PASSWORD"]
    with (
        OddMac(scene.root, sshd=scene.sshd, mounts=scene.mounts, sftp=scene.sftp) as mac,
        scene.between(mac.port) as port,
        scene.staging(tmp_path / "staging") as staging,
    ):
        if scene.pinned:
            arguments += ["--host-key", mac.fingerprint]
        known = scene.home / ".ssh/known_hosts"
        if known.exists():
            known.write_text(known.read_text().format(host=f"[127.0.0.1]:{port}"))
        url = scene.url or mac.url(scene.user, scene.system, port=port)
        library = tmp_path / "library"
        arguments += ["--library", str(library), "--staging", str(staging)]
        done = CliRunner().invoke(application("harvest"), ["harvest", url, *arguments])
    sealed = False
    if library.exists():
        with Library.open(library) as opened:
            sealed = any(release.sealed for release in opened.releases())
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, sealed, [*done.stdout.splitlines(), *done.stderr.splitlines()]


def _say_where(text: str) -> str:
    """Return a sentence without what differs from run to run."""
    text = re.sub(r"127\.0\.0\.1( port |:)?[0-9]*|/tmp/pytest\S*/", "…", text)
    return text if len(text) <= 220 else text[:219] + "…"


@pytest.mark.parametrize("fault", [f for f in FAULTS if EVERY or f.quick], ids=lambda f: f"{f.kind}: {f.name}")
def test_what_is_wrong_is_named_and_never_sealed(
    fault: Fault, loose: Path, table: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(make_mac(tmp_path / "root", fault.layout, loose=loose), tmp_path, Path.home())
    fault.inject(scene)
    code, sealed, printed = run(scene, tmp_path, monkeypatch)
    said = [line for line in printed if fault.says in line and line.startswith(_VERDICTS)]
    table.append(Row(fault.kind, fault.name, code, sealed, _say_where(said[0]) if said else "(nothing)"))
    assert not sealed
    assert code in {1, 2, 3}, "\n".join(printed)
    assert said, "\n".join(printed)


@pytest.mark.parametrize("name", MACS if EVERY else ["27 VM"])
def test_without_a_fault_it_is_sealed(name: str, loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, sub_caches = MACS[name]
    root = make_mac(tmp_path / "root", layout, loose=loose, sub_caches=sub_caches)
    code, sealed, printed = run(Scene(root, tmp_path, Path.home()), tmp_path, monkeypatch)
    assert (code, sealed) == (0, True), "\n".join(printed)
    for cache in layout.caches:
        images = image_count(layout, cache, sub_caches=sub_caches)
        main = f"/{cache.folder}/dyld_shared_cache_{cache.arch} "
        assert [line for line in printed if line.startswith(main) and line.endswith(f" {images} images")]
