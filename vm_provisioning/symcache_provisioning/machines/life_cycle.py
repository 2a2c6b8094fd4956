"""The life cycle of a machine: cloned from its image, started, connected to over SSH, and taken down again.

If an error or a signal ends `up` or a harvest, no VM is left. After SIGKILL the record of the run is left, by which
`find_orphans` finds the VM and `down` removes it.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symcache.errors import EnvironmentFailure, HostKeyError, RemoteError, SymcacheError, UsageError
from symcache_provisioning.drivers import DRIVERS, RUN_PREFIX, Child, Driver, Endpoint, MachineState, make_driver
from symcache_provisioning.interrupts import Interrupts, check_interrupts, defer_interrupts
from symcache_provisioning.machines.host_keys import PUBLIC_KEY_FILE, MachineKeys, guest_host_key
from symcache_provisioning.machines.inventory import MachineDefinition
from symcache_provisioning.machines.runs import Phase, Run, RunStore
from symcache_provisioning.machines.session import MachineSession, MachineSource
from symcache_provisioning.ssh.config import SshConfig
from symcache_provisioning.ssh.host_keys import HostKeyTrust
from symcache_provisioning.ssh.local_network import LocalNetworkError
from symcache_provisioning.ssh.login import SshTarget, Timeouts
from symcache_provisioning.ssh.probe import server_host_key, speaks_ssh
from symcache_provisioning.ssh.session import SshSession

__all__ = ["GUEST_LIMIT", "Machine"]

Start = Callable[[str, Path], Child | None]

GUEST_LIMIT = 2
"""macOS guests that may run on one Mac at a time, by Apple's licence, and on Apple silicon by its kernel."""
_STOP_GRACE = 30.0
_BANNER_SECONDS = 5.0
_UNROUTABLE_SECONDS = 20.0
SHUT_DOWN = [
    "/bin/sh",
    "-c",
    '[ "$(id -u)" = 0 ] && exec /sbin/shutdown -h now; exec /usr/bin/sudo -n /sbin/shutdown -h now',
]


class Machine:
    """A machine of the inventory. `announce` is called with a sentence for each step and each key that is trusted."""

    def __init__(
        self,
        definition: MachineDefinition,
        *,
        store: RunStore | None = None,
        keys: MachineKeys | None = None,
        announce: Callable[[str], None] | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.definition = definition
        self.store = store or RunStore()
        self.keys = keys or MachineKeys()
        self.driver: Driver[Any] = make_driver(definition.driver, definition.options, self.store.driver_folder)
        self._announce = announce or (lambda _: None)
        self._timeouts = timeouts

    def runs(self) -> list[Run]:
        """Return the runs of this machine, finished or not."""
        return [r for r in self.store.runs() if r.definition.name == self.definition.name]

    def current(self) -> Run | None:
        """Return a run that is up and not temporary, or None."""
        up = (r for r in self.runs() if r.phase is Phase.UP and not r.temporary)
        return next((r for r in up if self.driver.state(r.vm) is MachineState.RUNNING), None)

    def up(self, *, clone: bool = True, rescue: Callable[[Run], None] | None = None, start: Start | None = None) -> Run:
        """Clone, start, and wait until SSH answers. `rescue` is called once if SSH does not answer for long.

        `clone=False` starts the image itself; `start` is another way to start than the driver's usual one. If this
        raises, no VM is left.
        """
        run = self._new_run(clone=clone)
        with Interrupts():
            self._bring_up(run, rescue, start)
        return run

    def _new_run(self, *, clone: bool, temporary: bool = False) -> Run:
        if not self.driver.capabilities.life_cycle:
            raise UsageError(
                f"{self.definition.name}: driver {self.driver.name} starts and stops nothing",
                hint="it has to be running; symcache vm doctor tells whether it is",
            )
        return Run.new(self.definition, clone=clone, temporary=temporary)

    def _bring_up(self, run: Run, rescue: Callable[[Run], None] | None, start: Start | None = None) -> None:
        definition, driver = self.definition, self.driver
        try:
            self._admit(run)
            if run.cloned:
                self._announce(f"cloning {definition.image} as {run.vm}")
                driver.clone(str(definition.image), run.vm)
            run.phase = Phase.STARTING
            self.store.save(run)
            self._announce(f"starting {run.vm}")
            # A process that goes on must be recorded before an interrupt; a program that may hang is interruptible.
            with defer_interrupts() if driver.capabilities.child_process else contextlib.nullcontext():
                run.child = (start or driver.start)(run.vm, self.store.log(run))
                self.store.save(run)
            deadline = time.monotonic() + definition.boot_timeout
            run.host, run.port = self._wait_for_ssh(run, deadline, rescue)
            if driver.capabilities.out_of_band and not definition.host_key:
                read = functools.partial(driver.exec_out_of_band, run.vm)
                run.host_key = guest_host_key(read, self._announce)
            run.phase = Phase.UP
            self.store.save(run)
        except BaseException:
            with defer_interrupts(forget=True):
                self._take_down_after_error(run)
            raise

    def _admit(self, run: Run) -> None:
        """Save the record of the run. Raises EnvironmentFailure if it would be one guest too many."""
        with self.store.locked():
            if self.driver.capabilities.apple_limit:
                ours = {r.vm for r in self.store.runs() if self._is_running_guest(r)}
                running = sorted(ours | set(self.driver.running_guests()))
                if len(running) >= GUEST_LIMIT:
                    raise EnvironmentFailure(
                        f"{self.definition.name}: {GUEST_LIMIT} macOS guests run on this host already, and no more may:"
                        f" {', '.join(running)}",
                        hint="take one down: symcache vm list shows them, symcache vm down NAME",
                    )
            if not run.cloned and self.driver.state(run.vm) is not MachineState.STOPPED:
                raise EnvironmentFailure(
                    f"{self.definition.name}: its image {run.vm} is {self.driver.state(run.vm)}, not stopped",
                    hint=f"stop it with {self.driver.name}",
                )
            self.store.save(run)

    def _is_running_guest(self, run: Run) -> bool:
        """Return whether a run counts towards the limit of guests: it is running, or about to."""
        if not DRIVERS[run.definition.driver].capabilities.apple_limit:
            return False
        if run.phase is not Phase.UP and not run.abandoned:
            return True
        driver = make_driver(run.definition.driver, run.definition.options, self.store.driver_folder)
        return driver.state(run.vm).is_up

    def _wait_for_ssh(self, run: Run, deadline: float, rescue: Callable[[Run], None] | None) -> Endpoint:
        self._announce(f"waiting for {run.vm} to answer over SSH")
        started = unroutable = time.monotonic()
        while True:
            check_interrupts()
            left = deadline - time.monotonic()
            # Read again each time, as the first address may be an old lease.
            endpoint = self.driver.endpoint(run.vm, max(0.1, left), run.child)
            if self.definition.port != 22 and endpoint.port == 22:
                endpoint = Endpoint(endpoint.host, self.definition.port)
            try:
                if speaks_ssh(*endpoint, max(0.1, min(left, _BANNER_SECONDS))):
                    return endpoint
                unroutable = time.monotonic()
            except LocalNetworkError:
                # It may pass: until the guest is there, the address may be that of an earlier run.
                if time.monotonic() - unroutable > _UNROUTABLE_SECONDS:
                    raise
            self.driver.check_child(run.vm, run.child)
            left = deadline - time.monotonic()
            if rescue is not None and time.monotonic() - started > self.definition.boot_timeout / 2:
                rescue(run)
                rescue = None
            if left <= 0:
                raise RemoteError(
                    f"{self.definition.name}: {endpoint.host} port {endpoint.port} did not answer over SSH within"
                    f" {self.definition.boot_timeout:g} s",
                    hint="switch on Remote Login in the image, or raise boot_timeout in the inventory",
                )
            time.sleep(min(1.0, left))

    def target(self, run: Run | None = None) -> SshTarget:
        """Return where to log in: of a run where its driver says, else as ssh_config(5) has it. Raises UsageError."""
        definition = self.definition
        if run is not None:
            return SshTarget(run.host, definition.user, run.port, definition.root)
        if definition.host is None:
            raise UsageError(f"{definition.name}: is not up", hint=f"symcache vm up {definition.name}")
        said = definition.model_fields_set  # the inventory counts more than ssh_config(5), and that more than defaults
        way = SshConfig.for_user().host(
            definition.host,
            user=definition.user if "user" in said else None,
            port=definition.port if "port" in said else None,
            default_user=definition.user,
        )
        return SshTarget(definition.host, way.user, way.port, definition.root, way)

    def trust(self, run: Run | None, *, trust_new: bool = False) -> HostKeyTrust:
        """Return which host key to accept. Raises HostKeyError if none is known."""
        definition = self.definition
        if definition.host_key or run is None:
            return HostKeyTrust.for_user(pin=definition.host_key, trust_new=trust_new)
        known = run.host_key or self.keys.get(definition)
        if known is None:
            host_key = server_host_key(run.host, run.port)
            if not trust_new:
                raise HostKeyError(
                    f"{definition.name} is not known here: it shows {host_key}",
                    hint=f"compare it on the machine with ssh-keygen -lf {PUBLIC_KEY_FILE}, then write"
                    f' host_key = "{host_key}" in the inventory; or pass --trust-new-host to believe it now',
                )
            path = self.keys.remember(definition, host_key)
            self._announce(f"trusting {definition.name} from now on by {host_key}, kept in {path}")
            known = host_key
        return HostKeyTrust(pin=known)

    def _wrong_key_hint(self, run: Run | None) -> str:
        """Return the hint for a machine whose host key is not the one we know."""
        compare = f"compare it on the machine with ssh-keygen -lf {PUBLIC_KEY_FILE}, then"
        if self.definition.host_key or run is None:
            return f"{compare} write it as host_key in the inventory"
        if run.host_key:
            return "another machine may have its address: take it down and up again"
        return f"if the image was made anew, {compare} remove {self.keys.path(self.definition)}"

    def session(self, run: Run | None = None, *, trust_new: bool = False) -> SshSession:
        """Return a session with the machine, not yet connected."""
        return MachineSession(
            self._wrong_key_hint(run),
            self.target(run),
            trust=self.trust(run, trust_new=trust_new),
            login=self.definition.login,
            timeouts=self._timeouts,
            announce=self._announce,
        )

    @contextmanager
    def source(self, *, trust_new: bool = False) -> Iterator[MachineSource]:
        """Yield the machine as a connected source. It is started if need be, and then taken down at the end."""
        with self.started() as run, self.session(run, trust_new=trust_new) as session:
            yield MachineSource(session, self.definition)

    @contextmanager
    def started(self, *, clone: bool = True, rescue: Callable[[Run], None] | None = None) -> Iterator[Run | None]:
        """Yield a run that is up, or None for a static host. If it is started for this, it is taken down at the end."""
        run = self.current() if self.driver.capabilities.life_cycle else None
        if run is not None or not self.driver.capabilities.life_cycle:
            yield run
            return
        run = self._new_run(clone=clone, temporary=True)
        done = False
        with Interrupts():
            try:
                self._bring_up(run, rescue)
                yield run
                done = True
            finally:
                with defer_interrupts(forget=not done):
                    if done:
                        self.down(run)
                    else:
                        self._take_down_after_error(run)

    def down(self, run: Run) -> None:
        """Stop a run, and destroy the VM if it is a clone. Raises EnvironmentFailure, and then keeps the record."""
        if not run.cloned and run.phase is Phase.UP and self.driver.state(run.vm) is MachineState.RUNNING:
            try:
                with self.session(run) as session:
                    self.shut_down(run, session)
            except SymcacheError as error:
                self._announce(f"{run.vm}: could not be shut down from within: {error}")
        run.phase = Phase.STOPPING
        self.store.save(run)
        grace = 1.0 if run.cloned else _STOP_GRACE  # a clone's disks are thrown away anyway
        self._steps(
            run,
            functools.partial(self.driver.stop, run.vm, grace),
            run.child.end if run.child else None,
            functools.partial(self.driver.destroy, run.vm) if run.cloned and run.vm.startswith(RUN_PREFIX) else None,
        )
        self.store.remove(run)

    @staticmethod
    def _steps(run: Run, *steps: Callable[[], None] | None) -> None:
        """Do every step, then raise the first error. If the last step succeeds, earlier errors do not matter."""
        failure: SymcacheError | None = None
        for step in steps:
            if step is None:
                continue
            try:
                step()
            except SymcacheError as error:
                failure = failure or error
            else:
                if step is steps[-1]:
                    failure = None  # a destroyed VM is stopped, too
        if failure is not None:
            raise EnvironmentFailure(
                f"{run.vm} could not be taken down: {failure}", hint=f"try again: symcache vm down {run.name}"
            ) from failure

    def shut_down(self, run: Run, session: SshSession) -> None:
        """Shut the guest down from within, so that changes to an image reach its disk. Errors are announced."""
        try:
            session.run(SHUT_DOWN)
        except SymcacheError as error:
            self._announce(f"{run.vm}: could not be shut down from within: {error}")
            return
        self.driver.wait_for(run.vm, {MachineState.STOPPED, MachineState.MISSING}, 2 * _STOP_GRACE)

    def _take_down_after_error(self, run: Run) -> None:
        """Take a run down after an error, which an error here must not hide."""
        try:
            if self.store.has(run):  # else it was not admitted, or is removed already
                self.down(run)
        except SymcacheError as error:
            self._announce(f"{error}; {error.hint}")
