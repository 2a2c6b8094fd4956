"""`symcache vm …` and `symcache harvest NAME` as typed: tart is a stand-in, the SSH server of its guest is real."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import platformdirs
import pytest
from typer.testing import CliRunner

from symcache.cli import common
from symcache.cli.app import application
from symcache.errors import RemoteError
from symcache.model import Release
from symcache_provisioning.drivers import MachineState
from symcache_provisioning.drivers import protocol as protocol_module
from symcache_provisioning.drivers.programs import Child
from symcache_provisioning.drivers.qemu import QEMU
from symcache_provisioning.drivers.tart import Tart
from symcache_provisioning.machines import doctor as doctor_module
from symcache_provisioning.machines import host_keys as machine_keys_module
from symcache_provisioning.machines.life_cycle import Machine
from symcache_provisioning.machines.orphans import find_orphans
from symcache_provisioning.machines.runs import RunStore
from tests.support.openssh import OpenSshServer
from tests.support.systems import BUILD, make_endless_util, make_system
from tests.support.waiting import until
from tests.vm_provisioning.drivers.test_drivers import need
from tests.vm_provisioning.stand_ins import StandIns


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small system of macOS 13. Nobody writes into it."""
    return make_system(tmp_path_factory.mktemp("systems") / "small", caches=("arm64e",))


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openssh: OpenSshServer) -> Iterator[StandIns]:
    """Tart with an image whose guest is the real SSH server."""
    found = StandIns(tmp_path / "stand-ins")
    monkeypatch.setenv("PATH", f"{found.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(common.console, "width", 1000)
    monkeypatch.setattr(protocol_module, "_POLL", 0.05)
    monkeypatch.setattr(machine_keys_module, "_WAIT", 0.05)
    monkeypatch.setenv("SYMCACHE_MACHINES", str(tmp_path / "machines.toml"))
    monkeypatch.setenv("SYMCACHE_LIBRARY", str(tmp_path / "library"))
    found.add("golden", ip="127.0.0.1", host_key=openssh.host_key.with_suffix(".pub").read_text())
    yield found
    for machine in found.machines.values():
        if machine["state"] == "running" and "pid" in machine:
            os.kill(machine["pid"], signal.SIGKILL)


@pytest.fixture
def started_when_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """What boot_timeout leaves is for the guest alone, however long the program takes to start on a busy machine."""
    for driver in (QEMU, Tart):
        start = driver.start

        def patient(self: Any, machine: str, log: Path, start: Callable[..., Child] = start) -> Child:
            child = start(self, machine, log)
            until(lambda: self.state(machine) is MachineState.RUNNING)
            return child

        monkeypatch.setattr(driver, "start", patient)


@pytest.fixture
def describe(guests: StandIns, openssh: OpenSshServer, system: Path, tmp_path: Path) -> Callable[..., None]:
    """Write the inventory: machine `mac`, changed and joined by what a test wants."""

    def write(more: str = "", **changed: str | int | None) -> None:
        values: dict[str, str | int | None] = {
            "driver": "tart",
            "image": "golden",
            "user": openssh.user,
            "port": openssh.port,
            "identity": str(openssh.identity),
            "root": str(system),
            "boot_timeout": 30,
        }
        values |= changed
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
        (tmp_path / "machines.toml").write_text("\n".join(["[machines.mac]", *lines, more, ""]))

    write()
    return write


def symcache(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which saves starting one dozens of times."""
    ran = CliRunner().invoke(application(arguments[0]), list(arguments))
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return subprocess.CompletedProcess(arguments, ran.exit_code, ran.stdout, ran.stderr)


def answer(*arguments: str) -> Any:
    ran = symcache(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def fails(ran: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    assert ran.returncode == code, ran.stderr
    assert ran.stderr.count("error:") == 1
    assert "next:" in ran.stderr
    assert "Traceback" not in ran.stderr
    for text in texts:
        assert text in ran.stderr, ran.stderr


def nothing_left(guests: StandIns) -> None:
    """No clone, no process, no record."""
    assert list(guests.machines) == ["golden"]
    assert guests.machines["golden"]["state"] == "stopped"
    assert RunStore().runs() == []
    folder = platformdirs.user_state_path("symcache") / "machines"
    assert [p for p in folder.rglob("*") if p.is_file() and p.name != "lock"] == []


def test_up_says_where_and_down_leaves_nothing(
    guests: StandIns, describe: Callable[..., None], openssh: OpenSshServer
) -> None:
    guests.fault("tart ip", ip_after=2)
    guests.fault("tart exec", agent_after=2)
    (run,) = answer("vm", "up", "mac")
    assert (run["host"], run["port"], run["user"]) == ("127.0.0.1", openssh.port, openssh.user)
    assert run["host_key"] == openssh.fingerprint, "learnt in the guest without the network"
    assert run["vm"].startswith("symcache-mac-")
    listed = answer("vm", "list")
    (machine,) = listed["machines"]
    assert [(r["run"], r["state"]) for r in machine["runs"]] == [(run["run"], "running")]
    assert listed["orphans"] == []
    assert run["run"] not in symcache("vm", "list").stderr
    assert answer("vm", "up", "mac") == [run], "what is up already is not brought up twice"
    down = symcache("vm", "down", "mac")
    assert (down.returncode, down.stdout) == (0, f"{run['run']}: stopped and destroyed\n")
    nothing_left(guests)
    fails(symcache("vm", "down", "mac"), 1, "mac: symcache has nothing up of that name")


def test_a_machine_is_brought_up_harvested_and_taken_down(guests: StandIns, describe: Callable[..., None]) -> None:
    describe(build=BUILD)
    result = answer("harvest", "mac")
    assert (result["sealed"], result["release"]["build"], result["source"]) == (True, BUILD, "mac")
    nothing_left(guests)


def test_a_machine_that_is_up_is_harvested_and_left_up(guests: StandIns, describe: Callable[..., None]) -> None:
    (run,) = answer("vm", "up", "mac")
    assert answer("harvest", "mac")["sealed"] is True
    assert [r.name for r in RunStore().runs()] == [run["run"]]
    assert guests.machines[run["vm"]]["state"] == "running"
    assert symcache("vm", "down", "--all").returncode == 0
    nothing_left(guests)


def test_another_release_than_expected_is_not_harvested(guests: StandIns, describe: Callable[..., None]) -> None:
    describe(build="23G80")
    fails(symcache("harvest", "mac"), 3, f"mac: runs build {BUILD}, the inventory expects 23G80")
    nothing_left(guests)


def test_a_name_that_is_a_folder_too_is_an_error(
    describe: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mac").mkdir()
    monkeypatch.chdir(tmp_path)
    fails(symcache("harvest", "mac"), 2, "mac: is a machine, and a folder here", "./mac")
    (tmp_path / "mac14").mkdir()
    fails(
        symcache("harvest", "mac14"), 1, "has no machine of that name", "write ./mac14 for what is here", "it has: mac"
    )


@pytest.mark.parametrize(("number", "verb"), [(signal.SIGINT, "clone"), (signal.SIGTERM, "ip"), (signal.SIGHUP, "ip")])
def test_an_interrupted_up_leaves_nothing(
    number: signal.Signals, verb: str, guests: StandIns, describe: Callable[..., None]
) -> None:
    guests.fault(f"tart {verb}", slow=600, ip_after=10_000)
    process = start("vm", "up", "mac")
    until(lambda: any(call[:2] == ["tart", verb] for call in guests.calls()))
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    nothing_left(guests)


def test_a_start_that_hangs_can_be_interrupted(guests: StandIns, describe: Callable[..., None]) -> None:
    describe(driver="parallels")
    guests.fault("prlctl start", hang=True)
    process = start("vm", "up", "mac")
    until(lambda: any(call[:2] == ["prlctl", "start"] for call in guests.calls()))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    nothing_left(guests)


def start_harvest(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a harvest; return it, and the folder in the guest into which it is extracting, for ever."""
    tool, mark = make_endless_util(folder)
    process = start("harvest", "mac", "--util-path", str(tool))
    until(mark.exists)
    return process, Path(mark.read_text().strip())


def test_an_interrupted_harvest_leaves_nothing(guests: StandIns, describe: Callable[..., None], tmp_path: Path) -> None:
    process, there = start_harvest(tmp_path)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert not there.exists()
    nothing_left(guests)


def test_what_a_kill_leaves_behind_is_listed_and_can_be_removed(
    guests: StandIns, describe: Callable[..., None]
) -> None:
    guests.fault("tart ip", ip_after=10_000)
    process = start("vm", "up", "mac")
    until(lambda: any(call[:2] == ["tart", "ip"] for call in guests.calls()))
    process.kill()
    process.communicate(timeout=120)
    (vm,) = [name for name in guests.machines if name != "golden"]
    guests.add("symcache-of-somebody-else")
    listed = answer("vm", "list")
    assert listed["orphans"] == [
        {"driver": "tart", "vm": vm, "run": vm},
        {"driver": "tart", "vm": "symcache-of-somebody-else", "run": None},
    ]
    assert listed["strays"] == listed["orphans"], "as it was called before"
    assert f"symcache vm down {vm}" in symcache("vm", "list").stderr
    fails(symcache("vm", "down", "symcache-of-somebody-else"), 1, "nothing up of that name")
    assert symcache("vm", "down", vm).returncode == 0
    assert sorted(guests.machines) == ["golden", "symcache-of-somebody-else"]
    assert RunStore().runs() == []


def test_a_harvest_that_was_killed_leaves_an_orphan_that_no_other_uses(
    guests: StandIns, describe: Callable[..., None], tmp_path: Path
) -> None:
    process, there = start_harvest(tmp_path)
    (during,) = RunStore().runs()
    assert Machine(during.definition).current() is None, "another harvest would have it taken away"
    assert answer("vm", "list")["orphans"] == []
    process.kill()
    process.communicate(timeout=120)
    assert [s["run"] for s in answer("vm", "list")["orphans"]] == [during.name]
    assert symcache("vm", "down", "mac").returncode == 0
    nothing_left(guests)
    shutil.rmtree(there)  # a real guest would have gone with all it held


def test_what_cannot_be_taken_down_is_told_and_hides_no_other_error(
    guests: StandIns, describe: Callable[..., None]
) -> None:
    guests.fault("tart delete", fail="resource busy")
    describe(build="23G80")
    failed = symcache("harvest", "mac")
    fails(
        failed, 3, "the inventory expects 23G80", "could not be taken down: tart delete symcache-mac-", "resource busy"
    )
    describe()
    fails(symcache("harvest", "mac"), 3, "could not be taken down: tart delete", "symcache vm down symcache-mac-")
    assert len(RunStore().runs()) == 2
    guests.fault("tart delete")
    assert symcache("vm", "down", "--all").returncode == 0
    nothing_left(guests)


@pytest.mark.usefixtures("started_when_running")
def test_a_machine_without_an_address_is_given_up(guests: StandIns, describe: Callable[..., None]) -> None:
    describe(boot_timeout=2)
    guests.fault("tart ip", ip_after=10_000)
    fails(symcache("vm", "up", "mac"), 3, "got no network address within", "boot_timeout")
    nothing_left(guests)


@pytest.mark.usefixtures("started_when_running")
def test_a_machine_without_ssh_is_given_up(guests: StandIns, describe: Callable[..., None]) -> None:
    describe(boot_timeout=2, port=1)
    fails(symcache("vm", "up", "mac"), 3, "mac: 127.0.0.1 port 1 did not answer over SSH within 2 s", "Remote Login")
    nothing_left(guests)


def test_a_clone_that_fails_is_told_in_tarts_words(guests: StandIns, describe: Callable[..., None]) -> None:
    guests.fault("tart clone", fail="no space left on device")
    fails(symcache("vm", "up", "mac"), 3, "tart clone symcache-mac-", "ended with 1: no space left on device")
    nothing_left(guests)


def test_a_third_guest_is_refused_before_it_is_cloned(guests: StandIns, describe: Callable[..., None]) -> None:
    for name in ("one", "two"):
        guests.add(name, state="running")
    fails(symcache("vm", "up", "mac"), 3, "2 macOS guests run on this host already, and no more may: one, two")
    assert not any(call[:2] == ["tart", "clone"] for call in guests.calls())
    assert RunStore().runs() == []


def test_a_guest_with_another_key_than_it_told_is_refused(
    guests: StandIns, describe: Callable[..., None], openssh: OpenSshServer
) -> None:
    guests.add("golden", ip="127.0.0.1", host_key=openssh.stranger.with_suffix(".pub").read_text())
    fails(symcache("harvest", "mac"), 3, "is not the host that was pinned", openssh.fingerprint)
    nothing_left(guests)


def test_a_key_is_remembered_by_machine_and_not_by_address(
    guests: StandIns, describe: Callable[..., None], openssh: OpenSshServer, tmp_path: Path
) -> None:
    guests.fault("tart exec", agent_after=10_000)
    fails(symcache("harvest", "mac"), 3, "mac is not known here: it shows", f'host_key = "{openssh.fingerprint}"')
    trusting = symcache("vm", "doctor", "--up", "mac", "--trust-new-host")
    assert trusting.returncode == 0, trusting.stderr
    assert f"trusting mac from now on by {openssh.fingerprint}" in trusting.stderr
    assert symcache("vm", "doctor", "--up", "mac").returncode == 0
    # Another machine has the address now, and with it another key.
    other = OpenSshServer(tmp_path / "other")
    other.start()
    try:
        describe(port=other.port, identity=str(other.identity))
        refused = symcache("harvest", "mac", "--trust-new-host")
        fails(refused, 3, "is not the host that was pinned", other.fingerprint)
    finally:
        other.stop()
    nothing_left(guests)


def test_doctor_finds_a_machine_well(guests: StandIns, describe: Callable[..., None]) -> None:
    (checks,) = answer("vm", "doctor", "mac").values()
    assert {c["check"]: c["verdict"] for c in checks} == {"driver": "ok", "image": "ok", "up": "warn"}
    assert "symcache vm up mac" in checks[-1]["mend"]
    (checks,) = answer("vm", "doctor", "--up", "mac").values()
    verdicts = {c["check"]: c["verdict"] for c in checks}
    assert {name for name, v in verdicts.items() if v == "ok"} >= {
        *("driver", "image", "up", "remote login", "host key", "login", "sftp", "release", "caches"),
    }
    (extractor,) = [c for c in checks if c["check"] == "extractor"]
    assert (extractor["verdict"], extractor["mend"]) == ("warn", "symcache vm provision mac --util PATH")
    (caches,) = [c for c in checks if c["check"] == "caches"]
    assert "arm64e" in caches["text"]
    nothing_left(guests)


_PMSET = """System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 hibernatefile        /var/vm/sleepimage
 disksleep            10
 sleep                {} (sleep prevented by powerd, sharingd)
 ttyskeepawake        1
 displaysleep         2
"""


def test_doctor_warns_of_a_mac_that_will_sleep(
    describe: Callable[..., None], openssh: OpenSshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(driver="static", image=None, host="127.0.0.1", host_key=openssh.fingerprint, boot_timeout=None)
    program = tmp_path / "pmset"
    monkeypatch.setattr(doctor_module, "_PMSET", str(program))
    for minutes, verdict, said in ((5, "warn", "sleeps after 5 min"), (0, "ok", "never sleeps")):
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{_PMSET.format(minutes)}END\n")
        program.chmod(0o755)
        (check,) = [c for c in answer("vm", "doctor", "mac")["mac"] if c["check"] == "sleep"]
        assert check["verdict"] == verdict
        assert said in check["text"]
        assert ("symcache vm provision mac" in check["mend"]) == (verdict == "warn")


def test_doctor_warns_of_keys_that_everybody_has(guests: StandIns, describe: Callable[..., None]) -> None:
    public = guests.machines["golden"]
    guests.add("ghcr.io/cirruslabs/macos-sonoma-base:latest", **public)
    describe(image="ghcr.io/cirruslabs/macos-sonoma-base:latest")
    (checks,) = answer("vm", "doctor", "--up", "mac").values()
    (own,) = [c for c in checks if c["check"] == "own keys"]
    assert (own["verdict"], own["mend"]) == ("warn", "symcache vm provision mac")


def test_doctor_tells_what_mends_each_fault(
    describe: Callable[..., None], openssh: OpenSshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = {"driver": "static", "image": None, "host": "127.0.0.1", "boot_timeout": None}
    bare = OpenSshServer(tmp_path / "bare", sftp="")
    bare.start()
    pinned = openssh.fingerprint

    def failing(*, check: str, **changed: str | int | None) -> dict[str, str]:
        describe(**{**static, "host_key": pinned, **changed})
        ran = symcache("vm", "doctor", "mac", "--json")
        assert ran.returncode == 1, ran.stdout
        assert "mac: cannot be harvested as it is" in ran.stderr
        (found,) = [c for c in json.loads(ran.stdout)["mac"] if c["verdict"] == "fail"]
        assert found["check"] == check
        assert isinstance(found, dict)
        return found

    try:
        assert "Remote Login" in failing(check="remote login", port=1)["mend"]
        unknown = failing(check="host key", host_key=None)
        assert f'host_key = "{pinned}"' in unknown["mend"]
        assert "not the host that was pinned" in failing(check="host key", host_key="SHA256:" + "A" * 43)["text"]
        assert "MAC_PASSWORD holds no password" in failing(check="login", password_env="MAC_PASSWORD")["text"]
        refused = failing(check="login", identity=str(openssh.stranger))
        assert "symcache vm provision mac" in refused["mend"]
        no_sftp = failing(check="sftp", port=bare.port, identity=str(bare.identity), host_key=bare.fingerprint)
        assert "Subsystem sftp" in no_sftp["mend"]
        assert "the inventory expects 23G80" in failing(check="release", build="23G80")["text"]
    finally:
        bare.stop()
    monkeypatch.setenv("PATH", "/nowhere")
    describe()
    ran = symcache("vm", "doctor", "mac")
    fails(ran, 1, "mac: cannot be harvested as it is")
    assert "tart is not installed" in ran.stdout


def test_doctor_tells_of_a_cache_that_lacks_a_companion(
    describe: Callable[..., None], openssh: OpenSshServer, system: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", system, broken], check=True)
    companion = next(broken.rglob("dyld_shared_cache_arm64e.*"))
    companion.unlink()
    describe(
        driver="static", image=None, host="127.0.0.1", host_key=openssh.fingerprint, root=str(broken), boot_timeout=None
    )
    ran = symcache("vm", "doctor", "mac")
    fails(ran, 1, "mac: cannot be harvested")
    assert f"lacks {companion.name}" in ran.stdout
    for file in broken.rglob("dyld_shared_cache_arm64e*"):
        file.unlink()
    ran = symcache("vm", "doctor", "mac")
    fails(ran, 1, "mac: cannot be harvested")
    assert "no system shared cache was found" in ran.stdout


def test_create_installs_where_the_driver_can(guests: StandIns, describe: Callable[..., None], tmp_path: Path) -> None:
    describe(image="fresh")
    fails(symcache("vm", "create", "mac", "--from-ipsw", str(tmp_path / "no.ipsw")), 2, "no.ipsw: no such file")
    done = symcache("vm", "create", "mac", "--from-ipsw", "latest")
    assert done.returncode == 0, done.stderr
    assert "Setup Assistant" in done.stdout
    assert guests.machines["fresh"]["ipsw"] == "latest"
    fails(symcache("vm", "create", "mac", "--from-ipsw", "latest"), 2, "has a machine of that name already")
    describe(image="ghcr.io/x/y:latest")
    fails(symcache("vm", "create", "mac", "--from-ipsw", "latest"), 2, "is of a registry")
    describe(driver="utm")
    fails(symcache("vm", "create", "mac", "--from-ipsw", "latest"), 2, "driver utm cannot", "tart, anka")


@pytest.fixture
def fresh(guests: StandIns, describe: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is to be made, whose user is to get a password."""
    monkeypatch.setenv("MAC_PASSWORD", "a=b c")
    guests.fault("tart create", machine={"ip": "127.0.0.1"})
    describe(image="fresh", password_env="MAC_PASSWORD")


@pytest.mark.usefixtures("fresh")
def test_a_fresh_guest_sets_itself_up_where_tart_can_have_it(guests: StandIns, openssh: OpenSshServer) -> None:
    guests.fault("tart run", provisions=27)
    done = symcache("vm", "create", "mac", "--from-ipsw", "latest")
    assert done.returncode == 0, done.stderr
    assert f"fresh is installed, up at 127.0.0.1:{openssh.port}, and lets {openssh.user} in" in done.stdout
    assert "symcache vm provision mac, then symcache vm down mac" in done.stdout
    assert "a=b c" not in done.stdout + done.stderr
    assert guests.machines["fresh"]["provisioned"] == {
        "fullName": openssh.user,
        "username": openssh.user,
        "password": "a=b c",
        "logsInAutomatically": "true",
        "enablesRemoteLogin": "true",
    }
    assert symcache("vm", "down", "mac").returncode == 0
    assert guests.machines["fresh"]["state"] == "stopped"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("password", "host", "why"),
    [
        ("a", None, "this version of tart has no `tart run --provisioning-opts`"),
        ("a", 26, "requires the host to be running macOS 27"),
        ("a,b", 27, "tart takes no comma"),
        (None, 27, "names no password_env"),
    ],
)
def test_where_it_cannot_what_is_left_to_do_is_told(
    password: str | None,
    host: int | None,
    why: str,
    guests: StandIns,
    describe: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if host:
        guests.fault("tart run", provisions=host)
    monkeypatch.setenv("MAC_PASSWORD", password or "")
    describe(image="fresh", password_env="MAC_PASSWORD" if password else None)
    done = symcache("vm", "create", "mac", "--from-ipsw", "latest")
    assert done.returncode == 0, done.stderr
    assert "fresh does not set itself up: " in done.stderr
    assert why in done.stderr
    assert "go through the Setup Assistant and make the user, and switch on Remote Login" in done.stdout
    assert guests.machines["fresh"]["state"] == "stopped"
    assert RunStore().runs() == []


@pytest.mark.usefixtures("fresh")
def test_a_password_that_is_not_there_is_told_before_anything_is_installed(
    guests: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAC_PASSWORD")
    fails(symcache("vm", "create", "mac", "--from-ipsw", "latest"), 2, "MAC_PASSWORD holds no password")
    assert "fresh" not in guests.machines


def test_an_interrupted_create_leaves_nothing(guests: StandIns, describe: Callable[..., None]) -> None:
    describe(image="fresh")
    guests.fault("tart create", slow=600)
    process = start("vm", "create", "mac", "--from-ipsw", "latest")
    until(lambda: "fresh" in guests.machines)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    nothing_left(guests)


def test_an_image_that_somebody_uses_is_left_alone(guests: StandIns, describe: Callable[..., None]) -> None:
    guests.add("golden", state="running")
    fails(symcache("vm", "provision", "mac"), 3, "mac: its image golden is running, not stopped")
    assert not any(call[1] in {"stop", "delete", "exec"} for call in guests.calls())
    guests.add("golden")
    nothing_left(guests)


@pytest.mark.usefixtures("started_when_running")
def test_remote_login_is_switched_on_from_within_where_ssh_is_silent(
    guests: StandIns, describe: Callable[..., None]
) -> None:
    describe(port=1, boot_timeout=3)
    fails(symcache("vm", "provision", "mac"), 3, "did not answer over SSH within 3 s")
    enable = ["/usr/bin/sudo", "-n", "/bin/launchctl", "enable", "system/com.openssh.sshd"]
    assert guests.calls().count(["tart", "exec", "golden", *enable]) == 1
    nothing_left(guests)


def test_list_tells_what_it_cannot_read_and_what_left_the_inventory(
    guests: StandIns, describe: Callable[..., None], tmp_path: Path
) -> None:
    (run,) = answer("vm", "up", "mac")
    folder = platformdirs.user_state_path("symcache") / "machines/runs"
    (folder / "symcache-x.json").write_text("{")
    describe('[machines.other]\ndriver = "static"\nhost = "h"\ntags = ["intel"]')
    assert [m["name"] for m in answer("vm", "list")["machines"]] == ["mac", "other"]
    assert [m["name"] for m in answer("vm", "list", "--tag", "intel")["machines"]] == ["other"]
    (tmp_path / "machines.toml").write_text("")
    listed = symcache("vm", "list")
    assert f"{run['run']}: up, but the inventory has no mac any more" in listed.stdout
    assert "symcache-x.json: not the record of a run" in listed.stderr
    # Removed behind our back: there is nothing to stop, and the record goes.
    os.kill(guests.machines[run["vm"]]["pid"], signal.SIGKILL)
    (guests.folder / "machines.json").write_text(json.dumps({"golden": guests.machines["golden"]}))
    assert symcache("vm", "down", run["run"]).returncode == 0
    (folder / "symcache-x.json").unlink()
    nothing_left(guests)


def test_guests_that_ended_by_themselves_do_not_count(guests: StandIns, describe: Callable[..., None]) -> None:
    for _ in range(2):
        (run,) = answer("vm", "up", "mac")
        os.kill(guests.machines[run["vm"]]["pid"], signal.SIGINT)
        until(functools.partial(stopped, guests, run["vm"]))
    assert len(answer("vm", "up", "mac")) == 1
    assert symcache("vm", "down", "--all").returncode == 0
    nothing_left(guests)


def stopped(guests: StandIns, vm: str) -> bool:
    return bool(guests.machines[vm]["state"] == "stopped")


def test_a_static_host_is_neither_started_nor_stopped(describe: Callable[..., None], openssh: OpenSshServer) -> None:
    describe(driver="static", image=None, host="127.0.0.1", host_key=openssh.fingerprint, boot_timeout=None)
    fails(symcache("vm", "up", "mac"), 2, "mac: driver static starts and stops nothing")
    assert answer("harvest", "mac")["sealed"] is True
    (machine,) = answer("vm", "list")["machines"]
    assert (machine["host"], machine["runs"]) == ("127.0.0.1", [])


@pytest.mark.usefixtures("started_when_running")
def test_a_real_qemu_that_boots_nothing_is_given_up(
    guests: StandIns, describe: Callable[..., None], tmp_path: Path
) -> None:
    need("qemu-system-x86_64", "qemu-img")
    disk = tmp_path / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    arguments = ["-machine", "none", "-S", "-nodefaults", "-drive", "file={disk},format=qcow2,if=none,id=disk"]
    options = f'[machines.mac.options]\narguments = {json.dumps(arguments)}\nnic = "none"'
    describe(options, driver="qemu", image=str(disk), port=None, boot_timeout=3)
    fails(symcache("vm", "up", "mac"), 3, "mac: 127.0.0.1 port", "did not answer over SSH within 3 s")
    nothing_left(guests)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "symcache", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_record_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/torn.json").write_text("{")
    assert store.runs() == []
    _, problems = find_orphans(store, [])
    assert [problem.partition(":")[0] for problem in problems] == [f"{tmp_path}/runs/torn.json"]


def test_doctor_names_the_check_that_a_lost_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        notes: ClassVar[list[str]] = []

        def identity(self) -> Release:
            return Release(version="13.5.1", build="22G120")

        def caches(self) -> list[object]:
            return []

        def __getattr__(self, name: str) -> object:
            raise RemoteError(f"{name}: the connection is lost")

    monkeypatch.setattr(doctor_module, "MachineSource", lambda *_: Lost())
    machine = SimpleNamespace(definition=SimpleNamespace(name="mac"))
    checks = list(doctor_module._system(machine, SimpleNamespace(sftp=None)))  # type: ignore[arg-type]
    assert [c.name for c in checks if c.failed] == ["caches", "sleep"]
    assert checks[-1].name == "space here"
