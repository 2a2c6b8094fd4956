"""A Mac as odd as a real one: its log-in, its shells, its programs, and what its users may not read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from symcache.demo import cache_util
from symcache.demo.layouts import LAYOUTS
from symcache.library import Library
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshSource, SshTarget, harvest
from symcache_provisioning.extractors.guest_tool import NoSpaceError, temporary_folder
from tests.support.mac import PASSWORD, USERS, OddMac, make_mac, need_a_root
from tests.support.mac_layout import image_count
from tests.vm_provisioning.conftest import QUICK


@pytest.fixture(scope="module")
def mac(loose: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OddMac]:
    need_a_root()
    root = make_mac(tmp_path_factory.mktemp("macs") / "15", "15", loose=loose)
    with OddMac(root) as up:
        yield up


def session_with(mac: OddMac, user: str, monkeypatch: pytest.MonkeyPatch) -> SshSession:
    monkeypatch.setenv("MAC_PASSWORD", PASSWORD)
    return SshSession(
        SshTarget.parse(mac.url(user)),
        trust=HostKeyTrust(pin=mac.fingerprint),
        login=Login(password_env="MAC_PASSWORD", agent=False),
        timeouts=QUICK,
    )


@pytest.mark.parametrize("user", USERS)
def test_any_login_shell_will_do(user: str, mac: OddMac, monkeypatch: pytest.MonkeyPatch) -> None:
    with session_with(mac, user, monkeypatch) as session:
        source = SshSource(session)
        assert (source.identity().build, source.host()) == (LAYOUTS["15"].build, LAYOUTS["15"].model)
        odd = 'it\'s a "$HOME" `x` !! \\ *'
        assert session.run(["/bin/sh", "-c", 'printf %s "$1"', "sh", odd]).stdout == odd.encode()
        with temporary_folder(source, 1) as folder:
            made = mac.root / "private" / folder[1:]
            assert made.stat().st_mode & 0o777 == 0o700
        assert not made.exists()
        with pytest.raises(NoSpaceError), temporary_folder(source, 1 << 60):
            pass


def test_gnu_options_are_unknown_there(mac: OddMac, monkeypatch: pytest.MonkeyPatch) -> None:
    with session_with(mac, "bob", monkeypatch) as session:
        for argv in (
            ["/bin/df", "--portability", "/tmp"],
            ["/usr/bin/mktemp", "--directory"],
            ["/bin/rm", "--recursive", "--force", "/tmp/none"],
            ["/bin/ls", "--all"],
        ):
            output = session.run(argv)
            assert output.status != 0
            assert b"illegal option -- -" in output.stderr


def test_a_mac_is_sealed_though_it_has_what_nobody_may_read(
    mac: OddMac, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session_with(mac, "zoe", monkeypatch) as session:
        result = harvest(SshSource(session), library, staging=tmp_path / "staging")
    assert (result.problems, result.missing, result.sealed) == ([], [], True)
    layout = LAYOUTS["15"]
    assert {c.path: c.images for c in result.caches} == {
        f"/{c.folder}/dyld_shared_cache_{c.arch}": image_count(layout, c) for c in layout.caches
    }
    noted = {note.partition(": ")[0] for note in result.notes}
    assert {
        "/usr/bin/sudo",
        "/System/Library/DirectoryServices/DefaultLocalDB/Default",
        "/System/Library/Templates/Data/Library/Application Support/com.apple.TCC",
    } <= noted


def put_util(root: Path) -> None:
    """Install a dyld_shared_cache_util that says and extracts what the stand-in for it has said and extracted here."""
    cases = []
    for number, cache in enumerate(LAYOUTS["15"].caches):
        path = f"/{cache.folder}/dyld_shared_cache_{cache.arch}"
        told = root / "opt/util" / str(number)
        told.mkdir(parents=True)
        for verb in ("-info", "-text_info"):
            out, error = io.StringIO(), io.StringIO()
            assert cache_util.run([verb, path], out, error, lambda p: root / p[1:]) == 0, error.getvalue()
            (told / verb).write_text(out.getvalue())
        assert cache_util.run(["-extract", f"/opt/util/{number}/out", path], out, error, lambda p: root / p[1:]) == 0
        cases.append(f"    {path}) told=/opt/util/{number} ;;")
    script = [
        "#!/bin/sh",
        "for last; do :; done; case $last in",
        *cases,
        "    *) echo 'Usage: dyld_shared_cache_util <command>' >&2; exit 1 ;;",
        "esac",
        'case $1 in -extract) exec cp -R "$told/out/." "$2" ;; *) exec cat "$told/$1" ;; esac',
    ]
    program = root / "usr/local/bin/dyld_shared_cache_util"
    program.write_text("\n".join(script) + "\n")
    program.chmod(0o755)


def test_a_tool_in_the_guest_is_used_through_tcsh(
    mac: OddMac, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_util(mac.root)
    with session_with(mac, "tess", monkeypatch) as session:
        result = harvest(SshSource(session), library, staging=tmp_path / "staging", extractor="util")
    assert (result.problems, result.extractor, result.sealed) == ([], "util", True)
    assert not [p for p in (mac.root / "private/tmp").iterdir() if p.name.startswith("symcache")]
