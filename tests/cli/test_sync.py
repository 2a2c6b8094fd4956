"""`symcache sync` as a nightly job uses it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.errors import StorageError
from symcache.library import Library, remove_build
from symcache_provisioning import PublishedBuild, SyncRunner
from tests.client.lying_server import LyingServer
from tests.support.appledb import REAL, entries_of, pack, source
from tests.support.openssh import OpenSshServer
from tests.support.restore_images import FILE_SYSTEM, SYSTEM, RestoreImage
from tests.support.systems import BUILD

app = application("sync")


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library, an inventory without machines, and AppleDB with a build that a machine may run, a day or so old."""
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("SYMCACHE_MACHINES", str(tmp_path / "machines.toml"))
    monkeypatch.setenv("SYMCACHE_RELEASES", str(tmp_path / "releases.toml"))
    monkeypatch.setenv("SYMCACHE_APPLEDB", str(tmp_path / "main.json.xz"))
    monkeypatch.setenv("COLUMNS", "1000")
    (tmp_path / "machines.toml").write_text("")
    (tmp_path / "releases.toml").write_text('archs = ["arm64e"]\n[sync]\nfrom = "28"\n')
    mine = REAL[3] | {"build": BUILD, "version": "28.0", "released": "2026-11-28", "createDuplicateEntries": []}
    (tmp_path / "main.json.xz").write_bytes(pack(entries_of([*REAL, mine])))
    return tmp_path


def inventory(folder: Path, server: OpenSshServer, root: Path) -> None:
    values = {"driver": "static", "host": server.address, "port": server.port, "user": server.user}
    values |= {"identity": str(server.identity), "host_key": server.fingerprint, "root": str(root)}
    lines = ["[machines.lab]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    (folder / "machines.toml").write_text("\n".join(lines))


def sync(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["sync", "--json", *arguments])
    return result.exit_code, json.loads(result.stdout)


def states(told: dict[str, Any]) -> dict[str, str]:
    return {b["build"]: b["state"] for b in told["builds"]}


def test_a_new_build_is_harvested_from_the_machine_that_runs_it_once(
    openssh: OpenSshServer, system: Path, site: Path
) -> None:
    inventory(site, openssh, system)
    with Library.open(site / "library", create=True):
        pass
    code, told = sync("--dry-run")
    assert (code, states(told)) == (0, {BUILD: "wanted"})
    assert told["builds"][0]["text"] == "to be harvested from the machine lab"
    with Library.open(site / "library") as library:
        assert library.releases() == []
        assert list(library.store.list("sync/")) == []
    ran = CliRunner().invoke(app, ["sync", "--junit", str(site / "junit.xml")])
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout == f"{BUILD} (28.0, 2026-11-28): sealed: harvested\n"
    assert "lab: copying dyld_shared_cache_arm64e" in ran.stderr
    suite = ET.parse(site / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert [(case.get("name"), len(case)) for case in suite] == [(f"{BUILD} (28.0, 2026-11-28)", 0)]
    (site / "machines.toml").write_text("")  # nobody is asked about what is complete
    code, told = sync()
    assert (code, states(told), told["machines"]) == (0, {BUILD: "complete"}, [])
    assert told["builds"][0]["attempts"] == 1
    with Library.open(site / "library") as library:
        remove_build(library, BUILD, reason="too large")
    inventory(site, openssh, system)
    assert states(sync()[1]) == {BUILD: "removed"}  # not every night anew
    assert states(sync(BUILD, "--dry-run")[1]) == {BUILD: "wanted"}


def test_a_dry_run_for_a_library_that_is_yet_to_be_made_makes_none(site: Path) -> None:
    code, told = sync("--dry-run")
    assert (code, states(told)) == (0, {BUILD: "no source"})
    assert not (site / "library").exists()
    (site / "library").mkdir()
    assert states(sync("--dry-run")[1]) == {BUILD: "no source"}
    assert list((site / "library").iterdir()) == []
    (site / "library/other").touch()  # nor would the run itself make one here
    result = CliRunner().invoke(app, ["sync", "--dry-run"])
    assert result.exit_code == 1
    assert "no library here" in result.stderr


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (StorageError("the disk is full"), 3)])
def test_what_came_of_builds_is_told_though_the_run_ends_early(
    site: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    """A nightly job is cut off by its time limit; its report has to say what was done until then."""
    (site / "releases.toml").write_text('archs = ["arm64e"]\n[sync]\nfrom = "26"\n')
    bring, begun = SyncRunner._bring, []

    def one_only(runner: SyncRunner, build: PublishedBuild, *rest: Any) -> Any:
        begun.append(build)
        if len(begun) > 1:
            raise error
        return bring(runner, build, *rest)

    monkeypatch.setattr(SyncRunner, "_bring", one_only)
    got, told = sync("--no-firmware", "--junit", str(site / "sync.xml"))
    assert got == code
    assert list(states(told).values()) == ["no source", "interrupted" if code == 130 else "failed"]
    assert len(ET.parse(site / "sync.xml").findall(".//testcase")) == 2


def test_a_machine_that_does_not_say_what_it_runs_is_named_and_the_job_fails(
    openssh: OpenSshServer, site: Path
) -> None:
    inventory(site, openssh, site)
    code, told = sync()
    assert code == 3
    assert states(told) == {BUILD: "no source"}
    assert "it is published as installassistant, ota only" in told["builds"][0]["text"]
    (machine,) = told["machines"]
    assert (machine["machine"], machine["build"]) == ("lab", "")
    assert "is not the root of a macOS system" in machine["error"]


def test_a_tag_that_no_machine_has_is_named(openssh: OpenSshServer, site: Path) -> None:
    inventory(site, openssh, site)
    result = CliRunner().invoke(app, ["sync", "--dry-run", "--tag", "arm46"])
    assert (result.exit_code, "machines.toml: has no machine with the tags arm46" in result.stderr) == (0, True)


@pytest.fixture
def restore_image(system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RestoreImage:
    """A restore image of that system, and the program that mounts it."""
    made = RestoreImage(tmp_path)
    made.write((["Mac13,1", "Mac14,8"], {FILE_SYSTEM: "098-1.dmg", SYSTEM: "098-2.dmg.aea"}))
    root = shutil.copytree(system, made.volumes / "fs", symlinks=True)
    (root / "System/Volumes/Preboot/Cryptexes/OS").rename(made.volumes / "sys")
    for left in ("System/Volumes/Preboot/Cryptexes", "System/Volumes/Preboot"):
        (root / left).rmdir()
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


@pytest.mark.skipif(not os.environ.get("SYMCACHE_TEST_SYNC_YEARS"), reason="SYMCACHE_TEST_SYNC_YEARS is not set")
def test_firmware_of_a_mirror_is_downloaded_checked_harvested_and_removed(
    restore_image: RestoreImage, site: Path
) -> None:
    content = restore_image.file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()

    async def answer(request: web.Request) -> web.StreamResponse:
        url = f"http://{request.host}/fullrestores/{restore_image.file.name}"
        sources = [source("ipsw", url, len(content), sha256=sha256)]
        document = pack(entries_of([REAL[0] | {"build": BUILD, "version": "28.0", "sources": sources}]))
        return web.Response(body=document if request.path.endswith(".xz") else content)

    with LyingServer(answer) as server:
        options = ["--appledb", server.url, "--firmware-host", "127.0.0.1", "--staging", str(site / "staging")]
        code, told = sync(*options)
        assert (code, states(told)) == (0, {BUILD: "sealed"}), told
        assert told["builds"][0]["results"][0]["source"].endswith(f"/firmware/{restore_image.file.name}")
        assert states(sync(*options)[1]) == {BUILD: "complete"}
        paths = [path for path, _ in server.requests]
    assert paths.count(f"/fullrestores/{restore_image.file.name}") == 1
    assert list((site / "staging/firmware").iterdir()) == []


def test_firmware_that_fails_is_tried_again_another_night_and_says_why(site: Path) -> None:
    (site / "releases.toml").write_text('[sync]\nfrom = "27"\nbefore = "28"\n')
    entries = entries_of(REAL)
    entries[0]["sources"][0]["links"] = [{"url": "http://127.0.0.1:1/a.ipsw", "active": True}]
    entries[0]["sources"][0]["size"] = 1 << 60 >> 26
    (site / "main.json.xz").write_bytes(pack(entries))
    code, told = sync("26A428")
    assert (code, states(told)) == (0, {"26A428": "no source"})
    assert "none of Apple's hosts" in told["builds"][0]["text"]
    options = ["--firmware-host", "127.0.0.1:1", "--staging", str(site / "staging")]
    (site / "staging").write_text("no folder")
    code, told = sync(*options)
    assert (code, states(told)) == (3, {"26A428": "failed"})
    assert "staging" in told["builds"][0]["text"]
    code, told = sync(*options)
    assert (code, states(told), told["builds"][0]["attempts"]) == (1, {"26A428": "waiting"}, 1)
    assert "failed once, is tried again from 20" in told["builds"][0]["text"]
    assert states(sync("26A428", *options)[1]) == {"26A428": "failed"}  # who names it does not wait


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "is a page where a JSON array of builds was expected"),
        (b"[[[" + b"[" * 99_999, "not readable as JSON"),
    ],
)
def test_an_appledb_that_lies_is_named_and_nothing_is_made(site: Path, document: bytes, text: str) -> None:
    (site / "main.json.xz").write_bytes(document)
    result = CliRunner().invoke(app, ["sync"])
    assert result.exit_code == 3
    assert text in result.stderr
    assert not (site / "library").exists()


@pytest.mark.parametrize("build", ["../x", "latest", "26a428"])
def test_wrong_use(build: str) -> None:
    result = CliRunner().invoke(app, ["sync", build])
    assert result.exit_code == 2
    assert "is no build of macOS" in result.stderr
