"""Setting a machine up over a real SSH server; programs that only macOS has are stand-ins, files are really changed."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symcache.cli import common
from symcache.cli.app import application
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshTarget
from symcache_provisioning.drivers.tart import TartOptions
from symcache_provisioning.machines import life_cycle as machine_module
from symcache_provisioning.machines.checks import Check, Outcome
from symcache_provisioning.machines.guest import GuestPaths
from symcache_provisioning.machines.host_keys import MachineKeys
from symcache_provisioning.machines.inventory import MachineDefinition
from symcache_provisioning.machines.provision import Provisioner, remote_login_out_of_band
from tests.support.openssh import OpenSshServer, keygen, need_openssh
from tests.support.toolchain import compile_image
from tests.vm_provisioning.conftest import QUICK
from tests.vm_provisioning.stand_ins import StandIns

OK, DONE, WOULD, SKIPPED, FAILED = Outcome.OK, Outcome.DONE, Outcome.WOULD_DO, Outcome.SKIPPED, Outcome.FAILED
NAMES = ["key", "remote login", "sleep", "extractor", "host keys"]


class Guest:
    """A Mac as far as is needed: an SSH server whose keys and users' folders are real files, and a few programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = OpenSshServer(folder / "home/.ssh")
        self.root = folder / "etc"
        (self.root / "ssh").mkdir(parents=True)
        for ending in ("", ".pub"):
            shutil.copy(f"{self.server.host_key}{ending}", self.root / f"ssh/ssh_host_ed25519_key{ending}")
        self.state = folder / "state"
        self.state.mkdir()
        self.bin = folder / "programs"
        self.bin.mkdir()
        self.program("uname", "echo arm64")
        self.program("sudo", '[ "$1" = -n ] && shift; exec "$@"')
        self.program(
            "pmset",
            f'case "$*" in -g) echo " standby 0"; echo " sleep $(cat {self.state}/sleep)";;'
            f' "-a sleep 0") echo 0 >{self.state}/sleep;; *) exit 64;; esac',
        )
        (self.state / "sleep").write_text("10 (sleep prevented by sharingd)\n")
        self.program(
            "systemsetup",
            f'case "$1" in -getremotelogin) echo "Remote Login: $(cat {self.state}/login)";;'
            f" -setremotelogin) echo On >{self.state}/login;; esac",
        )
        (self.state / "login").write_text("Off\n")
        self.program("launchctl", f'echo "$*" >>{self.state}/launchctl')
        # "Signing" is what makes the upload run here, where no Mach-O does.
        self.program("signed", "echo 'Usage: dyld_shared_cache_util -list …' >&2; exit 1")
        self.program("codesign", f'[ "$1 $2 $3" = "--force --sign -" ] && cp {self.bin}/signed "$4"')
        self.paths = GuestPaths(
            home=str(folder / "home"),
            ssh=str(self.root / "ssh"),
            util=str(folder / "local/bin/dyld_shared_cache_util"),
            sudo=str(self.bin / "sudo"),
            pmset=str(self.bin / "pmset"),
            systemsetup=str(self.bin / "systemsetup"),
            launchctl=str(self.bin / "launchctl"),
            codesign=str(self.bin / "codesign"),
            uname=str(self.bin / "uname"),
        )
        self.definition = MachineDefinition(
            name="mac",
            driver="tart",
            image="golden",
            user=self.server.user,
            identity=self.server.stranger,
            options=TartOptions(),
        )

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def session(self, *, identity: Path | None = None, pin: str | None = None) -> SshSession:
        return SshSession(
            SshTarget.parse(self.server.url()),
            trust=HostKeyTrust(pin or self.server.fingerprint),
            login=Login(identity or self.server.identity, agent=False),
            timeouts=QUICK,
        )

    def provision(self, util: Path | None = None, *, dry_run: bool = False) -> tuple[dict[str, Check], str | None]:
        with self.session() as session:
            provisioner = Provisioner(session, self.definition, util, dry_run, self.paths)
            steps = provisioner.run()
        assert [s.name for s in steps] == NAMES
        return {s.name: s for s in steps}, provisioner.new_host_key

    def step(self, name: str, util: Path | None = None) -> Check:
        """Do one step."""
        with self.session() as session:
            (step,) = Provisioner(session, self.definition, util, False, self.paths).run(only=[name])
        return step

    def files(self) -> dict[str, bytes]:
        """Every file of the guest but the server's log, and the sandbox of what runs there."""
        skip = {"sshd.log", "sshd.pid"}
        return {str(p): p.read_bytes() for p in self.folder.rglob("*") if p.is_file() and p.name not in skip}


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    need_openssh()
    found = Guest(tmp_path / "guest")
    found.server.start()
    yield found
    found.server.stop()


@pytest.fixture(scope="session")
def util(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dyld_shared_cache_util that somebody built: a Mach-O for Apple silicon."""
    folder = tmp_path_factory.mktemp("util")
    return compile_image(folder, "dyld_shared_cache_util", "int main(void) { return 1; }", arch="arm64", dylib=False)


def outcomes(steps: dict[str, Check]) -> dict[str, Outcome]:
    return {name: step.outcome for name, step in steps.items()}


def test_everything_is_set_up_once(guest: Guest, util: Path) -> None:
    first, new_key = guest.provision(util)
    assert outcomes(first) == dict.fromkeys(NAMES, DONE), first
    assert new_key is not None
    before = guest.files()
    second, again = guest.provision(util)
    assert outcomes(second) == dict.fromkeys(NAMES, OK), second
    assert again is None
    assert guest.files() == before


def test_a_dry_run_tells_and_does_nothing(guest: Guest, util: Path) -> None:
    before = guest.files()
    steps, new_key = guest.provision(util, dry_run=True)
    assert outcomes(steps) == dict.fromkeys(NAMES, WOULD)
    assert new_key is None
    assert guest.files() == before
    assert str(guest.server.stranger) in steps["key"].text
    assert guest.paths.util in steps["extractor"].text


def test_the_key_lets_in_from_then_on(guest: Guest) -> None:
    authorized = guest.folder / "home/.ssh/authorized_keys"
    authorized.write_text(authorized.read_text().rstrip("\n"))  # as an editor may leave it
    assert guest.step("key").outcome is DONE
    with guest.session(identity=guest.server.stranger) as session:
        assert session.connected
    with guest.session() as session:
        assert session.connected, "those that were let in before still are"
    assert len(authorized.read_text().splitlines()) == 2


def test_a_machine_without_a_named_key_keeps_what_it_has(guest: Guest) -> None:
    guest.definition = guest.definition.model_copy(update={"identity": None})
    step = guest.step("key")
    assert (step.outcome, "ssh-keygen" in step.hint) == (SKIPPED, True)


def test_the_server_shows_the_new_host_key(guest: Guest) -> None:
    old = guest.server.fingerprint
    steps, new = guest.provision()
    assert new is not None
    assert new != old
    assert f'host_key = "{new}"' in steps["host keys"].text
    public = guest.root / "ssh/ssh_host_ed25519_key.pub"
    assert keygen("-lf", str(public)).split()[1] == new
    assert (public.with_suffix("").stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o600, 0o644)
    for ending in ("", ".pub"):
        shutil.copy(f"{public.with_suffix('')}{ending}", f"{guest.server.host_key}{ending}")
    guest.server.stop()
    guest.server.start()
    with guest.session(pin=new) as session:
        assert session.connected
    # The disk of another image has been cloned: its keys are no more this machine's own.
    shutil.copy(guest.server.stranger.with_suffix(".pub"), public)
    assert guest.step("host keys").outcome is DONE


def test_a_machine_of_its_own_keeps_its_host_keys(guest: Guest) -> None:
    guest.definition = MachineDefinition(name="mac", driver="static", host="127.0.0.1", user=guest.server.user)
    assert guest.step("host keys").outcome is SKIPPED


def test_remote_login_that_is_refused_with_exit_code_0_is_switched_on_otherwise(guest: Guest) -> None:
    refusing = (
        f'case "$1" in -getremotelogin) echo "Remote Login: $(cat {guest.state}/login)";; '
        '*) echo "setremotelogin: Turning Remote Login on or off requires Full Disk Access privileges.";; esac'
    )
    guest.program("systemsetup", refusing)
    guest.program("launchctl", f'[ "$1" = bootstrap ] && echo On >{guest.state}/login')
    assert guest.step("remote login").outcome is DONE
    guest.program("launchctl", "exit 0")
    (guest.state / "login").write_text("Off\n")
    step = guest.step("remote login")
    assert (step.outcome, "System Settings" in step.hint) == (FAILED, True)


def test_a_setting_that_does_not_stick_is_a_failure(guest: Guest) -> None:
    guest.program("pmset", '[ "$1" = -g ] && echo " sleep 5"; exit 0')
    step = guest.step("sleep")
    assert (step.outcome, step.text) == (FAILED, "mac: still sleeps after 5 min, though pmset was told")


def test_a_mac_that_does_not_tell_is_not_said_to_stay_awake(guest: Guest) -> None:
    guest.program("pmset", "echo Currently in use:")
    step = guest.step("sleep")
    assert (step.outcome, step.text) == (Outcome.WARN, "pmset does not tell whether it sleeps")


def test_without_sudo_the_rest_is_still_done(guest: Guest) -> None:
    guest.program("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    guest.program("id", "echo 501")
    guest.paths = dataclasses.replace(guest.paths, id=str(guest.bin / "id"))
    found, _ = guest.provision()
    assert found["key"].outcome is DONE
    assert found["remote login"].outcome is FAILED
    assert "sudoers.d" in found["remote login"].hint
    assert f"{guest.server.user} may not use sudo there without a password" in found["host keys"].text


def test_how_to_get_an_extractor_is_told(guest: Guest) -> None:
    step = guest.step("extractor")
    assert step.outcome is SKIPPED
    assert "apple-oss-distributions/dyld" in step.hint
    assert "--util PATH" in step.hint


def test_an_extractor_is_signed_where_it_does_not_run_otherwise(guest: Guest, util: Path) -> None:
    assert "signed ad hoc there" in guest.step("extractor", util).text
    installed = Path(guest.paths.util)
    assert installed.stat().st_mode & 0o777 == 0o755
    assert b"Usage" in installed.read_bytes(), "what was signed there is what is installed"
    installed.write_bytes(b"something else")
    assert guest.step("extractor", util).outcome is DONE, "another file in its place is replaced"


def test_an_extractor_that_does_not_run_is_not_installed(guest: Guest, util: Path) -> None:
    guest.program("codesign", "exit 0")
    step = guest.step("extractor", util)
    assert step.outcome is FAILED
    assert "does not run there" in step.text
    assert not Path(guest.paths.util).exists()
    assert not any(p.name.startswith("symcache.") for p in Path("/tmp").glob("symcache.*") if _holds_util(p))


def _holds_util(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK) and (folder / "dyld_shared_cache_util").exists()


@pytest.mark.parametrize("why", ["is no Mach-O", "is for x86_64, the machine is arm64"])
def test_what_is_no_extractor_for_that_machine_is_refused(why: str, guest: Guest, tmp_path: Path) -> None:
    if "x86_64" in why:
        wrong = compile_image(tmp_path / "wrong", "util", "int main(void) { return 1; }", dylib=False)
    else:
        wrong = tmp_path / "util"
        wrong.write_text("#!/bin/sh\n" * 20)
    step = guest.step("extractor", wrong)
    assert step.outcome is FAILED
    assert why in step.text


def test_remote_login_is_switched_on_without_the_network() -> None:
    told: list[list[str]] = []
    remote_login_out_of_band(lambda argv: told.append(list(argv)) or "")
    assert told == [
        ["/usr/bin/sudo", "-n", "/bin/launchctl", "enable", "system/com.openssh.sshd"],
        ["/usr/bin/sudo", "-n", "/bin/launchctl", "bootstrap", "system", "/System/Library/LaunchDaemons/ssh.plist"],
    ]


def test_the_image_itself_is_set_up_and_shut_down_from_within(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, with everything that it would do to this very machine replaced."""
    tart = StandIns(tmp_path / "stand-ins")
    monkeypatch.setenv("PATH", f"{tart.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(common.console, "width", 1000)
    monkeypatch.setattr("symcache_provisioning.Provisioner", functools.partial(Provisioner, paths=guest.paths))
    halt = f"date >>{guest.state}/halted; kill -INT $(cat {guest.state}/pid)"
    monkeypatch.setattr(machine_module, "SHUT_DOWN", ["/bin/sh", "-c", halt])
    monkeypatch.setenv("SYMCACHE_MACHINES", str(tmp_path / "machines.toml"))
    (tmp_path / "machines.toml").write_text(
        f'[machines.mac]\ndriver = "tart"\nimage = "golden"\nuser = "{guest.server.user}"\n'
        f'port = {guest.server.port}\nidentity = "{guest.server.identity}"\nboot_timeout = 30\n'
    )
    public = guest.server.host_key.with_suffix(".pub").read_text()
    tart.add("golden", ip="127.0.0.1", host_key=public)

    def provision(*options: str) -> subprocess.CompletedProcess[str]:
        ran = CliRunner().invoke(application("vm"), ["vm", "provision", "mac", *options])
        return subprocess.CompletedProcess(options, ran.exit_code, ran.stdout, ran.stderr)

    original = Provisioner.run

    def noting(self: Provisioner) -> list[Check]:
        (guest.state / "pid").write_text(str(tart.machines["golden"]["pid"]))
        return original(self)

    monkeypatch.setattr(Provisioner, "run", noting)
    ran = provision("--dry-run")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "would do" in ran.stdout
    ran = provision()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert list(tart.machines) == ["golden"], "nothing is cloned, and the image is not destroyed"
    assert tart.machines["golden"]["state"] == "stopped"
    assert len((guest.state / "halted").read_text().splitlines()) == 2
    (remembered,) = [MachineKeys().get(d) for d in _definitions()]
    assert remembered == keygen("-lf", str(guest.root / "ssh/ssh_host_ed25519_key.pub")).split()[1]
    tart.fault("tart list")
    (tmp_path / "machines.toml").write_text('[machines.mac]\ndriver = "tart"\nimage = "ghcr.io/x/y:latest"\n')
    ran = provision()
    assert ran.returncode == 2
    assert "its image ghcr.io/x/y:latest is not on this host, and cannot be changed" in ran.stderr


def _definitions() -> list[MachineDefinition]:
    from symcache_provisioning.machines.inventory import Inventory

    return list(Inventory.load().machines.values())


def test_paths_are_those_of_macos_unless_said_otherwise() -> None:
    for field in dataclasses.fields(GuestPaths):
        assert field.default is None or str(field.default).startswith(("/etc/", "/usr/", "/bin/"))
