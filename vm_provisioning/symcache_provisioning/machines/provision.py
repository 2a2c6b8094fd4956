"""Sets up on a machine what unattended harvests need. Run twice, it changes nothing the second time.

Each step checks, changes what is not as it should be, and checks again, as macOS's own programs exit 0 even if they did
nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from symcache.errors import RemoteError, SymcacheError, UsageError
from symcache.macho import identify
from symcache.text import excerpt
from symcache_provisioning.drivers import DRIVERS
from symcache_provisioning.extractors.dyld_shared_cache_util import TOOL
from symcache_provisioning.machines.checks import Check, Outcome
from symcache_provisioning.machines.guest import MARKER, MAX_FILE, Guest, GuestPaths, sleeps_after
from symcache_provisioning.machines.host_keys import fingerprint_of
from symcache_provisioning.machines.inventory import MachineDefinition
from symcache_provisioning.ssh.guest_folder import guest_folder, sweep_guest_folders
from symcache_provisioning.ssh.session import SshSession

__all__ = ["BUILD_UTIL", "Provisioner", "remote_login_out_of_band"]

BUILD_UTIL = (
    f"{TOOL} is no part of macOS: build its target of that name in Apple's open-source dyld"
    " (github.com/apple-oss-distributions/dyld, the tag nearest to the machine's release; it needs patches to build"
    " with the public SDK), or take a patched build, then pass it with --util PATH. Harvests work without it"
    " (--extractor raw)"
)
_ORIGIN = ".origin"
"""Suffix of the file beside the extractor with two SHA-256: of what was uploaded, and of what was installed."""
_ADD_KEY = """
umask 077
file="$1/.ssh/authorized_keys"
mkdir -p "$1/.ssh" || exit 1
if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then echo >> "$file"; fi
printf '%s\\n' "$2" >> "$file"
"""
_NEW_HOST_KEYS = """
set -e
umask 077
cd "$1"
for kind in rsa ecdsa ed25519; do
    rm -f .symcache_new .symcache_new.pub
    "$2" -q -t "$kind" -N "" -C "" -f .symcache_new
    chmod 644 .symcache_new.pub
    mv -f .symcache_new "ssh_host_${kind}_key"
    mv -f .symcache_new.pub "ssh_host_${kind}_key.pub"
done
"$2" -lf ssh_host_ed25519_key.pub | { read -r bits print rest; printf '%s\\n' "$print"; } > "$3"
chmod 644 "$3"
sync
"""


class _WouldDoError(Exception):
    """Ends a step of a dry run before it changes something."""


@dataclass
class Provisioner:
    """Sets a machine up over a connected session."""

    session: SshSession
    definition: MachineDefinition
    util: Path | None = None
    dry_run: bool = False
    paths: GuestPaths = field(default_factory=GuestPaths)
    new_host_key: str | None = None
    """Fingerprint of the host key if a new one was made."""
    _guest: Guest = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._guest = Guest(self.session, self.definition, self.paths)

    def run(self, *, only: Collection[str] = ()) -> list[Check]:
        """Do all steps, or `only` those named. One that fails does not prevent the next."""
        steps: Sequence[tuple[str, Callable[[], Check]]] = (
            ("key", self._key),
            ("remote login", self._remote_login),
            ("sleep", self._sleep),
            ("extractor", self._extractor),
            ("host keys", self._host_keys),  # last, as they hold for new connections
        )
        return [self._step(name, step) for name, step in steps if not only or name in only]

    def _step(self, name: str, step: Callable[[], Check]) -> Check:
        try:
            return step()
        except _WouldDoError as would:
            return Check(name, Outcome.WOULD_DO, str(would))
        except SymcacheError as error:
            return Check(name, Outcome.FAILED, str(error), error.hint)

    def _change(self, what: str) -> None:
        """Raise if this is a dry run."""
        if self.dry_run:
            raise _WouldDoError(what)

    def _key(self) -> Check:
        key = self._public_key()
        if key is None:
            return Check(
                "key",
                Outcome.SKIPPED,
                "the inventory names no identity: the agent's keys are used as they are",
                "make one with ssh-keygen -t ed25519, and name it as `identity`",
            )
        home = self.paths.home or self._guest.run_checked("/bin/sh", "-c", "cd && pwd").strip()
        if not home.startswith("/") or not home.isprintable():
            raise RemoteError(f"{self.definition.name}: names {excerpt(home)!r} as the home of {self.definition.user}")
        file = f"{home}/.ssh/authorized_keys"
        if self._authorized(file, key):
            return Check("key", Outcome.OK, f"{self.definition.identity} is let in")
        self._change(f"add {self.definition.identity}.pub to {file}")
        self._guest.run_checked("/bin/sh", "-c", _ADD_KEY, "sh", home, key)
        if not self._authorized(file, key):
            raise RemoteError(f"{self.definition.name}: {file} does not hold the key that was added")
        return Check("key", Outcome.DONE, f"{self.definition.identity} is let in from now on")

    def _public_key(self) -> str | None:
        """Return type and key, as in authorized_keys, or None without an identity."""
        private = self.definition.login.key()
        return f"{private.get_name()} {private.get_base64()}" if private is not None else None

    def _authorized(self, file: str, key: str) -> bool:
        output = self._guest.run("/bin/cat", file)
        blob = key.split()[1]
        lines = output.stdout.decode("utf-8", "replace").splitlines()
        return any(blob in line.split() for line in lines if not line.lstrip().startswith("#"))

    def _remote_login(self) -> Check:
        if self._remote_login_is_on():
            return Check("remote login", Outcome.OK, "is on, after a restart too")
        self._change("switch Remote Login on for good")
        paths = self.paths
        # Without Full Disk Access the first does nothing and exits 0; then the others help.
        for argv in (
            (paths.systemsetup, "-setremotelogin", "on"),
            (paths.launchctl, "enable", "system/com.openssh.sshd"),
            (paths.launchctl, "bootstrap", "system", "/System/Library/LaunchDaemons/ssh.plist"),
        ):
            try:
                self._guest.run_as_root(*argv)
            except RemoteError:
                continue  # the check after the last decides
            if self._remote_login_is_on():
                return Check("remote login", Outcome.DONE, "was only on for now, is on for good")
        raise RemoteError(
            f"{self.definition.name}: Remote Login cannot be switched on from here",
            hint="switch it on there: System Settings, General, Sharing",
        )

    def _remote_login_is_on(self) -> bool:
        output = self._guest.run_as_root(self.paths.systemsetup, "-getremotelogin")
        match = re.search(r"Remote Login: (On|Off)", output)
        if match is None:
            raise RemoteError(f"{self.definition.name}: systemsetup -getremotelogin says {excerpt(output)!r}")
        return match[1] == "On"

    def _sleep(self) -> Check:
        minutes = self._sleeps_after()
        if minutes is None:
            return Check("sleep", Outcome.WARN, "pmset does not tell whether it sleeps", "run pmset -g there")
        if minutes == 0:
            return Check("sleep", Outcome.OK, "never sleeps")
        self._change(f"keep it from sleeping (now after {minutes} min)")
        self._guest.run_as_root(self.paths.pmset, "-a", "sleep", "0")
        if (minutes := self._sleeps_after()) != 0:
            raise RemoteError(f"{self.definition.name}: still sleeps after {minutes} min, though pmset was told")
        return Check("sleep", Outcome.DONE, "never sleeps from now on")

    def _sleeps_after(self) -> int | None:
        return sleeps_after(self._guest.run_checked(self.paths.pmset, "-g"))

    def _extractor(self) -> Check:
        installed = self._guest.sha256(self.paths.util)
        if self.util is None:
            if installed is not None:
                return Check("extractor", Outcome.OK, f"{self.paths.util} is there")
            return Check("extractor", Outcome.SKIPPED, f"{TOOL} is not there", BUILD_UTIL)
        ours = hashlib.sha256(self._checked_util(self.util)).hexdigest()
        if installed is not None and (installed == ours or self._origin() == f"{ours} {installed}"):
            return Check("extractor", Outcome.OK, f"{self.paths.util} is {self.util}")
        self._change(f"install {self.util} as {self.paths.util}")
        signed = self._install(self.util, ours)
        return Check("extractor", Outcome.DONE, f"{self.util} is installed as {self.paths.util}{signed}")

    def _checked_util(self, util: Path) -> bytes:
        try:
            if util.stat().st_size > MAX_FILE:
                raise UsageError(f"{util}: larger than {MAX_FILE >> 20} MiB: is that {TOOL}?")
            data = util.read_bytes()
        except OSError as error:
            raise UsageError(f"{util}: cannot be read: {error.strerror}", hint="check --util") from error
        archs = {s.arch for s in identify(util)}
        machine = self._guest.run_checked(self.paths.uname, "-m").strip()
        wanted = {"arm64": {"arm64", "arm64e"}}.get(machine, {machine})
        if not archs:
            raise UsageError(f"{util}: is no Mach-O", hint=BUILD_UTIL)
        if not archs & wanted:
            raise UsageError(
                f"{util}: is for {', '.join(sorted(archs))}, the machine is {excerpt(machine)}",
                hint="build it for that",
            )
        return data

    def _origin(self) -> str:
        return self._guest.run("/bin/cat", self.paths.util + _ORIGIN).stdout.decode("ascii", "replace").strip()

    def _install(self, util: Path, ours: str) -> str:
        target, part, signed, left = self.paths.util, f"{self.paths.util}.part", "", list[str]()
        sweep_guest_folders(self.session, self.session.run)
        with guest_folder(self.definition.name, self.session, self.session.run, left.append) as folder:
            file = f"{folder}/{TOOL}"
            self.session.upload(util, file)
            self._guest.run_checked("/bin/chmod", "755", file)
            if not self._runs(file):
                # Apple silicon runs only signed programs; an ad hoc signature is enough.
                self._guest.run_checked(self.paths.codesign, "--force", "--sign", "-", file)
                signed = ", signed ad hoc there"
                if not self._runs(file):
                    raise RemoteError(
                        f"{self.definition.name}: {util} does not run there as {TOOL} does",
                        hint=f"run it there by hand; is it built for that release? {BUILD_UTIL}",
                    )
            self._guest.run_as_root("/bin/mkdir", "-p", target.rpartition("/")[0])
            self._guest.run_as_root("/bin/cp", file, part)
            self._guest.run_as_root("/bin/chmod", "755", part)
            self._guest.run_as_root("/bin/mv", "-f", part, target)
            # Signing changes the file, so the hashes before and after are stored.
            origin = f"{ours} {self._guest.sha256(target)}"
            self._guest.run_as_root("/bin/sh", "-c", 'printf "%s\\n" "$1" > "$2"', "sh", origin, target + _ORIGIN)
        return "; ".join([signed, *left])

    def _runs(self, path: str) -> bool:
        output = self._guest.run(path)
        return f"Usage: {TOOL}".encode() in output.stderr + output.stdout

    def _host_keys(self) -> Check:
        if not DRIVERS[self.definition.driver].capabilities.life_cycle:
            return Check("host keys", Outcome.SKIPPED, "a machine of its own has host keys of its own")
        public, marker = f"{self.paths.ssh}/ssh_host_ed25519_key.pub", f"{self.paths.ssh}/{MARKER}"
        now = fingerprint_of(self._guest.run("/bin/cat", public).stdout.decode("ascii", "replace"))
        if now is not None and self._guest.run("/bin/cat", marker).stdout.decode("ascii", "replace").strip() == now:
            return Check("host keys", Outcome.OK, f"{now} was made on this machine")
        self._change("make new host keys: those of a public image are public")
        self._guest.run_as_root(
            "/bin/sh", "-c", _NEW_HOST_KEYS, "sh", self.paths.ssh, self.paths.ssh_keygen, marker, timeout=120
        )
        made = fingerprint_of(self._guest.run_checked("/bin/cat", public))
        if made is None or made == now:
            raise RemoteError(f"{self.definition.name}: {public} holds no new key, though ssh-keygen was told")
        self.new_host_key = made
        return Check("host keys", Outcome.DONE, f'new ones are in use: host_key = "{made}"')


def remote_login_out_of_band(run_in_guest: Callable[[Sequence[str]], str], paths: GuestPaths | None = None) -> None:
    """Switch Remote Login on by programs that `run_in_guest` runs without the network. Raises EnvironmentFailure."""
    paths = paths or GuestPaths()
    run_in_guest([paths.sudo, "-n", paths.launchctl, "enable", "system/com.openssh.sshd"])
    run_in_guest([paths.sudo, "-n", paths.launchctl, "bootstrap", "system", "/System/Library/LaunchDaemons/ssh.plist"])
