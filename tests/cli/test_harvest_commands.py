"""`symcache harvest`, and asking for what it brought, as a user types them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symcache.macho import identify
from symcache.model import uuid_text
from tests.support.commands import run_here
from tests.support.openssh import OpenSshServer
from tests.support.processes import command_lines
from tests.support.systems import (
    BUILD,
    CACHE_FOLDER,
    images_in,
    make_endless_util,
    make_system,
    make_util,
    system_version,
)
from tests.support.waiting import until

IMAGES = images_in("arm64e") + 4
"""Four slices lie outside of the cache."""


@pytest.fixture(autouse=True)
def own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("COLUMNS", "1000")
    return tmp_path / "library"


def symcache(*arguments: str, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    if limit is None and "--debug" not in arguments:
        return run_here(*arguments)
    return subprocess.run(
        [sys.executable, "-m", "symcache", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=limit,
    )


def answer(*arguments: str) -> Any:
    ran = symcache(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def fails(ran: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    """One sentence that names the thing, and the next step."""
    said = " ".join(ran.stderr.split())
    assert ran.returncode == code, ran.stderr
    assert ran.stderr.count("error:") == 1
    assert "next:" in said
    assert "Traceback" not in said
    assert "\x1b" not in ran.stderr
    for text in texts:
        assert text in said, said


def test_a_harvest_over_ssh_can_be_asked_for(openssh: OpenSshServer, system: Path, tmp_path: Path) -> None:
    url = openssh.url(system)
    result = answer("harvest", url, *openssh.login(), "--util-path", str(make_util(tmp_path / "bin")))
    assert result["release"] == {"product": "macOS", "version": "28.0", "extra": "", "build": BUILD}
    assert (result["sealed"], result["images"], result["extractor"]) == (True, IMAGES, "raw+util")
    assert (result["missing"], result["problems"], result["source"]) == ([], [], url)
    assert [c["arch"] for c in result["caches"]] == ["arm64e"]

    (release,) = answer("releases")
    assert (release["build"], release["version"], release["sealed"]) == (BUILD, "28.0", True)
    tool = system / "usr/bin/tool"
    uuid = identify(tool)[0].uuid
    assert uuid is not None
    (by_name,) = answer("lookup", "tool")
    (by_uuid,) = answer("lookup", str(uuid).replace("-", ""))
    assert by_name == by_uuid
    assert (by_name["uuid"], by_name["path"], by_name["build"]) == (uuid_text(uuid), "/usr/bin/tool", BUILD)
    assert symcache("get", str(uuid), "-o", str(tmp_path / "got")).returncode == 0
    assert (tmp_path / "got").read_bytes() == tool.read_bytes()
    held = answer("verify", BUILD, "--arch", "arm64e", "--level", "bytes")
    assert held["complete"] is True


def test_what_a_person_sees(openssh: OpenSshServer, system: Path) -> None:
    ran = symcache("harvest", openssh.url(system), *openssh.login(), "--extractor", "raw")
    assert ran.returncode == 0
    assert "dyld_shared_cache_arm64e" in ran.stdout
    assert f"macOS 28.0 ({BUILD}): sealed, {IMAGES} images by raw" in ran.stdout
    assert "copying dyld_shared_cache_arm64e" in ran.stderr
    again = symcache("harvest", openssh.url(system), *openssh.login(), "--extractor", "raw")
    assert ", 0 of " in again.stdout


def test_a_folder_is_a_source_too(system: Path, tmp_path: Path) -> None:
    library = tmp_path / "other"
    result = answer("harvest", str(system), "--library", str(library))
    assert (result["sealed"], result["images"]) == (True, IMAGES)
    assert answer("releases", "--library", str(library))[0]["build"] == BUILD
    fails(symcache("releases"), 1, "no library here")  # the environment's was not touched


def test_what_is_incomplete_ends_with_1_and_is_named(tmp_path: Path) -> None:
    root = make_system(tmp_path / "root", caches=("arm64e",), files=False)
    (root / CACHE_FOLDER / "dyld_shared_cache_arm64e.02").unlink()
    (root / "usr/lib").mkdir(parents=True)
    header = bytes.fromhex("cffaedfe0700000103000000060000000500000000ff0000")
    (root / "usr/lib/broken.dylib").write_bytes(header + bytes(99))
    ran = symcache("harvest", str(root))
    fails(ran, 1, "not sealed", "dyld_shared_cache_arm64e.02 is missing", "broken.dylib")
    (release,) = answer("releases")
    assert release["sealed"] is False


def test_a_system_without_its_caches_ends_with_1(tmp_path: Path) -> None:
    root = make_system(tmp_path / "root", caches=())
    fails(symcache("harvest", str(root)), 1, "not sealed", "problem: no system shared cache was found", "os.dmg")
    (release,) = answer("releases")
    assert release["sealed"] is False


def test_what_a_site_wants_decides_what_may_be_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_system(tmp_path / "root", caches=("arm64e",), files=False)
    (root / "System/Library/CoreServices/SystemVersion.plist").write_bytes(system_version(ProductVersion="13.5.1"))
    fails(symcache("harvest", str(root)), 1, "no system shared cache of x86_64 was found")
    table = tmp_path / "releases.toml"
    monkeypatch.setenv("SYMCACHE_RELEASES", str(table))
    table.write_text('archs = ["arm64e"]')
    assert symcache("harvest", str(root)).returncode == 0
    table.write_text("archs = 3")
    fails(symcache("harvest", str(root)), 2, "releases.toml: archs")


@pytest.mark.parametrize(
    ("arguments", "code", "texts"),
    [
        (["nosuchmachine"], 1, ["nosuchmachine"]),
        (["./nosuchfolder"], 2, ["./nosuchfolder: no such folder"]),
        (["/etc/passwd"], 2, ["/etc/passwd: not a folder"]),
        (["/etc"], 1, ["/etc: is not the root of a macOS system"]),
        (["http://host/"], 2, ["not an SSH URL", "ssh://user@host"]),
        (["ssh://a:secret@host"], 2, ["--password-env"]),
        (["ssh://a@host", "--host-key", "SHA256:x"], 2, ["not the fingerprint"]),
        (["ssh://a@host", "--identity", "/nonexistent"], 2, ["/nonexistent: no such file"]),
        (["/tmp", "--identity", "/nonexistent"], 2, ["SSH options go with an ssh:// URL"]),
        (["/", "--root", "usr/lib"], 2, ["usr/lib: --root wants an absolute folder"]),
        (["ssh://a@host", "--bundle-path", "/a"], 2, ["--bundle-path goes with --extractor bundle"]),
        (["nosuch.ipsw"], 2, ["nosuch.ipsw: no such file"]),
        (["ssh://a@no-such-host.invalid"], 3, ["no-such-host.invalid"]),
    ],
)
def test_wrong_use(arguments: list[str], code: int, texts: list[str]) -> None:
    fails(symcache("harvest", *arguments), code, *texts)


def test_hosts_that_cannot_be_harvested(openssh: OpenSshServer, system: Path, own_library: Path) -> None:
    url, login = openssh.url(system), openssh.login()
    fails(symcache("harvest", url, "--identity", str(openssh.identity)), 3, "is not known here", openssh.fingerprint)
    stranger = ["--identity", str(openssh.stranger), "--host-key", openssh.fingerprint]
    fails(symcache("harvest", url, *stranger), 3, "refused", "id_stranger")
    fails(symcache("harvest", url, *login, "--password-env", "UNSET"), 2, "UNSET holds no password")
    fails(symcache("harvest", openssh.url(), *login), 3, "sw_vers", "is that a macOS machine")
    fails(symcache("harvest", url, *login, "--extractor", "util"), 1, "has no dyld_shared_cache_util")
    fails(symcache("harvest", url, *login, "--extractor", "bundle"), 1, "has no /usr/lib/dsc_extractor.bundle", "Xcode")
    assert not list(own_library.rglob("*.json.zst"))


def test_a_new_host_is_trusted_when_asked_and_remembered(openssh: OpenSshServer, system: Path) -> None:
    url, login = openssh.url(system), ["--identity", str(openssh.identity), "--extractor", "raw"]
    first = symcache("harvest", url, *login, "--trust-new-host")
    assert first.returncode == 0
    assert openssh.fingerprint in "".join(first.stderr.split())
    assert symcache("harvest", url, *login).returncode == 0


def test_the_traceback_is_there_for_those_who_ask(openssh: OpenSshServer) -> None:
    ran = symcache("--debug", "harvest", openssh.url(), "--identity", str(openssh.identity))
    assert ran.returncode != 0
    assert "Traceback" in ran.stderr


def test_a_disk_that_takes_no_more(openssh: OpenSshServer, system: Path, tmp_path: Path) -> None:
    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200 << 10, 200 << 10))

    ran = symcache(
        "harvest", openssh.url(system), *openssh.login(), "--extractor", "raw", "--staging", str(tmp_path), limit=small
    )
    fails(ran, 3, "cannot be written: File too large", "--staging")


def test_an_interrupted_harvest_goes_on(openssh: OpenSshServer, system: Path, tmp_path: Path) -> None:
    slow, mark = make_endless_util(tmp_path)
    staging = tmp_path / "staging"
    arguments = ["harvest", openssh.url(system), *openssh.login(), "--util-path", str(slow), "--staging", str(staging)]
    with subprocess.Popen(
        [sys.executable, "-m", "symcache", *arguments], stderr=subprocess.PIPE, text=True, env=os.environ
    ) as running:
        until(mark.exists)
        assert Path(mark.read_text().strip()).is_dir()
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    kept = {f.name: f.stat().st_ino for f in staging.rglob("dyld_shared_cache_*")}
    assert len(kept) == 4
    assert not Path(mark.read_text().strip()).exists()  # what the guest was asked to make is gone
    assert ["sleep", "631.4"] not in command_lines()  # and so is who made it
    assert answer("harvest", openssh.url(system), *openssh.login(), "--staging", str(staging))["sealed"] is True
    assert not list(staging.iterdir())
