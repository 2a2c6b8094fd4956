"""The commands as a CI job uses them: exit codes, documents on standard output, read access alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web
from click.testing import Result
from defusedxml import ElementTree
from typer.testing import CliRunner

from symcache.cli.app import application
from symcache.library import Library
from symcache_provisioning import DirectorySource, harvest
from symcache_server.lookup.misses import MissLog
from tests.client.lying_server import LyingServer
from tests.verify.releases import BUILD, OTHER_BUILD, Workshop

ASSETS = Path(__file__).parents[2] / "symcache" / "demo" / "assets"
PLAIN = "/usr/lib/libplain.dylib"


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(application(str(arguments[0])), [str(a) for a in arguments], input=stdin)


def test_a_complete_release_ends_with_0(harvested: Path) -> None:
    result = run("verify", "--library", harvested)
    assert result.exit_code == 0, result.output
    assert "complete" in result.stdout
    assert run("verify", "--all", "--library", harvested).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["99Z9"], 1),
        (["--all", BUILD], 2),
        (["--json", "--markdown"], 2),
        ([BUILD, "--uuids", "-"], 2),
        (["--waivers", "nowhere.toml"], 2),
        (["--releases", "nowhere.toml"], 2),
        (["--scratch", "nowhere"], 2),
        (["--dump", "nowhere.ips"], 2),
        (["--level", "deep"], 2),
        (["--server", "ftp://x"], 2),
        (["--server", "http://127.0.0.1:1"], 3),
    ],
)
def test_other_ends_have_their_codes(harvested: Path, arguments: list[str], code: int) -> None:
    library = [] if "--server" in arguments else ["--library", str(harvested)]
    result = run("verify", *arguments, *library)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


def test_documents_for_machines(workshop: Workshop, tmp_path: Path) -> None:
    workshop.drop_object(PLAIN, "arm64e")
    junit = tmp_path / "reports" / "junit.xml"
    result = run("verify", "--library", workshop.location, "--json", "--github", "--junit", junit)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["complete"] is False
    assert [(f["code"], f["path"], f["arch"], f["build"]) for f in document["findings"]] == [
        ("missing", PLAIN, "arm64e", BUILD)
    ]
    assert document["releases"][0]["version"] == "13.6.9"
    assert "::error title=missing 22G830::" in result.stderr
    assert ElementTree.parse(junit).getroot().get("failures") == "1"
    text = run("verify", "--library", workshop.location, "--markdown")
    assert text.stdout.startswith("## symcache verify: 1 finding\n")
    assert run("verify", "--library", workshop.location, "--github").stdout.count("::error") == 1


def test_a_waiver_turns_the_verdict(workshop: Workshop, tmp_path: Path) -> None:
    workshop.drop_object(PLAIN, "arm64e")
    waivers = tmp_path / "waivers.toml"
    waivers.write_text(f'[[waiver]]\ncode = "missing"\npath = "{PLAIN}"\nreason = "known"\nexpires = 2999-01-01\n')
    result = run("verify", "--library", workshop.location, "--waivers", waivers)
    assert result.exit_code == 0, result.output
    assert "waived" in result.stdout
    waivers.write_text(waivers.read_text().replace("2999", "2001"))
    assert run("verify", "--library", workshop.location, "--waivers", waivers).exit_code == 1


def test_tables_and_waivers_come_from_settings_too(
    harvested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "expected.toml").write_text('expect_builds = ["22G1"]\n')
    (tmp_path / "accepted.toml").write_text(
        '[[waiver]]\ncode = "no-harvest"\nbuild = "22G1"\nreason = "withdrawn"\nexpires = 2999-01-01\n'
    )
    monkeypatch.setenv("SYMCACHE_RELEASES", str(tmp_path / "expected.toml"))
    assert run("verify", "--library", harvested).exit_code == 1
    monkeypatch.setenv("SYMCACHE_WAIVERS", str(tmp_path / "accepted.toml"))
    assert run("verify", "--library", harvested).exit_code == 0


def test_the_stand_in_release_is_complete_for_what_its_mac_has(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        staging = tmp_path / "staging"
        assert harvest(DirectorySource(ASSETS / "host"), library, staging=staging, extractor="raw").sealed
    arguments = ("verify", "22G830", "--level", "bytes", "--library", tmp_path / "library")
    narrowed = run(*arguments, "--arch", "x86_64", "--arch", "arm64e")
    assert narrowed.exit_code == 0, narrowed.output
    whole = run(*arguments, "--json")
    assert whole.exit_code == 1
    assert [(f["code"], f["arch"]) for f in json.loads(whole.stdout)["findings"]] == [("cache-missing", "x86_64h")]


def test_dumps_and_lists(harvested: Path, tmp_path: Path) -> None:
    have = Workshop(harvested).object(PLAIN, "x86_64").uuid
    served = run("verify", "--uuids", "-", "--library", harvested, "--json", stdin=f"{have}\n")
    assert served.exit_code == 0, served.output
    assert json.loads(served.stdout)["modules"][0]["builds"] == [BUILD]
    (tmp_path / "list").write_text(f"{have} {PLAIN}\n{UUID(int=1)} libgone.dylib\n")
    lacking = run("verify", "--uuids", tmp_path / "list", "--library", harvested)
    assert lacking.exit_code == 1
    assert "1 of 2 modules can be served" in lacking.stdout
    dump = run("verify", "--dump", ASSETS / "dumps" / "crash-x86_64.zip", "--library", harvested)
    assert dump.exit_code == 1
    assert "module-missing" in dump.stdout


def test_diff(harvested_twice: Path) -> None:
    result = run("diff", OTHER_BUILD, BUILD, "--library", harvested_twice)
    assert result.exit_code == 0, result.output
    assert "0 added, 0 removed, 20 changed, 4 the same" in result.stdout
    document = json.loads(run("diff", OTHER_BUILD, BUILD, "--library", harvested_twice, "--json").stdout)
    assert len(document["changed"]) == 20
    assert run("diff", "22G1", BUILD, "--library", harvested_twice).exit_code == 1


def test_missing_reads_the_log_of_this_users_servers(harvested: Path) -> None:
    nobody_asked = run("missing", "--library", harvested)
    assert "nothing is missing" in nobody_asked.stdout
    assert "no server of this user has noted anything" in nobody_asked.output
    log = MissLog(Path(os.environ["XDG_STATE_HOME"]) / "symcache" / "misses.db")
    for _ in range(3):
        log.add(UUID(int=5), "executable")
    log.close()
    document = json.loads(run("missing", "--library", harvested, "--json").stdout)
    assert [(w["uuid"], w["times"]) for w in document] == [("00000000-0000-0000-0000-000000000005", 3)]


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


def test_a_library_is_checked_by_a_second_installation_with_read_access_alone(harvested: Path, tmp_path: Path) -> None:
    location = tmp_path / "library"
    shutil.copytree(harvested, location)
    for file in location.glob("catalog*"):
        file.unlink()
    for path in [location, *location.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = _tree(location)
    # Root may write anywhere, unless it gives that up.
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    command = [sys.executable, "-m", "symcache", "verify", "--level", "bytes", "--library", str(location)]
    done = subprocess.run([*unprivileged, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _tree(location) == before
    for path in [location, *location.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@contextmanager
def serving(library: Path, home: Path) -> Iterator[str]:
    """Run a real server on a free port; its log of misses lies below `home`."""
    environment = {**os.environ, "XDG_STATE_HOME": str(home / "state"), "XDG_CACHE_HOME": str(home / "cache")}
    command = [sys.executable, "-m", "symcache", "serve", "--port", "0", "--json", "--library", str(library)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        assert process.stdout
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_a_running_server_is_asked_the_same_questions(
    workshop: Workshop, harvested_twice: Path, tmp_path: Path
) -> None:
    have = workshop.object(PLAIN, "x86_64").uuid
    with serving(workshop.location, tmp_path) as url:
        # What it says of itself, and of builds that it should have.
        assert run("verify", "--server", url).exit_code == 0
        assert run("verify", BUILD, "--server", url).exit_code == 0
        absent = run("verify", OTHER_BUILD, "--server", url, "--json")
        assert absent.exit_code == 1
        assert [f["code"] for f in json.loads(absent.stdout)["findings"]] == ["no-harvest"]
        # What a library lists, asked of production image by image.
        same = run("verify", "--server", url, "--library", workshop.location)
        assert same.exit_code == 0, same.output
        more = run("verify", OTHER_BUILD, "--server", url, "--library", harvested_twice, "--json")
        assert more.exit_code == 1
        found = json.loads(more.stdout)["findings"]
        # All of the other build: 21 images of its caches, two slices of dyld; the tool is the same file.
        assert {f["code"] for f in found} == {"missing"}
        assert len(found) == 23
        assert sum("only as other shared caches lay it out" in f["message"] for f in found) == 3
        never = run("verify", "9Z1", "--server", url, "--library", workshop.location, "--json")
        assert never.exit_code == 1
        assert [(f["code"], f["build"]) for f in json.loads(never.stdout)["findings"]] == [("no-harvest", "9Z1")]
        # Dumps and lists.
        assert run("verify", "--uuids", "-", "--server", url, stdin=f"{have}\n").exit_code == 0
        assert run("verify", "--uuids", "-", "--server", url, stdin=f"{UUID(int=3)}\n").exit_code == 1
        # All this was no need of anybody.
        assert json.loads(run("missing", "--server", url, "--library", workshop.location, "--json").stdout) == []
        # What it was asked for in vain, and under which name.
        for path in (
            f"buildid/{UUID(int=3).hex}/executable",
            f"libmore.dylib/mach-uuid-{UUID(int=4).hex}/libmore.dylib",
        ):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(f"{url}/{path}")
        wanted = json.loads(run("missing", "--server", url, "--library", workshop.location, "--json").stdout)
        named = {UUID(w["uuid"]): w["name"] for w in wanted}
        assert (named[UUID(int=3)], named[UUID(int=4)]) == ("", "libmore.dylib")
        assert BUILD in next(w["hint"] for w in wanted if w["name"])


def test_a_server_is_complete_for_the_architectures_that_are_asked_for(workshop: Workshop, tmp_path: Path) -> None:
    cache = workshop.object(PLAIN, "x86_64h").cache_uuid
    fields = ("manifest", "objects", "cache_files")
    workshop.rewrite(
        lambda r: r.model_copy(update={f: tuple(e for e in getattr(r, f) if e.cache_uuid != cache) for f in fields})
    )
    with serving(workshop.location, tmp_path) as url:
        whole = run("verify", BUILD, "--server", url, "--json")
        assert whole.exit_code == 1
        assert [(f["code"], f["arch"]) for f in json.loads(whole.stdout)["findings"]] == [("cache-missing", "x86_64h")]
        assert run("verify", BUILD, "--server", url, "--arch", "x86_64", "--arch", "arm64e").exit_code == 0


def test_a_token_is_sent_and_never_shown(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        releases: list[object] = []
        return web.json_response({"releases": releases} if "Authorization" in request.headers else {})

    with LyingServer(answer) as server:
        named = server.url.replace("http://", "http://any:s3cret@")
        result = run("verify", "--server", named, BUILD)
        assert (result.exit_code, f"{server.url}: has nothing of {BUILD}" in result.output) == (1, True)
        assert "s3cret" not in result.output
    gone = run("verify", "--server", named)
    assert (gone.exit_code, server.url in gone.output, "s3cret" in gone.output) == (3, True, False)
