"""`symcache vm doctor` and `symcache vm provision`: whether machines can be harvested, and setting them up for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symcache.cli.common import emit_json, errors_to_exit, out, plain
from symcache.cli.machine_options import MachinesOption, NamesArgument, announce, chosen_machines, coloured
from symcache.cli.options import JsonOption, TrustOption
from symcache.errors import IncompleteError, SymcacheError, UsageError

if TYPE_CHECKING:
    from symcache_provisioning import Check, Machine, Run

__all__ = ["doctor", "provision"]


def doctor(
    names: NamesArgument,
    up: Annotated[bool, typer.Option("--up", help="Bring a machine up that is not, and take it down again.")] = False,
    machines: MachinesOption = None,
    trust_new_host: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Tell what machines lack to be harvested, and how to fix it: exit 1 when something fails."""
    with errors_to_exit():
        failed = _report(
            chosen_machines(names, machines),
            lambda machine: _checks(machine, up, trust_new_host),
            _check_json,
            json,
        )
        if failed:
            raise IncompleteError(
                f"{', '.join(failed)}: cannot be harvested as {'it is' if len(failed) == 1 else 'they are'}",
                hint="do what stands behind each fail above" if not json else "see `next` of each check that fails",
            )


def provision(
    names: NamesArgument,
    util: Annotated[
        Path | None, typer.Option("--util", metavar="PATH", help="A dyld_shared_cache_util that you built, to install.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    machines: MachinesOption = None,
    trust_new_host: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Set up what a harvest needs: key, Remote Login, no sleep, the extractor, fresh host keys.

    Running it again changes nothing. A machine that is up is set up as it is; otherwise its image is started and
    changed itself, so that all clones have it.
    """
    with errors_to_exit():
        if util is not None and not util.expanduser().is_file():
            raise UsageError(f"{util}: no such file", hint="name the dyld_shared_cache_util that you built")
        failed = _report(
            chosen_machines(names, machines),
            lambda machine: _provisioned(machine, util, dry_run, trust_new_host),
            _step_json,
            json,
        )
        if failed:
            raise IncompleteError(
                f"{', '.join(failed)}: not everything could be set up", hint="fix what failed, and run this again"
            )


def _report(
    machines: list[Machine],
    checks_of: Callable[[Machine], Iterable[Check]],
    to_json: Callable[[Check], dict[str, str]],
    json: bool,
) -> list[str]:
    """Print the checks of each machine as they come, or all of them as JSON; return the machines where one failed."""
    reports: dict[str, list[Check]] = {}
    for machine in machines:
        name = machine.definition.name
        checks = reports.setdefault(name, [])
        if not json and len(machines) > 1:
            out.print(f"[bold]{name}[/]")
        for check in checks_of(machine):
            checks.append(check)
            if not json:
                outcome = coloured(check.outcome) + " " * (8 - len(check.outcome))
                out.print(f"{outcome} {check.name:<13} {plain(check.text)}")
                if check.hint:
                    out.print(f"{'':22} [dim]next:[/] {plain(check.hint)}")
    if json:
        emit_json({name: [to_json(check) for check in checks] for name, checks in reports.items()})
    return [name for name, checks in reports.items() if any(check.failed for check in checks)]


def _check_json(check: Check) -> dict[str, str]:
    # `mend` is the old name of `next`, kept for one version more.
    return {"check": check.name, "verdict": check.outcome, "text": check.text, "mend": check.hint, "next": check.hint}


def _step_json(step: Check) -> dict[str, str]:
    return {"step": step.name, "outcome": step.outcome, "text": step.text, "next": step.hint}


def _checks(machine: Machine, up: bool, trust_new_host: bool) -> Iterator[Check]:
    from symcache_provisioning import Check, Outcome, check_machine

    if not up or not machine.driver.capabilities.life_cycle:
        run = machine.current() if machine.driver.capabilities.life_cycle and _installed(machine) else None
        yield from check_machine(machine, run)
        return
    try:
        with machine.started() as run:
            if trust_new_host:
                machine.trust(run, trust_new=True)
            yield from check_machine(machine, run)
    except SymcacheError as error:
        yield Check("up", Outcome.FAIL, str(error), error.hint)


def _installed(machine: Machine) -> bool:
    try:
        return bool([p.find() for p in machine.driver.programs])
    except SymcacheError:
        return False


def _provisioned(machine: Machine, util: Path | None, dry_run: bool, trust_new_host: bool) -> list[Check]:
    from symcache_provisioning import Provisioner

    up_before = machine.driver.capabilities.life_cycle and machine.current() is not None
    with _started_to_change(machine) as run, machine.session(run, trust_new=trust_new_host) as session:
        provisioner = Provisioner(session, machine.definition, util.expanduser() if util else None, dry_run)
        steps = provisioner.run()
        if provisioner.new_host_key and run is not None:
            # The new key was read over a connection to the right guest, so it is trusted from now on.
            run.host_key = provisioner.new_host_key
            machine.store.save(run)
            if not run.cloned:
                machine.keys.remember(machine.definition, provisioner.new_host_key)
        if run is not None and not up_before:
            machine.shut_down(run, session)  # over this session, as another one would need the new key
    return steps


@contextmanager
def _started_to_change(machine: Machine) -> Iterator[Run | None]:
    """Yield a run to be set up: one that is up, or else the image itself, which is started and taken down."""
    from symcache_provisioning import remote_login_out_of_band

    driver, image = machine.driver, str(machine.definition.image)
    if driver.capabilities.life_cycle and machine.current() is None and not driver.is_local(image):
        raise UsageError(
            f"{machine.definition.name}: its image {image} is not on this host, and cannot be changed",
            hint=f"clone it with {driver.name} to a machine of your own and name that as `image`,"
            f" or set up one run: symcache vm up {machine.definition.name}, then this",
        )

    def rescue(run: Run) -> None:
        announce(f"{run.vm}: SSH is silent: switching Remote Login on from within")
        try:
            remote_login_out_of_band(lambda argv: driver.exec_out_of_band(run.vm, argv))
        except SymcacheError as error:
            announce(f"{run.vm}: {error}")

    with machine.started(clone=False, rescue=rescue if driver.capabilities.out_of_band else None) as run:
        yield run
